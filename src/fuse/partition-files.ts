/**
 * The partitions of a disk as files beside it, `disk.raw1` beside `disk.raw`. They follow the partition
 * table: when it was written and the writer syncs or closes the disk, it is read again before that is
 * answered.
 */

import type { Disk } from '../disk/disk.js';
import { windowDisk } from '../disk/window.js';
import { readPartitions } from '../partitions/read.js';
import type { Partition, Range } from '../partitions/table.js';
import { traceMain } from '../trace.js';
import type { FileNode, Tree } from './tree.js';

/** Makes the file of a part of the disk, and puts it into the tree. */
export type AddFile = (name: string, disk: Disk, start: bigint) => FileNode;

interface Shown {
  readonly partition: Partition;
  readonly node: FileNode;
}

export class PartitionFiles {
  readonly #tree: Tree;
  readonly #disk: Disk;
  readonly #diskName: string;
  readonly #sectorSize: number;
  readonly #add: AddFile;
  readonly #removed: (node: FileNode) => void;
  #shown = new Map<number, Shown>();
  #watched: readonly Range[] = [];
  /** The table may have changed since it was read, or begun to be read. */
  #changed = true;
  #reading: Promise<void> | undefined;

  /**
   * @param disk takes any request, as `fitDisk` makes it
   * @param removed told of each file that is taken out of the tree; who has it open may go on with it
   */
  constructor(
    tree: Tree,
    disk: Disk,
    diskName: string,
    sectorSize: number,
    add: AddFile,
    removed: (node: FileNode) => void,
  ) {
    this.#tree = tree;
    this.#disk = disk;
    this.#diskName = diskName;
    this.#sectorSize = sectorSize;
    this.#add = add;
    this.#removed = removed;
  }

  /** A range of the disk was written. */
  written(offset: bigint, length: bigint): void {
    const end = offset + length;
    const touches = (range: Range): boolean =>
      offset < range.offset + range.length && end > range.offset;
    if (!this.#changed && this.#watched.some(touches)) this.#changed = true;
  }

  /** Reads the table if it may have changed. Undefined where there is nothing to do; never rejects. */
  refresh(): Promise<void> | undefined {
    if (this.#changed) this.#reading ??= this.#read();
    return this.#reading;
  }

  async #read(): Promise<void> {
    while (this.#changed) {
      this.#changed = false;
      try {
        const table = await readPartitions(this.#disk, this.#sectorSize);
        this.#watched = table.watched;
        this.#show(table.partitions);
      } catch (error) {
        // The files stay as they are; whoever reads the table gets the error from the disk.
        traceMain('the partition table cannot be read: %s', error);
      }
    }
    this.#reading = undefined;
  }

  #show(partitions: readonly Partition[]): void {
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
    // Those that are gone, or have moved: another place on the disk is another file.
    for (const { node } of before.values()) {
      this.#tree.remove(node.name);
      this.#removed(node);
    }
    for (const partition of partitions) {
      const { number, offset, size } = partition;
      if (this.#shown.has(number)) continue;
      const part = windowDisk(this.#disk, offset, size);
      const node = this.#add(this.#nameOf(number), part, offset);
      this.#shown.set(number, { partition, node });
    }
  }

  /** As Linux names them: `sda1`, but `nbd0p1`. */
  #nameOf(number: number): string {
    return `${this.#diskName}${/\d$/.test(this.#diskName) ? 'p' : ''}${number}`;
  }
}
