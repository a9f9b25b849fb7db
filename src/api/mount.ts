/** Showing a disk as a file. */

import { resolve } from 'node:path';
import { TOO_LATE, within } from '../deadline.js';
import type { FuseOptions } from '../fuse/mount-options.js';
import type { CacheMode } from '../fuse/mount.js';
import type { Part } from '../partitions/part.js';
import { checkObject, checkText } from './arguments.js';
import { diskFrom } from './disk-source.js';
import type { DiskSource } from './disk-source.js';
import { MountedDisk } from './mounted-disk.js';
import { exact, milliseconds } from './numbers.js';
import type { Bytes } from './numbers.js';

/** What `mount` takes. */
export interface MountOptions {
  /** What is shown; it stays the caller's, and is not closed with the mount. */
  readonly disk: DiskSource;
  /**
   * Where: a regular file, in whose place it is seen; a directory, in which it is the file `nbd`; or a name that
   * is free in a directory that exists, which is the disk then. What is there is hidden until the unmount.
   */
  readonly at: string;
  /** The file cannot be written; so by itself where the disk is read-only. */
  readonly readOnly?: boolean | undefined;
  /**
   * How what is written reaches the disk: `writeback`, when the kernel sees fit, or at the latest with fsync and
   * close; `writethrough`, at once; `none`, past the page cache. `writeback` if left out.
   */
  readonly cache?: CacheMode | undefined;
  /** Nobody else changes the disk, so that what is in the page cache stays true when the file is opened again. */
  readonly exclusive?: boolean | undefined;
  /** Punching a hole trims the disk, and does not zero: what is read there is undefined then. */
  readonly trim?: boolean | undefined;
  /** Show this partition in the place of the disk. */
  readonly partition?: number | undefined;
  /** Show each partition as a file beside the disk; `at` leads into a directory then. */
  readonly partitions?: boolean | undefined;
  /** Show a range of the disk in its place, from here on. */
  readonly offset?: Bytes | undefined;
  /** Up to so many bytes of it. */
  readonly size?: Bytes | undefined;
  /**
   * Options of FUSE, as the command takes them behind `-o`: `['allow_other', 'umask=022']`. With `auto_unmount`
   * a small process stands by and unmounts if this one is killed, or exits without an unmount.
   */
  readonly fuseOptions?: readonly string[] | undefined;
  /** Shown as the source of the mount in /proc/mounts; `tsnbdfuse` if left out. */
  readonly source?: string | undefined;
  /** Ends it: before it is mounted, `mount` rejects with the signal's reason; later it is the same as `close`. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds for each step of its end, as the last flush; 30,000 if left out. */
  readonly closeTimeout?: number | undefined;
  /** Told in one line what goes wrong while it is mounted. */
  readonly onWarning?: ((line: string) => void) | undefined;
}

const CLOSE_TIMEOUT = 30_000;
/** Milliseconds for undoing a mount that nobody wants any more. */
const UNDO_TIMEOUT = 10_000;

/**
 * Shows a disk as an ordinary local file, until it is unmounted.
 *
 * **A process must not touch a mount that it serves itself.** A synchronous call, as `fs.readFileSync` or
 * `fs.existsSync` on its path, waits in the kernel for an answer that this very thread would have to give: the
 * process hangs, and not even Ctrl-C ends it, only SIGKILL, or
 * `echo 1 | sudo tee /sys/fs/fuse/connections/N/abort`. Asynchronous ones (`fs.promises`) occupy a thread of
 * Node's pool of four, and hang as well when they occupy all of them. Let other processes use the file; who has
 * the disk need not go through a file.
 *
 * The library installs no signal handlers: a process that exits without `close` leaves a dead mount behind, which
 * the next mount at that place takes away, and which `auto_unmount` avoids.
 *
 * ```ts
 * await using mounted = await mount({ disk, at: 'disk.raw' });
 * await once(process, 'SIGINT');
 * ```
 *
 * @throws MountError, MountOptionError, PartError, PartitionTableError or WindowError with one line that tells
 *   what to do; RangeError or TypeError for an option; the signal's reason. Nothing is left mounted
 */
export async function mount(options: MountOptions): Promise<MountedDisk> {
  checkObject(options, 'what mount() is to do, { disk, at },');
  const { at, signal, onWarning } = options;
  checkText(at, '`at`, where to mount,');
  const warn = (line: string): void => onWarning?.(line);
  const closeTimeout = milliseconds(options.closeTimeout ?? CLOSE_TIMEOUT, 'the time to close');
  const part = partOf(options);
  const disk = diskFrom(options.disk);
  signal?.throwIfAborted();
  const [{ mountDisk }, { checkMountpoint }, { deadMountsCleared }, { checkFuse }] =
    await Promise.all([
      import('../fuse/mount.js'),
      import('../fuse/mountpoint.js'),
      import('../fuse/dead-mount.js'),
      import('../fuse/available.js'),
    ]);
  const fuse = await fuseOptions(options);
  const place = await checkMountpoint(at, deadMountsCleared(warn));
  await checkFuse();
  signal?.throwIfAborted();
  const mounting = mountDisk(disk, place, {
    readOnly: options.readOnly ?? false,
    cache: options.cache ?? 'writeback',
    exclusive: options.exclusive ?? false,
    trim: options.trim ?? false,
    source: options.source ?? 'tsnbdfuse',
    part,
    partitions: options.partitions ?? false,
    fuse,
    endDeadline: closeTimeout,
    signal,
    warn,
  });
  const mounted = await unlessAborted(mounting, signal);
  return new MountedDisk(mounted, resolve(place.shownFile), place.path, closeTimeout, signal);
}

/** What is under way when the signal comes is undone first. @throws the signal's reason */
async function unlessAborted<T>(mounting: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return mounting;
  let aborted: () => void = () => undefined;
  const abort = new Promise<typeof TOO_LATE>((resolve) => {
    aborted = () => resolve(TOO_LATE);
    signal.addEventListener('abort', aborted);
  });
  try {
    const first = await Promise.race([mounting, abort]);
    if (first !== TOO_LATE) return first;
    // It may be a disk that does not answer, for which nothing is mounted yet.
    const late = await within(mounting, UNDO_TIMEOUT).catch((): typeof TOO_LATE => TOO_LATE);
    // It was there by the time of the signal, which ends it then as any other.
    if (late !== TOO_LATE) return late;
    throw signal.reason;
  } finally {
    signal.removeEventListener('abort', aborted);
  }
}

async function fuseOptions({ fuseOptions: texts = [] }: MountOptions): Promise<FuseOptions> {
  const { parseFuseOptions } = await import('../fuse/mount-options.js');
  return parseFuseOptions(texts, process.geteuid?.() === 0);
}

/** @throws RangeError */
function partOf({ partition, offset, size }: MountOptions): Part | undefined {
  if (partition !== undefined) {
    if (offset !== undefined || size !== undefined) {
      throw new RangeError('either a partition can be shown, or a range');
    }
    return { kind: 'partition', number: partition };
  }
  if (offset === undefined && size === undefined) return undefined;
  return {
    kind: 'range',
    offset: exact(offset ?? 0, 'the offset'),
    size: size === undefined ? undefined : exact(size, 'the size'),
  };
}
