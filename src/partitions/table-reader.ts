/** Reads what a table may consist of, within the disk and within bounds, and remembers where that was. */

import type { Disk } from '../disk/disk.js';
import { readDisk } from '../disk/promises.js';
import type { Range } from './table.js';

/** The most that is read at once; the disk takes it. */
const MOST = 1024 * 1024;

export class TableReader {
  readonly #disk: Disk;
  readonly #watched: Range[] = [];

  /** @param disk takes any request, as `fitDisk` makes it */
  constructor(disk: Disk) {
    this.#disk = disk;
  }

  get size(): bigint {
    return this.#disk.info.size;
  }

  /** What was read, or tried. */
  get watched(): readonly Range[] {
    return this.#watched;
  }

  /**
   * @returns undefined for a range that is not on the disk, or too long
   * @throws ErrnoError
   */
  async read(offset: bigint, length: number): Promise<Buffer | undefined> {
    if (offset < 0n || length <= 0 || length > MOST) return undefined;
    if (offset + BigInt(length) > this.size) return undefined;
    this.#watched.push({ offset, length: BigInt(length) });
    return readDisk(this.#disk, offset, length);
  }
}
