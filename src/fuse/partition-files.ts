/**
 * The partitions of a disk as files beside it, `disk.raw1` beside `disk.raw`. They follow the partition
 * table: when it was written and the writer syncs or closes the disk, it is read again before that is
 * answered.
 */

import type { Disk } from '../disk/disk.js';
import { Ranges } from '../disk/ranges.js';
import { windowDisk } from '../disk/window.js';
import { readPartitions } from '../partitions/read.js';
import type { DiskRange, Partition, PartitionTable } from '../partitions/table.js';
import { traceMain } from '../trace.js';
import type { FileNode, Tree } from './tree.js';

/** How many ranges are told apart that were written while the table was read. */
const MAX_RANGES = 1024;

export interface PartitionFilesOptions {
  /** The least the server takes, in bytes: see `readPartitions`. */
  readonly minimumBlock: number;
  /** Makes the file of a part of the disk, and puts it into the tree. */
  readonly add: (name: string, disk: Disk, start: bigint) => FileNode;
  /** Told in one line what is not right with a table. */
  readonly warn: (line: string) => void;
}

interface Shown {
  readonly partition: Partition;
  readonly node: FileNode;
}

export class PartitionFiles {
  readonly #tree: Tree;
  readonly #disk: Disk;
  readonly #diskName: string;
  readonly #options: PartitionFilesOptions;
  #shown = new Map<number, Shown>();
  #watched: readonly DiskRange[] = [];
  readonly #told = new Set<string>();
  /** The table may have changed since it was read, or begun to be read. */
  #changed = true;
  /** All of it could be read the last time. If not, the next sync tries again: an error may pass. */
  #complete = true;
  #reading: Promise<void> | undefined;
  /** While the table is read: some of it may be read for the first time, in places that nobody watched. */
  #writtenMeanwhile: Ranges | undefined;

  /** @param disk takes any request, as `fitDisk` makes it */
  constructor(tree: Tree, disk: Disk, diskName: string, options: PartitionFilesOptions) {
    this.#tree = tree;
    this.#disk = disk;
    this.#diskName = diskName;
    this.#options = options;
  }

  /** A range of the disk was written. */
  written(offset: bigint, length: bigint): void {
    const end = offset + length;
    this.#writtenMeanwhile?.add(offset, end);
    if (!this.#changed && this.#isWatched(offset, end)) this.#changed = true;
  }

  #isWatched(start: bigint, end: bigint): boolean {
    return this.#watched.some(({ offset, length }) => start < offset + length && end > offset);
  }

  /** Reads the table if it may have changed. Undefined where there is nothing to do; never rejects. */
  refresh(): Promise<void> | undefined {
    const upToDate = !this.#changed && this.#complete;
    return upToDate && this.#reading === undefined ? undefined : this.#follow();
  }

  /**
   * A read that is going on may have begun before what its caller has written was there; the next one will not
   * have. More are not waited for, as somebody may write to the table on and on.
   */
  async #follow(): Promise<void> {
    await (this.#reading ??= this.#read());
    if (this.#changed) await (this.#reading ??= this.#read());
  }

  async #read(): Promise<void> {
    this.#changed = false;
    this.#complete = await this.#readOnce();
    this.#reading = undefined;
  }

  /** @returns whether all of the table could be read */
  async #readOnce(): Promise<boolean> {
    const written = new Ranges(MAX_RANGES);
    this.#writtenMeanwhile = written;
    try {
      const { minimumBlock } = this.#options;
      const table = await readPartitions(this.#disk, { minimumBlock });
      this.#watched = table.watched;
      for (const { start, end } of written) if (this.#isWatched(start, end)) this.#changed = true;
      this.#show(table);
      this.#tell(table);
      return table.complete;
    } catch (error) {
      // The files stay as they are; whoever reads the table gets the error from the disk.
      traceMain('the partition table cannot be read: %s', error);
      return false;
    } finally {
      this.#writtenMeanwhile = undefined;
    }
  }

  #show({ partitions, complete }: PartitionTable): void {
    const before = this.#shown;
    this.#shown = new Map();
    for (const partition of partitions) {
      const { number, offset, size } = partition;
      const old = before.get(number);
      if (old?.partition.offset === offset && old.partition.size === size) {
        this.#shown.set(number, old);
        before.delete(number);
      }
    }
    if (!complete) this.#keepUntold(before, partitions);
    // Those that are gone, or have moved: another place on the disk is another file.
    for (const { node } of before.values()) this.#tree.remove(node.name);
    for (const partition of partitions) {
      const { number, offset, size } = partition;
      if (this.#shown.has(number)) continue;
      const part = windowDisk(this.#disk, offset, size);
      const node = this.#options.add(this.#nameOf(number), part, offset);
      this.#shown.set(number, { partition, node });
    }
  }

  /** What a table does not tell since a part of it could not be read is not gone for that. */
  #keepUntold(before: Map<number, Shown>, told: readonly Partition[]): void {
    for (const [number, old] of before) {
      if (told.some((partition) => partition.number === number)) continue;
      this.#shown.set(number, old);
      before.delete(number);
    }
  }

  /** While a table is being written it is often not right for a moment; the same is said once. */
  #tell({ problems }: PartitionTable): void {
    for (const line of problems) {
      if (this.#told.has(line)) continue;
      this.#told.add(line);
      this.#options.warn(line);
    }
  }

  /** As Linux names them: `sda1`, but `nbd0p1`. */
  #nameOf(number: number): string {
    return `${this.#diskName}${/\d$/.test(this.#diskName) ? 'p' : ''}${number}`;
  }
}
