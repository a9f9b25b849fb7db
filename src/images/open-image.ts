/**
 * What a server is to open for an image: every file of it, each in a format that is known, and nothing that
 * qemu would find out, or look up, by itself.
 */

import { lstat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, resolve } from 'node:path';
import { chooseFormat } from './choose-format.js';
import { ImageError } from './errors.js';
import type { Format } from './formats.js';
import { ImageFile } from './image-file.js';
import type { Identity } from './image-file.js';
import type { Extent, NamedFiles } from './named-files.js';
import { checkExtent } from './vmdk.js';

/** A node of qemu's block layer (BlockdevOptions of its QAPI), as far as we make any. */
export interface BlockNode {
  readonly driver: string;
  readonly file: FileNode;
  /** Null: there is none, whatever the image says. Left out for a format that has no such thing. */
  readonly backing?: BlockNode | null;
  readonly 'data-file'?: FileNode;
}

/** A name in here is a path, and never a protocol, an option or anything else. */
interface FileNode {
  readonly driver: 'file' | 'host_device';
  readonly filename: string;
}

export interface Image {
  /** As the user wrote it. */
  readonly shown: string;
  /** Absolute. */
  readonly path: string;
  readonly format: Format;
  readonly readOnly: boolean;
  readonly node: BlockNode;
  /** All that the server opens: absolute paths, free of symbolic links. */
  readonly files: readonly string[];
  readonly identity: Identity;
}

export interface ImageOptions {
  /** The name of a format, where the ending does not tell it. */
  readonly format: string | undefined;
  /** The user trusts the image with the names of other files. */
  readonly backing: boolean;
  readonly readOnly: boolean;
}

/** More than anybody has; it ends a circle, too. */
const MAX_DEPTH = 100;

/**
 * @param shown the path, as messages have it
 * @throws ImageError
 */
export async function openImage(shown: string, options: ImageOptions): Promise<Image> {
  const looking = new Look(options);
  return looking.top(shown);
}

class Look {
  readonly #options: ImageOptions;
  readonly #files: string[] = [];

  constructor(options: ImageOptions) {
    this.#options = options;
  }

  async top(shown: string): Promise<Image> {
    const file = await ImageFile.open(shown);
    try {
      const choice = await chooseFormat(file, this.#options.format);
      const readOnly = this.#options.readOnly || choice.readOnly;
      const names = await choice.format.namedFiles(file);
      if (!this.#options.backing) refuseNames(file, names);
      if (!readOnly) {
        await file.checkWritable();
        refuseWriting(file, names);
      }
      const node = await this.#node(file, choice.format, names, { readOnly, depth: 0 });
      const { path, identity } = file;
      return { shown, path, format: choice.format, readOnly, node, files: this.#files, identity };
    } finally {
      await file.close();
    }
  }

  async #node(
    file: ImageFile,
    format: Format,
    { backing, dataFile, extents }: NamedFiles,
    { readOnly, depth }: { readonly readOnly: boolean; readonly depth: number },
  ): Promise<BlockNode> {
    this.#files.push(await file.realPath());
    for (const extent of extents ?? []) await this.#checkExtent(file, extent, readOnly);
    const below =
      backing === undefined ? null : await this.#backing(file, backing, format, depth + 1);
    const data =
      dataFile === undefined ? undefined : await this.#plainFile(file, dataFile, 'data', readOnly);
    return {
      driver: format.driver,
      file: fileNode(file),
      ...(format.canBack ? { backing: below } : {}),
      ...(data === undefined ? {} : { 'data-file': data }),
    };
  }

  async #backing(
    above: ImageFile,
    { name, format: wanted }: NonNullable<NamedFiles['backing']>,
    ofAbove: Format,
    depth: number,
  ): Promise<BlockNode> {
    if (depth > MAX_DEPTH) {
      throw new ImageError(`the backing files of ${above.shown} have no end, or lead in a circle`);
    }
    const file = await openNamed(above, name, 'backing');
    try {
      const format = await formatOfBacking(file, wanted, above, ofAbove);
      const names = await format.namedFiles(file);
      // It is never written to.
      return await this.#node(file, format, names, { readOnly: true, depth });
    } finally {
      await file.close();
    }
  }

  /** qemu opens it by its name in the descriptor. */
  async #checkExtent(image: ImageFile, { name, type }: Extent, readOnly: boolean): Promise<void> {
    const file = await openNamed(image, name, 'extent');
    try {
      // What was unpacked together with the image may be a link to anything.
      if (!this.#options.backing && !(await lstat(file.path)).isFile()) {
        throw new ImageError(
          `${image.shown} names ${name} as a part of it, which is a symbolic link: add --backing if you trust it`,
        );
      }
      await checkExtent(file, type);
      if (!readOnly) await file.checkWritable();
      this.#files.push(await file.realPath());
    } finally {
      await file.close();
    }
  }

