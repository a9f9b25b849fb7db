/** A set of bytes as ranges: in order, disjoint, and not touching one another. */

/** From a byte to one before another. */
export interface Range {
  readonly start: bigint;
  readonly end: bigint;
}

export class Ranges {
  // Starts and ends in turn.
  readonly #edges: bigint[] = [];
  readonly #most: number;

  /** @param most ranges; above, what lies between the two nearest counts as well */
  constructor(most = Number.POSITIVE_INFINITY) {
    this.#most = most;
  }

  get count(): number {
    return this.#edges.length / 2;
  }

  /** @param end more than `start` */
  add(start: bigint, end: bigint): void {
    const edges = this.#edges;
    // The ranges from `first` on, up to and without `last`, touch the new one and become one with it.
    const first = this.#endingAtOrAfter(start);
    let last = first;
    let from = start;
    let to = end;
    while (last < edges.length && (edges[last] ?? 0n) <= end) {
      const rangeStart = edges[last] ?? 0n;
      const rangeEnd = edges[last + 1] ?? 0n;
      if (rangeStart < from) from = rangeStart;
      if (rangeEnd > to) to = rangeEnd;
      last += 2;
    }
    edges.splice(first, last - first, from, to);
    if (this.count > this.#most) this.#joinNearest();
  }

  /** The index of the start of the first range that does not end before the offset. */
  #endingAtOrAfter(offset: bigint): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#edges[2 * middle + 1] ?? 0n) < offset) low = middle + 1;
      else high = middle;
    }
    return 2 * low;
  }

  /** What is in none of the ranges, from `start` to `end`, in order. */
  *gaps(start: bigint, end: bigint): Generator<Range, void> {
    const edges = this.#edges;
    let from = start;
    for (let at = this.#endingAtOrAfter(start); at < edges.length; at += 2) {
      const rangeStart = edges[at] ?? 0n;
      const rangeEnd = edges[at + 1] ?? 0n;
      if (rangeStart >= end) break;
      if (rangeStart > from) yield { start: from, end: rangeStart };
      if (rangeEnd > from) from = rangeEnd;
    }
    if (from < end) yield { start: from, end };
  }

  #joinNearest(): void {
    const edges = this.#edges;
    let nearest = 1;
    let least: bigint | undefined;
    for (let at = 1; at + 1 < edges.length; at += 2) {
      const distance = (edges[at + 1] ?? 0n) - (edges[at] ?? 0n);
      if (least !== undefined && distance >= least) continue;
      least = distance;
      nearest = at;
    }
    edges.splice(nearest, 2);
  }

  /** In order. */
  *[Symbol.iterator](): Generator<Range, void> {
    const edges = this.#edges;
    for (let at = 0; at < edges.length; at += 2) {
      yield { start: edges[at] ?? 0n, end: edges[at + 1] ?? 0n };
    }
  }
}
