/**
 * Which format an image has. The content alone never decides: who writes to a raw disk, a guest for one,
 * could make an image of it that names any file of its owner, and would find that file in the disk.
 */

import { extname } from 'node:path';
import { ImageError } from './errors.js';
import { FORMAT_NAMES } from './format-names.js';
import { FORMATS, RAW, formatNamed } from './formats.js';
import type { Format } from './formats.js';
import type { ImageFile } from './image-file.js';

export interface Choice {
  readonly format: Format;
  /** It is of a kind that is only read, unless the user names the format. */
  readonly readOnly: boolean;
}

const NAMES = `--format ${FORMAT_NAMES.join(', ')}`.replace(/, (\w+)$/, ' or $1');

/**
 * @param wanted what the user, or an image that names this one, says it is
 * @throws ImageError
 */
export async function chooseFormat(file: ImageFile, wanted?: string): Promise<Choice> {
  return wanted === undefined
    ? byEnding(file)
    : { format: await named(file, wanted), readOnly: false };
}

async function named(file: ImageFile, wanted: string): Promise<Format> {
  const format = formatNamed(wanted);
  if (format === undefined) {
    throw new ImageError(
      `${file.shown} is said to be in the format ${wanted}, which is not served here`,
    );
  }
  // What is raw may look like anything.
  if (format === RAW || (await looksLike(file, format))) return format;
  const found = await contentOf(file);
  throw new ImageError(
    `${file.shown} is not in the format ${format.name}: its content ${seems(found)}`,
  );
}

async function byEnding(file: ImageFile): Promise<Choice> {
  if (file.isDevice) {
    throw new ImageError(
      `${file.shown} is a block device, whose name does not tell the format: add --format raw if it is the disk itself`,
    );
  }
  const ending = extname(file.shown).slice(1).toLowerCase();
  const candidates = FORMATS.filter(({ endings }) => endings.includes(ending));
  if (candidates.length === 0) {
    throw new ImageError(
      `the name of ${file.shown} does not tell its format, and the content is not to be trusted with it: add ${NAMES}`,
    );
  }
  const found = await contentOf(file);
  const format = candidates.find((candidate) => candidate === (found ?? RAW));
  if (format !== undefined) {
    return { format, readOnly: format.readOnlyEndings?.includes(ending) === true };
  }
  if (candidates.includes(RAW)) {
    const pretended = found?.name ?? RAW.name;
    throw new ImageError(
      `${file.shown} ends as a raw disk does, and looks like ${pretended}, as which it could name other files of yours: ` +
        `add --format raw if it is one, whatever a guest may have written there, or --format ${pretended} if you know that it is that`,
    );
  }
  throw new ImageError(
    `${file.shown} ends in .${ending}, but its content ${seems(found)}: say what it is with --format`,
  );
}

const seems = (found: Format | undefined): string =>
  found === undefined ? 'has no mark of that, nor of another format' : `looks like ${found.name}`;

/** The format that the content has the mark of; undefined where it may be raw. */
async function contentOf(file: ImageFile): Promise<Format | undefined> {
  for (const format of FORMATS) if (await looksLike(file, format)) return format;
  return undefined;
}

async function looksLike(file: ImageFile, { magic }: Format): Promise<boolean> {
  for (const { at, bytes } of magic) {
    // A file that is shorter has no such place.
    if (at < 0 && file.size < -at) continue;
    if ((await file.read(at, bytes.length)).toString('latin1') === bytes) return true;
  }
  return false;
}
