/**
 * Several files that show the same disk, or parts of it. The kernel caches each of them by itself: what is
 * written through one has to be taken out of the caches of the others.
 */

import type { FileNode } from './tree.js';

interface View {
  readonly node: FileNode;
  /** Where on the disk the file begins and ends. */
  readonly start: bigint;
  readonly end: bigint;
  /** What was written through others since it was last settled, from the first byte to the last. */
  stale: { start: bigint; end: bigint } | undefined;
}

/** Takes a range of a file out of the page cache; resolves when it is, or cannot be; never rejects. */
export type Invalidate = (node: FileNode, offset: bigint, length: bigint) => Promise<void>;

export class Views {
  readonly #views = new Map<FileNode, View>();
  readonly #isOpen: (node: FileNode) => boolean;
  readonly #invalidate: Invalidate;
  #anyStale = false;

  /** @param isOpen whether somebody has the file open; what is not is looked at anew when it is opened */
  constructor(isOpen: (node: FileNode) => boolean, invalidate: Invalidate) {
    this.#isOpen = isOpen;
    this.#invalidate = invalidate;
  }

  /** @param start where on the disk the file begins */
  add(node: FileNode, start: bigint): void {
    this.#views.set(node, { node, start, end: start + node.file.size, stale: undefined });
  }

  remove(node: FileNode): void {
    this.#views.delete(node);
  }

  /**
   * A range was written.
   * @param offset in the file through which it was written
   */
  changed(through: FileNode, offset: bigint, length: bigint): void {
    const from = (this.#views.get(through)?.start ?? 0n) + offset;
    const to = from + length;
    for (const view of this.#views.values()) {
      if (view.node === through || to <= view.start || from >= view.end) continue;
      view.node.file.changedBehind();
      const { stale } = view;
      this.#anyStale = true;
      if (stale === undefined) {
        view.stale = { start: from, end: to };
      } else {
        if (from < stale.start) stale.start = from;
        if (to > stale.end) stale.end = to;
      }
    }
  }

  /** Makes those who have a file open see what was written through others. Undefined if there is nothing to do. */
  settle(): Promise<unknown> | undefined {
    if (!this.#anyStale) return undefined;
    this.#anyStale = false;
    const work: Promise<void>[] = [];
    for (const view of this.#views.values()) {
      const { node, stale } = view;
      if (stale === undefined) continue;
      view.stale = undefined;
      if (!this.#isOpen(node)) continue;
      const start = stale.start > view.start ? stale.start : view.start;
      const end = stale.end < view.end ? stale.end : view.end;
      work.push(this.#invalidate(node, start - view.start, end - start));
    }
    return work.length === 0 ? undefined : Promise.all(work);
  }
}
