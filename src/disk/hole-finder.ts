/**
 * Finds the next hole or the next data of a disk, for lseek(2). Tools ask for both in turn all along a
 * file, and some for the next data again and again out of the same hole, which may take a server hundreds
 * of answers to pass: what it told is kept, so that it is asked once and not for each step.
 */

import { errno } from '../errno.js';
import type { Disk, Extent } from './disk.js';
import { inTurn } from './parts.js';

/** The answer to a seek: an errno, or 0 and where it leads. */
export type SeekReply = (code: number, offset: bigint) => void;

/** How many holes and stretches of data between them are kept at the most. */
const MAX_KEPT = 65536;
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
  /** Counts how often what was told became untrue, also of searches that are under way. */
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
    const forgotten = this.#forgotten;
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
          if (!wantHole) this.#callData(at);
          found = wantHole ? size : at;
          return;
        } else {
          yield at;
        }
      }
    };
    inTurn(
      places.call(this),
      (place, next) => {
        this.#disk.extents(place, size - place, {
          extents: (extents: readonly Extent[]) => {
            if (stretch?.continues(place) !== true) stretch = new Stretch(place);
            stretch.add(extents);
            if (forgotten === this.#forgotten) this.#kept = stretch;
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
  #callData(at: bigint): void {
    if (this.#kept?.continues(at) !== true) this.#kept = new Stretch(at);
    this.#kept.add([{ length: GIVEN_UP_BYTES, zero: false }]);
  }
}

interface Run {
  length: bigint;
  readonly zero: boolean;
}

/** Holes and data that follow one another. Where the last search ended the next one begins. */
class Stretch {
  readonly #start: bigint;
  #end: bigint;
  readonly #runs: Run[] = [];
  #index = 0;
  /** Where the run of that index starts. */
  #at: bigint;

  constructor(start: bigint) {
    this.#start = this.#end = this.#at = start;
  }

  get end(): bigint {
    return this.#end;
  }

  covers(offset: bigint): boolean {
    return offset >= this.#start && offset < this.#end;
  }

  /** Whether something can be added that starts at an offset. */
  continues(offset: bigint): boolean {
    return offset === this.#end && this.#runs.length < MAX_KEPT;
  }

  /** Neighbours of a kind become one. What there is no room for is left out. */
  add(extents: readonly Pick<Extent, 'length' | 'zero'>[]): void {
    for (const { length, zero } of extents) {
      const last = this.#runs.at(-1);
      if (last?.zero === zero) last.length += length;
      else if (this.#runs.length < MAX_KEPT) this.#runs.push({ length, zero });
      else return;
      this.#end += length;
    }
  }

  /** @param from that it covers @returns undefined if there is none up to its end */
  find(from: bigint, wantHole: boolean): bigint | undefined {
    if (from < this.#at) {
      this.#index = 0;
      this.#at = this.#start;
    }
    for (let run = this.#runs[this.#index]; run !== undefined; run = this.#runs[this.#index]) {
      const end = this.#at + run.length;
      if (end > from && run.zero === wantHole) return from > this.#at ? from : this.#at;
      // The last one may still become longer.
      if (end === this.#end) return undefined;
      this.#at = end;
      this.#index++;
    }
    return undefined;
  }
}
