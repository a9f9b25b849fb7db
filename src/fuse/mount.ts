/** A disk, mounted as a file. */

import { fitDisk } from '../disk/fit.js';
import { ReadAfterWriteDisk } from '../disk/read-after-write.js';
import { ReadAheadDisk } from '../disk/read-ahead.js';
import type { Disk } from '../disk/disk.js';
import type { Operations } from '../observe/operations.js';
import { partOf } from '../partitions/part.js';
import type { Part } from '../partitions/part.js';
import { deadMountsCleared } from './dead-mount.js';
import { MountError } from './errors.js';
import { MAX_TRANSFER } from './init.js';
import type { FuseOptions } from './mount-options.js';
import { checkMountpoint, partitionsNeedDirectory } from './mountpoint.js';
import type { Mountpoint } from './mountpoint.js';
import { DiskMount } from './disk-mount.js';

/** How what is written reaches the disk: when the kernel sees fit, at once, or past the page cache. */
export type CacheMode = 'writeback' | 'writethrough' | 'none';

export interface MountOptions {
  readonly readOnly: boolean;
  readonly cache: CacheMode;
  /** Nobody else changes the disk, so that what is cached stays true. */
  readonly exclusive: boolean;
  /** Making a hole in the file trims the disk: see DiskFileOptions. */
  readonly trim?: boolean;
  /** Shown in /proc/mounts. */
  readonly source: string;
  /** Show this part in the place of the disk. */
  readonly part?: Part | undefined;
  /** Show the partitions beside the disk. */
  readonly partitions?: boolean;
  /** The options of -o, where there are any. */
  readonly fuse?: FuseOptions | undefined;
  /** Milliseconds for requests that are under way when the mount ends, and for the last flush; or else 30 s. */
  readonly endDeadline?: number | undefined;
  /** Ends the attempt to mount, which leaves nothing mounted; afterwards it is of no effect. */
  readonly signal?: AbortSignal | undefined;
  /** For what goes wrong while mounted: one line, without a prefix. */
  readonly warn: (line: string) => void;
}

export interface Mount {
  /** One element, which is always how many requests of the kernel are not answered yet. */
  readonly inFlight: Int32Array;
  /** What it has done so far, of all its files together. */
  readonly operations: Operations;
  /** Of what is shown, in bytes. */
  readonly size: bigint;
  readonly readOnly: boolean;
  /** It is out of use: its last requests are answered, and a last flush is made. */
  readonly isEnding: boolean;
  /** It was taken out of sight by `hide`; who has it open still uses it. */
  readonly isHidden: boolean;
  /** Resolves when `isEnding` becomes true; never rejects. */
  readonly ending: Promise<void>;
  /** How many requests of the kernel have been answered. */
  readonly answered: number;
  /** `major:minor` of the mount; undefined where it was gone as soon as it was made. */
  readonly device: string | undefined;
  /**
   * Resolves when the mount is gone, all its requests are answered and a last flush was tried; never
   * rejects.
   */
  readonly ended: Promise<MountEnd>;
  /**
   * Ends the mount. A lazy one is taken out of sight at once and, when what was written is flushed,
   * taken from those who still have the file open.
   * @param how.patience milliseconds for what is under way then, where that is not MountOptions.endDeadline
   * @returns 0 or a negated errno: -EBUSY while a file is open or another mount covers it, -EINVAL where
   *   it is out of sight already, -EALREADY where it has ended
   */
  unmount(how: { readonly lazy: boolean; readonly patience?: number }): Promise<number>;
  /**
   * Takes the mount out of sight, and from nobody: it ends when those who have the file open have closed it.
   * @returns as `unmount`
   */
  hide(): Promise<number>;
  /** Whether it is still in its place. Never rejects. */
  isMounted(): Promise<boolean>;
  /** What somebody has mounted over it, for a message; it is in the way of an unmount. */
  cover(): Promise<string | undefined>;
  /** Writes back what the page cache has. @returns whether all of it was */
  save(): Promise<boolean>;
  /**
   * Ends the mount by force, whoever waits in it; what is not written is lost. The disk must have failed
   * all that it was asked by then. Resolves when it is over; never rejects.
   */
  abort(): Promise<void>;
}

export interface MountEnd {
  /** Of the last flush, or 0. */
  readonly flushError: number;
  /** Of the first write that the disk refused, or 0. Who wrote it may not have been told. */
  readonly writeError: number;
  /** What ended the mount, if it was not unmounted: a MountError, or a bug of ours. */
  readonly error?: Error;
}

/**
 * Shows a disk as a file: over a file that exists, or in a directory.
 * @param mountpoint a path, or what `checkMountpoint` found out about it
 * @throws MountError, PartError, WindowError, PartitionTableError with a message for the user; nothing
 *   is left mounted
 */
export async function mountDisk(
  disk: Disk,
  mountpoint: string | Mountpoint,
  options: MountOptions,
): Promise<Mount> {
  const place =
    typeof mountpoint === 'string'
      ? await checkMountpoint(mountpoint, deadMountsCleared(options.warn))
      : mountpoint;
  const fitted = fitDisk(disk, MAX_TRANSFER);
  // Without the page cache each read is to reach the server.
  const ahead = options.cache === 'none' ? undefined : new ReadAheadDisk(fitted);
  // Pages that are written back are locked against it by the kernel, but not those beside a direct write by AIO.
  const whole = new ReadAfterWriteDisk(ahead ?? fitted);
  // Fitting hides it.
  const minimumBlock = disk.info.limits.minimum;
  const { part } = options;
  const shown = part === undefined ? whole : await partOf(whole, part, { minimumBlock });
  if (options.partitions === true && place.name === undefined) {
    throw new MountError(partitionsNeedDirectory(place));
  }
  const mount = new DiskMount(shown, minimumBlock, place, options, ahead);
  await mount.start();
  return mount;
}
