/**
 * What was written since a file was cut to nothing.
 *
 * A disk cannot be cut, so that O_TRUNC leaves its content as it is. But those who have cut a file rely
 * on it: cp of a sparse image, dd conv=sparse and qemu-img convert skip what is to be zeroes, since
 * what a file grows over reads as zeroes. Between the start and the furthest byte that they wrote, what
 * they skipped must be zeroed; behind it all stays, as it does when dd writes a boot sector.
 */

/** More pieces than this are not kept; who writes so much at random does not rely on zeroes for long. */
export const MAX_PIECES = 32 * 1024;

export interface Gap {
  readonly offset: bigint;
  /** In bytes, more than 0. */
  readonly length: bigint;
}

export class Truncation {
  // Sorted, disjoint, not touching one another: starts and ends in turn.
  #edges: bigint[] = [];
  /** How long the file would be by now, had it been cut. */
  #length = 0n;

  /** The range was written, or zeroed. */
  covered(offset: bigint, length: bigint): void {
    const end = offset + length;
    this.extendedTo(end);
    const edges = this.#edges;
    // From the end backwards, as most of those who write go forwards.
    let last = edges.length;
    while (last > 0 && (edges[last - 2] ?? 0n) > end) last -= 2;
    let first = last;
    while (first > 0 && (edges[first - 1] ?? 0n) >= offset) first -= 2;
    const start = first < last && (edges[first] ?? 0n) < offset ? (edges[first] ?? 0n) : offset;
    const reached = edges[last - 1] ?? 0n;
    edges.splice(first, last - first, start, first < last && reached > end ? reached : end);
  }

  /** The file was made as long as this, by writing or by ftruncate(2). */
  extendedTo(length: bigint): void {
    if (length > this.#length) this.#length = length;
  }

  get tooManyPieces(): boolean {
    return this.#edges.length > 2 * MAX_PIECES;
  }

  /** What was skipped so far. From now on it counts as written. */
  takeGaps(): Gap[] {
    const gaps: Gap[] = [];
    let at = 0n;
    for (let i = 0; i <= this.#edges.length; i += 2) {
      const start = this.#edges[i] ?? this.#length;
      if (start > at) gaps.push({ offset: at, length: start - at });
      at = this.#edges[i + 1] ?? this.#length;
    }
    this.#edges = this.#length > 0n ? [0n, this.#length] : [];
    return gaps;
  }
}
