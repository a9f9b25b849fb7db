/** The server of a disk image: which one, how it is started, and what its failure means to the user. */

import { TOO_LATE, within } from '../deadline.js';
import { ImageError, MissingImageError } from '../images/errors.js';
import { RAW } from '../images/formats.js';
import { inUse, lockImage } from '../images/image-lock.js';
import type { ImageLock } from '../images/image-lock.js';
import { identify } from '../images/image-file.js';
import { openImage } from '../images/open-image.js';
import type { Image, ImageOptions } from '../images/open-image.js';
import { traceMain } from '../trace.js';
import type { CaptiveCommand, CaptiveProcess } from './captive-process.js';
import { CaptiveServer } from './captive-server.js';
import type { MountCommand } from './command-line.js';
import { CommandError } from './errors.js';
import { exitText } from './exit.js';
import type { Exit } from './exit.js';
import type { Source } from './modes.js';
import { CaptiveOrigin } from './origin.js';
import type { Connecting } from './origin.js';
import type { Interruptions } from './signals.js';

/** Beside our connections, those that qemu-nbd has not yet noticed to be gone. */
const SPARE_CONNECTIONS = 4;
/** Milliseconds for the lock of an image to be released, which takes less than one. */
const UNLOCK_DEADLINE = 1_000;

/** @throws ImageError, CommandError; Interrupted */
export async function imageOrigin(
  { path, format, backing }: Source & { readonly kind: 'image' },
  options: Connecting,
  command: Pick<MountCommand, 'readOnly' | 'verbose' | 'log'>,
  interruptions: Interruptions,
): Promise<CaptiveOrigin> {
  const { image, lock } = await lookAt(
    path,
    { format, backing, readOnly: command.readOnly },
    command.log,
    options.deadline,
    interruptions,
  );
  const words = serverCommand(image, options.connections);
  const start = (): Promise<CaptiveProcess> =>
    CaptiveServer.start(words, { showOutput: command.verbose, keepWords: true });
  let checking: Promise<void> | undefined;
  const restart = async (): Promise<CaptiveProcess> => {
    // One look at a time: each that hangs holds a thread, of which there are four for all that is done.
    checking ??= checkSame(image).finally(() => (checking = undefined));
    if ((await within(checking, options.deadline)) === TOO_LATE)
      throw unread(path, options.deadline);
    return start();
  };
  try {
    return new CaptiveOrigin(await start(), options, restart, {
      mountSource: image.path,
      files: image.files,
      explainEnd: (text, exit) => endText(image, text, exit),
      passOn: (text) => void process.stderr.write(withoutNode(text)),
      release: () => unlock(lock),
    });
  } catch (error) {
    await unlock(lock);
    throw error;
  }
}

/** Where that hangs, as the file system of the image does, our own end does it. */
async function unlock(lock: ImageLock | undefined): Promise<void> {
  if (lock !== undefined) await within(lock.release(), UNLOCK_DEADLINE);
}

const unread = (path: string, deadline: number): CommandError =>
  new CommandError(`${path} could not be read within ${deadline / 1000} s`, {
    failure: 'unreachable',
  });

interface LockedImage {
  readonly image: Image;
  /** Of a raw one: qemu-nbd has a lock of its own. */
  readonly lock: ImageLock | undefined;
}

/**
 * It may be in a file system whose own server hangs: neither that nor an interruption is waited for.
 * @param deadline milliseconds
 * @throws ImageError, CommandError; Interrupted
 */
async function lookAt(
  path: string,
  options: ImageOptions,
  log: string | undefined,
  deadline: number,
  interruptions: Interruptions,
): Promise<LockedImage> {
  traceMain('looking at the image %s', path);
  const looking = openAndLock(path, options, log);
  try {
    const looked = await within(interruptions.orEarlier(looking), deadline);
    if (looked !== TOO_LATE) return looked;
    throw unread(path, deadline);
  } catch (error) {
    // What comes later is not wanted any more.
    looking.then(
      ({ lock }) => lock?.release(),
      () => undefined,
    );
    throw explainWord(error, path);
  }
}

async function openAndLock(
  path: string,
  options: ImageOptions,
  log: string | undefined,
): Promise<LockedImage> {
  const image = await openImage(path, options);
  if (log !== undefined) await refuseLog(log, image);
  if (image.format !== RAW) return { image, lock: undefined };
  const lock = await lockImage(image.path, image.shown, image.readOnly);
  try {
    // Each of us opens it by its name.
    await checkSame(image);
  } catch (error) {
    await lock.release();
    throw error;
  }
  return { image, lock };
}

/** Messages in an image would be content of its disk. @throws CommandError, ImageError */
async function refuseLog(log: string, { files, shown }: Image): Promise<void> {
  const place = await identify(log, log);
  for (const file of files) {
    if ((await identify(file, file)) !== place) continue;
    throw new CommandError(`cannot write the log ${log}: it is a file of the image ${shown}`);
  }
}

/** A word behind the mountpoint that names nothing may have been meant otherwise. */
function explainWord(error: unknown, word: string): unknown {
  if (!(error instanceof MissingImageError) || error.shown !== word) return error;
  return new CommandError(
    `${error.message}: what follows the mountpoint is a disk image, or a URI as nbd://host/export, or a command in brackets, as [ ${word} ]`,
    { cause: error, failure: 'unreachable' },
  );
}

/**
 * @param connections how many are made at the most
 * @returns what is started for an image
 */
export function serverCommand(image: Image, connections: number): CaptiveCommand {
  if (image.format === RAW) {
    return ['tsnbdkit', ...(image.readOnly ? ['-r'] : []), 'file', image.path];
  }
  return [
    'qemu-nbd',
    ...(image.readOnly ? ['--read-only'] : []),
    // It says that several can be relied on (multi-conn) only where it is told of several.
    `--shared=${connections + SPARE_CONNECTIONS}`,
    '--discard=unmap',
    // No option of the command line can say that there is no backing file, and in no other form is every
    // name a path.
    `json:${JSON.stringify(image.node)}`,
  ];
}

/** What was written is not to be sent to another file that has taken the place of the image. */
async function checkSame({ path, shown, identity }: Image): Promise<void> {
  if ((await identify(path, shown)) === identity) return;
  throw new ImageError(`${shown} is another file than it was`);
}

/** qemu puts the whole node into its messages, which the user has not written. */
const withoutNode = (text: string): string =>
  text.replace(/Failed to blk_new_open 'json:.*?}': /g, '');

/** @param words what the server said. @returns one sentence */
export function endText({ shown, format }: Image, words: string, exit: Exit): string {
  const server = format === RAW ? 'tsnbdkit' : 'qemu-nbd';
  if (/Failed to get (shared )?"[^"]+" lock/.test(words)) {
    return inUse(shown);
  }
  const text = withoutNode(words)
    .replace(/^(qemu-nbd|tsnbdkit): /gm, '')
    .trim();
  return text === ''
    ? `the server of ${shown}, ${server}, ${exitText(exit)} before it served the disk`
    : `${shown} cannot be served: ${server}: ${text}`;
}
