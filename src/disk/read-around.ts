/**
 * What stands around small reads that go on with nothing. The tables of a file system are read in pieces
 * of a page which lie close together, one after the other has come: from a server far away each takes a
 * whole round trip, so that it is worth to fetch the pages around the first one along with it.
 */

import type { Disk, ReadReply } from './disk.js';
import { Chunk, ChunkMemory } from './read-ahead-chunk.js';

/** What is fetched is a multiple of it long and starts at one. */
const AROUND_BYTES = 64 * 1024;
/** Bound on what is kept. */
const MOST_CHUNKS = 32;
/** Reads up to this are small. */
const SMALL_READ = 16 * 1024;
/**
 * What was fetched beyond what was asked has to prove of use: each fetch costs one of the credit, each read
 * that finds what it wants gives one. Without credit one in so many reads tries again.
 */
const MOST_CREDIT = 16;
const TRY_EVERY = 64;

export class Surroundings {
  readonly #disk: Disk;
  readonly #memory = new ChunkMemory(MOST_CHUNKS, AROUND_BYTES);
  /** The least recently used comes first. */
  #chunks: Chunk[] = [];
  #credit = MOST_CREDIT / 2;
  #refused = 0;
  #idle = false;

  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** Answers a read from what is there, or on its way. @returns false where it is not */
  give(offset: bigint, length: number, reply: ReadReply): boolean {
    const end = offset + BigInt(length);
    const index = this.#chunks.findIndex((one) => offset >= one.offset && end <= one.end);
    const chunk = this.#chunks[index];
    if (chunk === undefined) return false;
    this.#chunks.splice(index, 1);
    if (chunk.failed) {
      chunk.drop();
      return false;
    }
    this.#chunks.push(chunk);
    this.#credit = Math.min(this.#credit + 1, MOST_CREDIT);
    this.#idle = false;
    chunk.give(offset, length, reply);
    return true;
  }

  /** Answers a read together with what stands around it, where that is worth it. @returns whether it does */
  fetch(offset: bigint, length: number, reply: ReadReply): boolean {
    const from = offset - (offset % BigInt(AROUND_BYTES));
    const left = this.#disk.info.size - from;
    const whole = left < BigInt(AROUND_BYTES) ? Number(left) : AROUND_BYTES;
    if (length > SMALL_READ || offset + BigInt(length) > from + BigInt(whole)) return false;
    if (this.#credit <= 0 && ++this.#refused % TRY_EVERY !== 0) return false;
    if (this.#chunks.length === MOST_CHUNKS) this.#chunks.shift()?.drop();
    // One that was dropped while it was on its way has its memory until it is here.
    const bytes = this.#memory.take();
    if (bytes === undefined) return false;
    this.#credit = Math.max(this.#credit - 1, 0);
    this.#idle = false;
    const chunk = new Chunk(this.#disk, this.#memory, bytes, from, whole);
    this.#chunks.push(chunk);
    chunk.give(offset, length, reply);
    return true;
  }

  /** A range of the disk changes. */
  drop(offset: bigint, end: bigint): void {
    if (this.#chunks.length === 0) return;
    this.#chunks = this.#chunks.filter((chunk) => {
      const stays = chunk.offset >= end || chunk.end <= offset;
      if (!stays) chunk.drop();
      return stays;
    });
  }

  /** What is there is given to nobody any more. */
  forget(): void {
    for (const chunk of this.#chunks.splice(0)) chunk.drop();
  }

  /** Drops all if nobody has read since the last time. @returns whether there is anything left */
  sweep(): boolean {
    if (this.#idle) {
      this.forget();
      this.#memory.trim();
    }
    this.#idle = true;
    return this.#chunks.length > 0;
  }
}
