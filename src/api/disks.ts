/** Disks that are at hand. */

import type { Disk } from '../disk/disk.js';
import { exact } from './numbers.js';
import type { Bytes } from './numbers.js';

/**
 * A disk in memory, which is gone with the process. It takes memory for what was written, and gives it back for
 * what is trimmed or zeroed.
 * @param size in bytes, over 0
 * @throws RangeError
 */
export async function memoryDisk(size: Bytes): Promise<Disk> {
  const bytes = exact(size, 'the size');
  if (bytes === 0n || bytes >= 2n ** 63n) {
    throw new RangeError(`the size of a disk is from 1 to 2^63 - 1: ${bytes.toString()}`);
  }
  const { MemoryDisk } = await import('../server/plugins/memory.js');
  return new MemoryDisk(bytes);
}

/** What `fileDisk` takes beside the path. */
export interface FileDiskOptions {
  /** The file is opened for reading only. */
  readonly readOnly?: boolean | undefined;
}

/**
 * A regular file or a block device as a disk. It has to be closed.
 * @throws PluginError with one line for the user
 */
export async function fileDisk(path: string, options: FileDiskOptions = {}): Promise<Disk> {
  const { openFile } = await import('../server/plugins/file.js');
  return openFile(path, { readOnly: options.readOnly ?? false });
}
