/**
 * The memory that requests are read into. A WRITE stays where it arrived until the disk has answered,
 * since its data leave from there; all else is taken apart at once and its place is used again. What
 * is held is bounded: when all is taken, no request is read until some is free.
 *
 * A disk may keep the data of a write beyond its answer. The slab that they stand in is lent to the disk
 * then, and does not count here: what the disk keeps is for the disk to bound.
 */

import { viewOf } from '../bytes.js';
import type { Owner } from '../buffer-pool.js';

/** A stretch of memory that several requests share, one behind the other. */
export class Slab implements Owner {
  readonly bytes: Buffer;
  readonly view: DataView;
  /** How much of it, from its start, belongs to requests that are held or kept. */
  used = 0;
  /** How many requests in it are not answered. */
  held = 0;
  /** How many of its requests a disk keeps. */
  kept = 0;
  readonly #released: ((slab: Slab) => void) | undefined;

  /** @param released called when a disk lets go of what it has kept */
  constructor(size: number, released?: (slab: Slab) => void) {
    this.bytes = Buffer.allocUnsafeSlow(size);
    this.view = viewOf(this.bytes);
    this.#released = released;
  }

  /** For the disk: it keeps one request less. */
  release(): void {
    this.#released?.(this);
  }
}

/** How many of the largest requests a slab has room for. */
const LARGEST_PER_SLAB = 2;

/**
 * How many slabs are lent at the most. A disk that bounds what it keeps gets along with fewer, unless it keeps
 * little of each: then it has to copy what it wants.
 */
const MOST_LENT = 48;
/**
 * So many may be lent beside those that are not. Each further one takes the place of one that is not, so that
 * memory does not grow, as long as so many are left.
 */
const LENT_ASIDE = 1;
const LEAST_SLABS = 3;
/** Milliseconds after which slabs that came back, and nobody has used meanwhile, are let go. */
const SPARE_TIME = 5_000;

export class RequestArena {
  readonly #largest: number;
  readonly #mostSlabs: number;
  readonly #free: Slab[] = [];
  /** Beyond the bound, for when slabs are lent again: to make them anew each time would leave much to collect. */
  readonly #spare: Slab[] = [];
  /** The fewest of them for a while. */
  #leastSpare = 0;
  #letsGo = false;
  /** Those that are not lent. */
  #slabs = 0;
  #lent = 0;
  #current: Slab | undefined;
  /** The last `next` found no room. */
  #waiting = false;
  readonly #freed: () => void;
  readonly #letGo = (slab: Slab): void => {
    slab.kept--;
    if (slab.kept > 0) return;
    this.#lent--;
    this.#slabs++;
    this.#reuse(slab);
  };

  /**
   * @param largest bytes of the largest request
   * @param mostBytes bound on all memory that is not lent; at least one slab is used
   * @param freed called when there is room again after `next` found none
   */
  constructor(largest: number, mostBytes: number, freed: () => void) {
    this.#largest = largest;
    this.#mostSlabs = Math.max(1, Math.floor(mostBytes / (LARGEST_PER_SLAB * largest)));
    this.#freed = freed;
  }

  /** How many there may be that are not lent. */
  get #most(): number {
    const left = this.#mostSlabs + LENT_ASIDE - this.#lent;
    return Math.max(Math.min(LEAST_SLABS, this.#mostSlabs), Math.min(this.#mostSlabs, left));
  }

  /** A slab with room for the largest request from its `used` on, or undefined if there is none now. */
  next(): Slab | undefined {
    const current = this.#current;
    if (current !== undefined && current.used + this.#largest <= current.bytes.length) {
      return current;
    }
    let slab = this.#free.pop();
    if (slab === undefined && this.#slabs < this.#most) {
      slab = this.#spare.pop() ?? new Slab(LARGEST_PER_SLAB * this.#largest, this.#letGo);
      this.#leastSpare = Math.min(this.#leastSpare, this.#spare.length);
      this.#slabs++;
    }
    this.#current = slab;
    this.#waiting = slab === undefined;
    return slab;
  }

  /** Holds the request of `length` bytes that was read to `used`. */
  hold(slab: Slab, length: number): void {
    // The next one starts at a multiple of 8, so that its fields are aligned.
    slab.used += (length + 7) & ~7;
    slab.held++;
  }

  /** A request that was held is answered. */
  release(slab: Slab): void {
    slab.held--;
    this.#reuse(slab);
  }

  /**
   * Lends a slab with a request in it that is still held, until it is released as often as it was lent.
   * @returns undefined if too many are
   */
  lend(slab: Slab): Owner | undefined {
    if (slab.kept === 0) {
      if (this.#lent === MOST_LENT) return undefined;
      this.#lent++;
      this.#slabs--;
    }
    slab.kept++;
    this.#tellFreed();
    return slab;
  }

  #reuse(slab: Slab): void {
    if (slab.held > 0 || slab.kept > 0) return;
    slab.used = 0;
    if (this.#slabs > this.#most) {
      this.#slabs--;
      if (slab === this.#current) this.#current = undefined;
      this.#spare.push(slab);
      this.#letGoLater();
      return;
    }
    if (slab === this.#current) return;
    this.#free.push(slab);
    this.#tellFreed();
  }

  #letGoLater(): void {
    if (this.#letsGo) return;
    this.#letsGo = true;
    setTimeout(() => {
      this.#letsGo = false;
      this.#spare.splice(0, this.#leastSpare);
      this.#leastSpare = this.#spare.length;
      if (this.#spare.length > 0) this.#letGoLater();
    }, SPARE_TIME).unref();
  }

  #tellFreed(): void {
    if (!this.#waiting || (this.#free.length === 0 && this.#slabs >= this.#most)) return;
    this.#waiting = false;
    this.#freed();
  }
}