  async #plainFile(
    image: ImageFile,
    name: string,
    what: string,
    readOnly: boolean,
  ): Promise<FileNode> {
    const file = await openNamed(image, name, what);
    try {
      if (!readOnly) await file.checkWritable();
      this.#files.push(await file.realPath());
      return fileNode(file);
    } finally {
      await file.close();
    }
  }
}

const fileNode = ({ path, isDevice }: ImageFile): FileNode => ({
  driver: isDevice ? 'host_device' : 'file',
  filename: path,
});

/** @throws ImageError for an image that would show files which only it has chosen */
function refuseNames(file: ImageFile, { backing, dataFile, extents = [] }: NamedFiles): void {
  const foreign = extents.find(({ name }) => !isPartOf(file, name))?.name;
  const name = backing?.name ?? dataFile ?? foreign;
  if (name === undefined) return;
  const what =
    backing !== undefined
      ? 'its backing file'
      : dataFile !== undefined
        ? 'its data file'
        : 'a part of it';
  throw new ImageError(
    `${file.shown} names ${name} as ${what}, whose content would be shown in the disk: add --backing if you trust the image with that`,
  );
}

function refuseWriting(file: ImageFile, { readOnly }: NamedFiles): void {
  if (readOnly === undefined) return;
  throw new ImageError(`${file.shown} ${readOnly}: add -r to read only`);
}

/**
 * Whether a name is that of a part of this image, as all tools name them: for disk.vmdk, in the same folder,
 * disk-flat.vmdk, disk-f001.vmdk, disk-s001.vmdk.
 */
function isPartOf(image: ImageFile, name: string): boolean {
  const stem = basename(image.path).replace(/\.[^.]*$/, '');
  return (
    name.startsWith(`${stem}-`) &&
    /^(flat|[fs]\d{3,4})\.vmdk$/.test(name.slice(stem.length + 1)) &&
    !name.includes(':') &&
    // Bytes that are no UTF-8, of which qemu would open another file than we have looked at.
    !name.includes('\ufffd')
  );
}

/** What qemu takes for the name of a protocol, as `nbd:` and `json:` are. */
const PROTOCOL = /^[^/]*:/;

/** @throws ImageError */
async function openNamed(image: ImageFile, name: string, what: string): Promise<ImageFile> {
  if (PROTOCOL.test(name)) {
    throw new ImageError(
      `${image.shown} names ${name} as its ${what} file, which is not a path: where that is meant, start its server yourself, as [ qemu-nbd ... ]`,
    );
  }
  // As qemu does: seen from the folder where the image is, links or not.
  const path = isAbsolute(name) ? name : resolve(dirname(image.path), name);
  try {
    return await ImageFile.open(path);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw new ImageError(`${image.shown} names its ${what} file so: ${error.message}`, {
      cause: error,
      failure: error.failure,
    });
  }
}

async function formatOfBacking(
  file: ImageFile,
  wanted: string | undefined,
  above: ImageFile,
  { name }: Format,
): Promise<Format> {
  try {
    return (await chooseFormat(file, wanted)).format;
  } catch (error) {
    if (!(error instanceof ImageError) || wanted !== undefined) throw error;
    throw new ImageError(
      `${above.shown} does not say which format its backing file ${file.shown} has: put that into it, as: ` +
        `qemu-img rebase -u -f ${name} -F FORMAT -b ${file.shown} ${above.shown}`,
      { cause: error },
    );
  }
}
