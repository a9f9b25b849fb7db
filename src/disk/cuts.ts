/**
 * The files of a disk that were cut to nothing, and the zeroing of what was skipped in them. Files that
 * show the same bytes share it: what is written through the one must not be zeroed for the sake of the
 * other.
 */

import { Truncation } from './truncation.js';

/** A file that was cut to nothing, by who still has it open. */
export interface Cut {
  /** The handle of who has cut it. */
  readonly owner: bigint;
  /** Where on the disk the file begins and ends. */
  readonly start: bigint;
  readonly end: bigint;
  readonly state: Truncation;
  /** There are too many gaps to be kept until it is closed. */
  readonly fillEarly: () => void;
}

export class Cuts {
  readonly #cuts = new Set<Cut>();
  /** Those whose gaps are being zeroed, and what waits for its end. */
  readonly #filling = new Map<Cut, (() => void)[]>();

  add(owner: bigint, start: bigint, end: bigint, fillEarly: () => void): Cut {
    const cut = { owner, start, end, state: new Truncation(), fillEarly };
    this.#cuts.add(cut);
    return cut;
  }

  remove(cut: Cut): void {
    this.#cuts.delete(cut);
  }

  /**
   * A range of the disk is being written, or zeroed.
   * @param own the file through which it is, if that is cut: it grows by it, the others only keep it
   */
  written(own: Cut | undefined, from: bigint, to: bigint): void {
    for (const cut of this.#cuts) {
      if (to <= cut.start || from >= cut.end) continue;
      const start = (from > cut.start ? from : cut.start) - cut.start;
      const end = (to < cut.end ? to : cut.end) - cut.start;
      if (cut === own) cut.state.covered(start, end - start);
      else cut.state.kept(start, end - start);
      if (cut.state.tooManyPieces) cut.fillEarly();
    }
  }

  /**
   * No write may start where gaps are being zeroed, since it might be undone.
   * @returns where to put what is to start when that is over; undefined where it may start now
   */
  waitingFor(from: bigint, to: bigint): (() => void)[] | undefined {
    for (const [cut, waiting] of this.#filling) {
      if (from < cut.end && to > cut.start) return waiting;
    }
    return undefined;
  }

  fillingStarts(cut: Cut): void {
    this.#filling.set(cut, []);
  }

  /** What has waited is started, some of which may have to wait again. */
  fillingEnds(cut: Cut): void {
    const waiting = this.#filling.get(cut) ?? [];
    this.#filling.delete(cut);
    for (const start of waiting) start();
  }
}
