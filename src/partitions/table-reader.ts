/** Reads the parts of a disk that a partition table is made of, and keeps which they were. */

import { errnoText, ErrnoError } from '../errno.js';
import { fitDisk } from '../disk/fit.js';
import { readDisk } from '../disk/promises.js';
import type { Disk } from '../disk/disk.js';
import { PartitionTableError } from './table.js';
import type { DiskRange } from './table.js';

/** The longest that is read in one piece: a GPT of 8192 entries of the usual 128 bytes. */
export const MAX_READ = 1024 * 1024;

export class TableReader {
  /** Of the disk, in bytes. */
  readonly size: bigint;
  /** Something could not be read. */
  failed = false;
  readonly #disk: Disk;
  readonly #read: DiskRange[] = [];

  constructor(disk: Disk) {
    this.size = disk.info.size;
    this.#disk = fitDisk(disk, MAX_READ);
  }

  /**
   * @param length in bytes, from 1 to MAX_READ
   * @returns undefined where the disk does not have all of them
   * @throws PartitionTableError if they cannot be read
   */
  async read(offset: bigint, length: number): Promise<Buffer | undefined> {
    if (offset < 0n || offset + BigInt(length) > this.size) return undefined;
    this.#read.push({ offset, length: BigInt(length) });
    try {
      return await readDisk(this.#disk, offset, length);
    } catch (error) {
      this.failed = true;
      const why = error instanceof ErrnoError ? errnoText(error.errno) : String(error);
      throw new PartitionTableError(
        `the partition table cannot be read, at byte ${offset.toString()}: ${why}`,
        { cause: error },
      );
    }
  }

  /** All that was read, or tried to, in order and disjoint. */
  ranges(): DiskRange[] {
    const sorted = this.#read.toSorted((a, b) => Number(a.offset - b.offset));
    const merged: DiskRange[] = [];
    for (const { offset, length } of sorted) {
      const last = merged.at(-1);
      if (last === undefined || offset > last.offset + last.length) {
        merged.push({ offset, length });
        continue;
      }
      const end = offset + length;
      const longer = end > last.offset + last.length ? end - last.offset : last.length;
      merged[merged.length - 1] = { offset: last.offset, length: longer };
    }
    return merged;
  }
}
