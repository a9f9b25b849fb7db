/**
 * Several files that show the same disk, or parts of it. The kernel caches each of them by itself: what is
 * written through one has to be taken out of the caches of the others.
 */

import { Ranges } from '../disk/ranges.js';
import type { FileNode } from './tree.js';

/**
 * How many stale ranges of a file are told apart. A partition table is written at both ends of a disk, and
 * a file system that is made has its superblocks all over it: what lies between stays cached.
 */
const MAX_RANGES = 16;

interface View {
  readonly node: FileNode;
  /** Where on the disk the file begins and ends. */
  readonly start: bigint;
  readonly end: bigint;
  /** What was written through others since it was last settled, in the file. */
  stale: Ranges | undefined;
}

/** Takes a range of a file out of the page cache; resolves when it is, or cannot be; never rejects. */
export type Invalidate = (node: FileNode, offset: bigint, length: bigint) => Promise<void>;

export class Views {
  readonly #views = new Map<FileNode, View>();
  readonly #isOpen: (node: FileNode) => boolean;
  readonly #invalidate: Invalidate;
  #anyStale = false;
  /** What is being taken out of the caches, for whichever sync it was begun. */
  readonly #dropping = new Set<Promise<void>>();

  /** @param isOpen whether somebody has the file open; what is not is looked at anew when it is opened */
  constructor(isOpen: (node: FileNode) => boolean, invalidate: Invalidate) {
    this.#isOpen = isOpen;
    this.#invalidate = invalidate;
  }

  /** @param start where on the disk the file begins */
  add(node: FileNode, start: bigint): void {
    this.#views.set(node, { node, start, end: start + node.file.size, stale: undefined });
  }

  /** No request can be about the file any more. Until then also one that is out of its directory is a view. */
  remove(node: FileNode): void {
    this.#views.delete(node);
  }

  /**
   * A range was written through a file.
   * @param from on the disk, as `to`
   */
  changed(through: FileNode, from: bigint, to: bigint): void {
    for (const view of this.#views.values()) {
      if (view.node === through || to <= view.start || from >= view.end) continue;
      view.node.file.changedBehind();
      this.#anyStale = true;
      view.stale ??= new Ranges(MAX_RANGES);
      const start = from > view.start ? from : view.start;
      const end = to < view.end ? to : view.end;
      view.stale.add(start - view.start, end - view.start);
    }
  }

  /**
   * Makes those who have a file open see what was written through others: also what an earlier sync has begun
   * to show them, since that may be what was written by who syncs now. Undefined if there is nothing to do.
   */
  settle(): Promise<unknown> | undefined {
    if (this.#anyStale) this.#dropStale();
    return this.#dropping.size === 0 ? undefined : Promise.all(this.#dropping);
  }

  #dropStale(): void {
    this.#anyStale = false;
    for (const view of this.#views.values()) {
      const { node, stale } = view;
      if (stale === undefined) continue;
      view.stale = undefined;
      if (!this.#isOpen(node)) continue;
      const dropping = this.#drop(node, stale);
      this.#dropping.add(dropping);
      void dropping.then(() => this.#dropping.delete(dropping));
    }
  }

  /** One range after the other, as each takes a thread that may have to wait. */
  async #drop(node: FileNode, stale: Ranges): Promise<void> {
    for (const { start, end } of stale) await this.#invalidate(node, start, end - start);
  }
}
