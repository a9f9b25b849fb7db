/** Which parts of a read have been answered: stretches that must neither overlap nor leave gaps. */

/**
 * So many separate stretches are told apart. Honest servers have a few of them at a time, as many as they
 * have threads; to find the place of each among millions would take all the time there is.
 */
export const MAX_STRETCHES = 4096;

export class RangeSet {
  // Sorted, disjoint, not touching one another: starts and ends in turn.
  readonly #edges: number[] = [];

  /** Adds the bytes from `start` to `end`, which is over `start`. @returns false if any was there already */
  add(start: number, end: number): boolean {
    const edges = this.#edges;
    const at = this.#placeOf(end);
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

  /** Where in the list a stretch that ends there belongs: before all that start there or later. */
  #placeOf(end: number): number {
    const edges = this.#edges;
    // In order is the common case: behind the last one.
    if (edges.length === 0 || (edges.at(-2) ?? 0) < end) return edges.length;
    let low = 0;
    let high = edges.length / 2 - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((edges[2 * middle] ?? 0) < end) low = middle + 1;
      else high = middle;
    }
    return 2 * low;
  }

  /** There are more stretches than can be kept: it is of no more use. */
  get overfull(): boolean {
    return this.#edges.length > 2 * MAX_STRETCHES;
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
