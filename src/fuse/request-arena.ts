/**
 * The memory that requests are read into. A WRITE stays where it arrived until the disk has answered,
 * since its data leave from there; all else is taken apart at once and its place is used again. What
 * is held is bounded: when all is taken, no request is read until some is free.
 */

import { viewOf } from '../bytes.js';

/** A stretch of memory that several requests share, one behind the other. */
export class Slab {
  readonly bytes: Buffer;
  readonly view: DataView;
  /** How much of it, from its start, belongs to requests that are held. */
  used = 0;
  held = 0;

  constructor(size: number) {
    this.bytes = Buffer.allocUnsafeSlow(size);
    this.view = viewOf(this.bytes);
  }
}

/** How many of the largest requests a slab has room for. */
const LARGEST_PER_SLAB = 4;

export class RequestArena {
  readonly #largest: number;
  readonly #mostSlabs: number;
  readonly #free: Slab[] = [];
  #slabs = 0;
  #current: Slab | undefined;
  /** The last `next` found no room. */
  #waiting = false;
  readonly #freed: () => void;

  /**
   * @param largest bytes of the largest request
   * @param mostBytes bound on all memory; at least one slab is used
   * @param freed called when there is room again after `next` found none
   */
  constructor(largest: number, mostBytes: number, freed: () => void) {
    this.#largest = largest;
    this.#mostSlabs = Math.max(1, Math.floor(mostBytes / (LARGEST_PER_SLAB * largest)));
    this.#freed = freed;
  }

  /** A slab with room for the largest request from its `used` on, or undefined if there is none now. */
  next(): Slab | undefined {
    const current = this.#current;
    if (current !== undefined && current.used + this.#largest <= current.bytes.length) {
      return current;
    }
    let slab = this.#free.pop();
    if (slab === undefined && this.#slabs < this.#mostSlabs) {
      slab = new Slab(LARGEST_PER_SLAB * this.#largest);
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

  release(slab: Slab): void {
    slab.held--;
    if (slab.held > 0) return;
    slab.used = 0;
    if (slab === this.#current) return;
    this.#free.push(slab);
    if (!this.#waiting) return;
    this.#waiting = false;
    this.#freed();
  }
}
