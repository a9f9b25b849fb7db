/** The files of a mount: the disk, and its partitions where they are asked for. */

import { join } from 'node:path';
import { within } from '../deadline.js';
import { Cuts } from '../disk/cuts.js';
import { DiskFile } from '../disk/disk-file.js';
import type { DiskFileOptions } from '../disk/disk-file.js';
import type { Disk } from '../disk/disk.js';
import type { Operations } from '../observe/operations.js';
import type { Mountpoint } from './mountpoint.js';
import { PartitionFiles } from './partition-files.js';
import type { PartitionFilesOptions } from './partition-files.js';
import { Tree } from './tree.js';
import type { DirectoryOptions, FileNode } from './tree.js';
import { Views } from './views.js';
import type { Invalidate } from './views.js';

/** Milliseconds that a sync waits at the most for the page caches of other files. */
const SETTLE_DEADLINE = 5_000;

export interface MountedFilesOptions extends DirectoryOptions {
  readonly readOnly: boolean;
  readonly trim: boolean;
  /** Others may change the disk as well. */
  readonly shared: boolean;
  /** See DiskFileOptions. */
  readonly forgetReadAhead: () => void;
  /** Show the partitions; the mountpoint is a directory then. */
  readonly partitions: Pick<PartitionFilesOptions, 'minimumBlock' | 'warn'> | undefined;
  /** Told of the first write to a file that the disk refuses. @param shown as the user would write it */
  readonly writeFailed: (shown: string, offset: bigint, code: number) => void;
  /** Whether somebody has a file open. */
  readonly isOpen: (node: FileNode) => boolean;
  readonly invalidate: Invalidate;
  /** See DiskFileOptions. */
  readonly operations?: Operations | undefined;
}

export class MountedFiles {
  readonly tree: Tree;
  /** The file of the whole disk. */
  readonly main: FileNode;
  readonly #place: Mountpoint;
  readonly #options: MountedFilesOptions;
  readonly #views: Views | undefined;
  readonly #partitions: PartitionFiles | undefined;
  readonly #cuts = new Cuts();
  /** Of those that are gone, whose last flush failed or is not over. */
  readonly #unflushed = new Set<DiskFile>();
  /** Of the first write that the disk refused, or 0. */
  writeError = 0;

  /** @param disk takes any request, as `fitDisk` makes it */
  constructor(disk: Disk, place: Mountpoint, options: MountedFilesOptions) {
    this.#place = place;
    this.#options = options;
    const { name } = place;
    if (name === undefined) {
      const { tree, node } = Tree.ofFile(new DiskFile(disk, this.#fileOptions('')));
      this.tree = tree;
      this.main = node;
      return;
    }
    this.tree = Tree.ofDirectory(options, (node) => this.#gone(node));
    if (options.partitions === undefined) {
      this.main = this.tree.add(name, new DiskFile(disk, this.#fileOptions(name)));
      return;
    }
    this.#views = new Views(options.isOpen, options.invalidate);
    this.#partitions = new PartitionFiles(this.tree, disk, name, {
      ...options.partitions,
      add: (partName, part, start) => this.#addView(partName, part, start),
    });
    this.main = this.#addView(name, disk, 0n);
  }

  #fileOptions(name: string): DiskFileOptions {
    const { uid, gid, permissions, readOnly, trim, shared, forgetReadAhead, operations } =
      this.#options;
    return {
      uid,
      gid,
      permissions,
      readOnly,
      trim,
      shared,
      forgetReadAhead,
      operations,
      writeFailed: (offset, code) => {
        if (this.writeError === 0) this.writeError = code;
        this.#options.writeFailed(this.#shownName(name), offset, code);
      },
    };
  }

  /** A file that shows a part of the disk, which other files show as well. */
  #addView(name: string, disk: Disk, start: bigint): FileNode {
    let node: FileNode | undefined = undefined;
    const file = new DiskFile(disk, {
      ...this.#fileOptions(name),
      among: { cuts: this.#cuts, start },
      changed: (offset, length) => {
        const at = start + offset;
        if (node !== undefined) this.#views?.changed(node, at, at + length);
        this.#partitions?.written(at, length);
      },
    });
    node = this.tree.add(name, file);
    this.#views?.add(node, start);
    return node;
  }

  #shownName(name: string): string {
    return name === '' ? this.#place.shownFile : join(this.#place.shown, name);
  }

  /** As the user would write it. */
  shown(node: FileNode): string {
    return this.#shownName(node.name);
  }

  /** Reads what there is to be read before anybody looks. Never rejects. */
  async load(): Promise<void> {
    await this.#partitions?.refresh();
  }

  /**
   * What was written to a file is on the disk: the others are to show it too.
   * @returns undefined where there is nothing to wait for; never rejects
   */
  synced(): Promise<unknown> | undefined {
    const table = this.#partitions?.refresh();
    const caches = this.#views?.settle();
    if (caches === undefined) return table;
    return Promise.all([table, within(caches, SETTLE_DEADLINE)]);
  }

  /** They ask the disk nothing more by themselves. */
  stop(): void {
    for (const { file } of this.tree.files()) file.stop();
  }

  /** What was written through a file outlives it. */
  #gone(node: FileNode): void {
    const { file } = node;
    this.#views?.remove(node);
    file.stop();
    this.#unflushed.add(file);
    file.sync({
      done: (code) => {
        if (code === 0) this.#unflushed.delete(file);
      },
    });
  }

  /** Flushes one of them. @returns its error, or 0 */
  sync({ file }: FileNode): Promise<number> {
    return flushed(file);
  }

  /** Flushes all of them, also those that are gone. @returns the first error, or 0 */
  async syncAll(): Promise<number> {
    const files = [...this.tree.files().map(({ file }) => file), ...this.#unflushed];
    const codes = await Promise.all(files.map(flushed));
    return codes.find((code) => code !== 0) ?? 0;
  }
}

const flushed = (file: DiskFile): Promise<number> =>
  new Promise((resolve) => file.sync({ done: resolve }));
