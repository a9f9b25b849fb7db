/**
 * What was written since a file was cut to nothing.
 *
 * A disk cannot be cut, so that O_TRUNC leaves its content as it is. But those who have cut a file rely
 * on it: cp of a sparse image and qemu-img convert skip what is to be zeroes, since what a file grows
 * over reads as zeroes. Between the start and the furthest byte that was written to it since, by whomever,
 * what was skipped must be zeroed; behind it all stays, as it does when dd writes a boot sector. What was
 * written through another file that shows the same bytes stays as well, but makes this one no longer.
 *
 * What is skipped within a page of the page cache is not seen: with writeback the kernel reads the page
 * and writes all of it. Nor is a skipped end that nobody makes explicit by ftruncate(2).
 */

import { Ranges } from './ranges.js';

/** When what was written lies in more pieces than this, the gaps between them are zeroed early. */
export const MAX_PIECES = 32 * 1024;

export interface Gap {
  readonly offset: bigint;
  /** In bytes, more than 0. */
  readonly length: bigint;
}

export class Truncation {
  readonly #written = new Ranges();
  /** How long the file would be by now, had it been cut. */
  #length = 0n;

  /** The range was written, or zeroed. */
  covered(offset: bigint, length: bigint): void {
    const end = offset + length;
    this.extendedTo(end);
    this.#written.add(offset, end);
  }

  /** The range was written through another file. */
  kept(offset: bigint, length: bigint): void {
    this.#written.add(offset, offset + length);
  }

  /** The file was made as long as this, by writing or by ftruncate(2). */
  extendedTo(length: bigint): void {
    if (length > this.#length) this.#length = length;
  }

  get tooManyPieces(): boolean {
    return this.#written.count > MAX_PIECES;
  }

  /** What was skipped so far, in order. */
  gaps(): Gap[] {
    const gaps: Gap[] = [];
    let at = 0n;
    for (const { start, end } of this.#written) {
      if (start >= this.#length) break;
      if (start > at) gaps.push({ offset: at, length: start - at });
      at = end;
    }
    if (this.#length > at) gaps.push({ offset: at, length: this.#length - at });
    return gaps;
  }
}
