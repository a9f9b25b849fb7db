/**
 * What was written since a file was cut to nothing.
 *
 * A disk cannot be cut, so that O_TRUNC leaves its content as it is. But those who have cut a file rely
 * on it: cp of a sparse image and qemu-img convert skip what is to be zeroes, since what a file grows
 * over reads as zeroes. Between the start and the furthest byte that was written since, by whomever, what
 * was skipped must be zeroed; behind it all stays, as it does when dd writes a boot sector.
 *
 * What is skipped within a page of the page cache is not seen: with writeback the kernel reads the page
 * and writes all of it. Nor is a skipped end that nobody makes explicit by ftruncate(2).
 */

/** When what was written lies in more pieces than this, the gaps between them are zeroed early. */
export const MAX_PIECES = 32 * 1024;

export interface Gap {
  readonly offset: bigint;
  /** In bytes, more than 0. */
  readonly length: bigint;
}

export class Truncation {
  // Sorted, disjoint, not touching one another: starts and ends in turn.
  readonly #edges: bigint[] = [];
  /** How long the file would be by now, had it been cut. */
  #length = 0n;

  /** The range was written, or zeroed. */
  covered(offset: bigint, length: bigint): void {
    const end = offset + length;
    this.extendedTo(end);
    const edges = this.#edges;
    // The pieces from `first` on, up to and without `last`, touch the range and become one with it.
    const first = this.#pieceEndingAtOrAfter(offset);
    let last = first;
    let start = offset;
    let reached = end;
    while (last < edges.length && (edges[last] ?? 0n) <= end) {
      const pieceStart = edges[last] ?? 0n;
      const pieceEnd = edges[last + 1] ?? 0n;
      if (pieceStart < start) start = pieceStart;
      if (pieceEnd > reached) reached = pieceEnd;
      last += 2;
    }
    edges.splice(first, last - first, start, reached);
  }

  /** The index of the first piece that does not end before the offset. */
  #pieceEndingAtOrAfter(offset: bigint): number {
    let low = 0;
    let high = this.#edges.length / 2;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#edges[2 * middle + 1] ?? 0n) < offset) low = middle + 1;
      else high = middle;
    }
    return 2 * low;
  }

  /** The file was made as long as this, by writing or by ftruncate(2). */
  extendedTo(length: bigint): void {
    if (length > this.#length) this.#length = length;
  }

  get tooManyPieces(): boolean {
    return this.#edges.length > 2 * MAX_PIECES;
  }

  /** What was skipped so far, in order. */
  gaps(): Gap[] {
    const gaps: Gap[] = [];
    let at = 0n;
    for (let i = 0; i <= this.#edges.length; i += 2) {
      const start = this.#edges[i] ?? this.#length;
      if (start > at) gaps.push({ offset: at, length: start - at });
      at = this.#edges[i + 1] ?? this.#length;
    }
    return gaps;
  }
}
