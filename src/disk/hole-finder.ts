/**
 * Finds the next hole or the next data of a disk, for lseek(2). Tools ask for both in turn all along a
 * file, and a server tells of many extents at once: its last answer is kept, so that it is asked once for
 * what it tells in one answer, and not for each step.
 */

import { errno } from '../errno.js';
import type { Disk, Extent } from './disk.js';
import { inTurn } from './parts.js';

/** The answer to a seek: an errno, or 0 and where it leads. */
export type SeekReply = (code: number, offset: bigint) => void;

/** How many extents of an answer are kept at the most. */
const MAX_KEPT = 16384;
/**
 * Milliseconds after which a search ends where it has come to: who waits for lseek(2) cannot be killed,
 * and passing over an empty disk of 8 EiB takes two thousand million requests.
 */
const PATIENCE = 5000;
/** What is called data there. */
const GIVEN_UP_BYTES = 4096n;

export class HoleFinder {
  readonly #disk: Disk;
  readonly #now: () => number;
  #kept: Stretch | undefined;
  /** Counts what has made answers untrue, also those that are on their way. */
  #forgotten = 0;

  /** @param now milliseconds */
  constructor(disk: Disk, now: () => number = () => performance.now()) {
    this.#disk = disk;
    this.#now = now;
  }

  /** The disk may have changed. */
  forget(): void {
    this.#kept = undefined;
    this.#forgotten++;
  }

  /**
   * The first place from an offset on that is a hole, or is not. A hole is what reads as zeroes; what
   * is only not allocated may read as anything.
   */
  find(from: bigint, wantHole: boolean, reply: SeekReply): void {
    const { size } = this.#disk.info;
    const end = this.#now() + PATIENCE;
    let at = from;
    let stretch = this.#kept;
    let found: bigint | undefined;
    /** Where the disk is to be asked, as long as nothing is found. */
    const places = function* (this: HoleFinder): Generator<bigint, void> {
      while (at < size) {
        if (stretch?.covers(at) === true) {
          found = stretch.find(at, wantHole);
          if (found !== undefined) return;
          at = stretch.end;
        } else if (this.#now() > end) {
          found = wantHole ? size : this.#callData(at);
          return;
        } else {
          yield at;
        }
      }
    };
    inTurn(
      places.call(this),
      (place, next) => {
        const before = this.#forgotten;
        this.#disk.extents(place, size - place, {
          extents: (extents: readonly Extent[]) => {
            stretch = new Stretch(place, extents);
            if (before === this.#forgotten) this.#kept = stretch.small();
            next.done(0);
          },
          fail: (code) => next.done(code),
        });
      },
      {
        done: (code) => {
          // A server that cannot tell has no holes.
          if (code !== 0) reply(0, wantHole ? size : at);
          else if (found !== undefined && found < size) reply(0, found);
          // There is a hole behind the last byte, and no data.
          else if (wantHole) reply(0, size);
          else reply(errno.ENXIO, 0n);
        },
      },
    );
  }

  /**
   * Calling a place data is never wrong. It is kept, so that the search for a hole that follows does not
   * say the opposite.
   */
  #callData(at: bigint): bigint {
    this.#kept = new Stretch(at, [{ length: GIVEN_UP_BYTES, hole: false, zero: false }]);
    return at;
  }
}

/** Extents that follow one another. Where the last search ended the next one begins. */
class Stretch {
  readonly end: bigint;
  readonly #start: bigint;
  readonly #extents: readonly Extent[];
  #index = 0;
  /** Where the extent of that index starts. */
  #at: bigint;

  constructor(start: bigint, extents: readonly Extent[]) {
    this.#start = this.#at = start;
    this.#extents = extents;
    this.end = extents.reduce((end, { length }) => end + length, start);
  }

  covers(offset: bigint): boolean {
    return offset >= this.#start && offset < this.end;
  }

  /** @param from that it covers @returns undefined if there is none up to its end */
  find(from: bigint, wantHole: boolean): bigint | undefined {
    if (from < this.#at) {
      this.#index = 0;
      this.#at = this.#start;
    }
    for (let extent = this.#extents[this.#index]; extent !== undefined;) {
      const end = this.#at + extent.length;
      if (end > from && extent.zero === wantHole) return from > this.#at ? from : this.#at;
      this.#at = end;
      extent = this.#extents[++this.#index];
    }
    return undefined;
  }

  /** All of it, or as much as may be kept. */
  small(): Stretch {
    if (this.#extents.length <= MAX_KEPT) return this;
    return new Stretch(this.#start, this.#extents.slice(0, MAX_KEPT));
  }
}
