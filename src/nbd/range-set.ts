/** Which parts of a read have been answered: stretches that must neither overlap nor leave gaps. */

export class RangeSet {
  // Sorted, disjoint, not touching one another: starts and ends in turn.
  readonly #edges: number[] = [];

  /** Adds the bytes from `start` to `end`, which is over `start`. @returns false if any was there already */
  add(start: number, end: number): boolean {
    const edges = this.#edges;
    // In order is the common case: it only moves the last edge.
    let at = edges.length;
    while (at > 0 && (edges[at - 2] ?? 0) >= end) at -= 2;
    const endBefore = at > 0 ? (edges[at - 1] ?? 0) : -1;
    if (endBefore > start) return false;
    const joinsBefore = endBefore === start;
    const joinsAfter = at < edges.length && edges[at] === end;
    if (joinsBefore && joinsAfter) edges.splice(at - 1, 2);
    else if (joinsBefore) edges[at - 1] = end;
    else if (joinsAfter) edges[at] = start;
    else edges.splice(at, 0, start, end);
    return true;
  }

  /** Whether it is exactly the bytes from 0 to `length`. */
  covers(length: number): boolean {
    return this.#edges.length === 2 && this.#edges[0] === 0 && this.#edges[1] === length;
  }

  get empty(): boolean {
    return this.#edges.length === 0;
  }

  clear(): void {
    this.#edges.length = 0;
  }
}
