/**
 * What was received and not yet taken, and the payloads in it that disks hold. The bytes stand in a
 * segment from `start` to `end`; a segment is filled again once nobody holds any of it, and another
 * one is taken where somebody does.
 */

import type { BufferPool, PooledBuffer } from '../buffer-pool.js';
import { HEADROOM } from '../disk/disk.js';
import { viewOf } from '../bytes.js';
import { REQUEST_BYTES } from '../nbd/constants.js';
import { takeFrom } from './memory.js';

/** Enough for many requests in one call, and little enough to stay in the processor's cache. */
const SEGMENT_BYTES = 128 * 1024;
/** Less room than this is not worth a call. */
const LEAST_ROOM = 16 * 1024;

/** Received bytes, of which disks may hold parts. */
export interface Segment {
  readonly memory: PooledBuffer;
  readonly view: DataView;
  /** How many requests have their payload in it. */
  holds: number;
  /** Where the last payload ends that was still held when its disk had returned. */
  heldEnd: number;
}

export class Inbox {
  readonly #pool: BufferPool;
  #segment: Segment | undefined;
  #retired = 0;
  start = HEADROOM;
  end = HEADROOM;
  /** How many bytes the request at `start` takes, as far as that is known. */
  wanted = REQUEST_BYTES;

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  get #current(): Segment {
    if (this.#segment === undefined) throw new Error('nothing was received');
    return this.#segment;
  }

  get bytes(): Buffer {
    return this.#current.memory.bytes;
  }

  get view(): DataView {
    return this.#current.view;
  }

  /** How many bytes wait to be taken. */
  get have(): number {
    return this.end - this.start;
  }

  /** How many bytes may be received to `end`. */
  get room(): number {
    return this.bytes.length - this.end;
  }

  /** The size of the segments that are held and no longer received to. */
  get retiredBytes(): number {
    return this.#retired;
  }

  /** Makes room for all of the request at `start` at least. @returns false if there is no memory for it */
  makeRoom(): boolean {
    const { have } = this;
    const segment = this.#segment;
    if (segment === undefined) return this.#nextSegment();
    if (segment.holds === 0) {
      segment.heldEnd = 0;
      if (have === 0) this.start = this.end = HEADROOM;
    }
    if (this.room >= Math.max(this.wanted - have, LEAST_ROOM)) return true;
    if (segment.holds > 0) return this.#nextSegment();
    segment.memory.bytes.copyWithin(HEADROOM, this.start, this.end);
    this.start = HEADROOM;
    this.end = HEADROOM + have;
    return true;
  }

  /** Goes on in another segment, with what was not taken yet. */
  #nextSegment(): boolean {
    const memory = takeFrom(this.#pool, SEGMENT_BYTES);
    if (memory === undefined) return false;
    const { bytes } = memory;
    const { have } = this;
    const before = this.#segment;
    if (before !== undefined) {
      before.memory.bytes.copy(bytes, HEADROOM, this.start, this.end);
      this.#retired += SEGMENT_BYTES;
    }
    this.#segment = { memory, view: viewOf(bytes), holds: 0, heldEnd: 0 };
    this.start = HEADROOM;
    this.end = HEADROOM + have;
    return true;
  }

  /** Drops up to `most` bytes. @returns how many */
  skip(most: number): number {
    const count = Math.min(most, this.have);
    this.start += count;
    return count;
  }

  /** Copies up to `most` bytes out. @returns how many */
  moveTo(target: Buffer, at: number, most: number): number {
    const count = Math.min(most, this.have);
    this.bytes.copy(target, at, this.start, this.start + count);
    this.start += count;
    return count;
  }

  /**
   * Whether the bytes from `start` on can be lent with the headroom before them, which a disk may
   * overwrite. A request's header is shorter than that, so the end of the payload before it is in
   * there: as long as that one is held, it is in the way.
   * @param before how many bytes from `start` on will be taken before
   */
  canLend(before = 0): boolean {
    return this.start + before - HEADROOM >= this.#current.heldEnd;
  }

  /** Takes `length` bytes, which stay as they are until the segment is given back as often as it was lent. */
  lend(length: number): Segment {
    const segment = this.#current;
    segment.holds++;
    this.start += length;
    return segment;
  }

  giveBack(segment: Segment): void {
    segment.holds--;
    if (segment.holds > 0 || segment === this.#segment) return;
    this.#retired -= SEGMENT_BYTES;
    segment.memory.release();
  }

  /** Nothing will be received any more. */
  close(): void {
    const segment = this.#segment;
    this.#segment = undefined;
    this.start = this.end = HEADROOM;
    if (segment === undefined) return;
    if (segment.holds === 0) segment.memory.release();
    else this.#retired += SEGMENT_BYTES;
  }
}
