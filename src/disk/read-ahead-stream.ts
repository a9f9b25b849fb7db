/** One sequential reader, and what was read ahead of it: chunks that follow one another. */

import { HEADROOM } from './disk.js';
import type { Disk, ReadReply } from './disk.js';
import { Chunk } from './read-ahead-chunk.js';
import type { ChunkMemory } from './read-ahead-chunk.js';

/** The most that is read ahead with one request. */
export const CHUNK_BYTES = 512 * 1024;
/**
 * How far is read ahead at first, and at the most; twice as far each time that a reader had to wait. 10 MiB are what
 * a server 10 ms away sends in that time, at the speed at which a program reads from the page cache.
 */
const FIRST_WINDOW = 512 * 1024;
const LARGEST_WINDOW = 20 * CHUNK_BYTES;
/** A window is asked for in so many pieces, so that there is always some on its way. */
const PIECES = 4;
/** The kernel reads ahead itself, and its requests may pass one another. */
const KEPT_BEHIND = 2n * BigInt(CHUNK_BYTES);

export class Stream {
  /** Where the reader goes on, unless it leaps. */
  next = -1n;
  /** How many bytes were read one after the other. */
  habit = 0;
  /** And by how many reads. */
  reads = 0;
  readonly #disk: Disk;
  readonly #memory: ChunkMemory;
  #chunks: Chunk[] = [];
  #window = FIRST_WINDOW;
  #idle = false;

  constructor(disk: Disk, memory: ChunkMemory) {
    this.#disk = disk;
    this.#memory = memory;
  }

  /** Whether what stands at an offset is here, or on its way. */
  holds(offset: bigint): boolean {
    const first = this.#chunks[0];
    return first !== undefined && offset >= first.offset && offset < this.#end;
  }

  get #end(): bigint {
    return this.#chunks.at(-1)?.end ?? this.next;
  }

  /** A read of the stream. */
  goneOn(offset: bigint, length: number): void {
    const end = offset + BigInt(length);
    this.habit += length;
    this.reads++;
    if (end > this.next) this.next = end;
    this.#idle = false;
  }

  /** Reads by what was read ahead, and reads on. It has gone on there before. */
  read(offset: bigint, length: number, reply: ReadReply): void {
    // There was no memory for what lies between, and it was read without it.
    if (this.#end < offset) this.#dropFrom(0);
    if (this.#chunks.length === 0) this.#fill(offset, offset + BigInt(length));
    this.#give(offset, length, reply);
    if (this.#leave(offset)) this.#fill(this.#end, this.next + BigInt(this.#window));
  }

  /** Asks for chunks from an offset on, until they reach an end or there is no more memory. */
  #fill(from: bigint, until: bigint): void {
    const { size } = this.#disk.info;
    const end = until < size ? until : size;
    const piece = Math.min(CHUNK_BYTES, this.#window / PIECES);
    for (let at = from; at < end;) {
      const bytes = this.#memory.take();
      if (bytes === undefined) return;
      // Up to a multiple, where the requests of the kernel end as well.
      const whole = piece - Number(at % BigInt(piece));
      const length = size - at < BigInt(whole) ? Number(size - at) : whole;
      const chunk = new Chunk(this.#disk, this.#memory, bytes, at, length);
      this.#chunks.push(chunk);
      at = chunk.end;
    }
  }

  #give(offset: bigint, length: number, reply: ReadReply): void {
    const chunk = this.#chunks.find((one) => offset < one.end && offset >= one.offset);
    const end = offset + BigInt(length);
    if (chunk === undefined || end > this.#end) {
      // There was no memory for it.
      this.#disk.read(offset, length, reply);
      return;
    }
    if (chunk.pending) this.#window = Math.min(2 * this.#window, LARGEST_WINDOW);
    if (end <= chunk.end) chunk.give(offset, length, reply);
    else this.#gather(offset, length, reply);
  }

  /** Puts together what stands in several chunks. */
  #gather(offset: bigint, length: number, reply: ReadReply): void {
    const end = offset + BigInt(length);
    const place = Buffer.allocUnsafeSlow(HEADROOM + length);
    const touched = this.#chunks.filter((one) => one.offset < end && one.end > offset);
    let left = touched.length;
    let failed = 0;
    const done = (): void => {
      if (--left > 0) return;
      if (failed === 0) reply.data(place, HEADROOM);
      else reply.fail(failed);
    };
    for (const chunk of touched) {
      const from = chunk.offset > offset ? chunk.offset : offset;
      const count = Number((chunk.end < end ? chunk.end : end) - from);
      const at = HEADROOM + Number(from - offset);
      chunk.give(from, count, {
        data(bytes, start, owner) {
          bytes.copy(place, at, start, start + count);
          owner?.release();
          done();
        },
        fail(code) {
          failed = code;
          done();
        },
      });
    }
  }

  /**
   * Drops what is behind the reader, and all from a chunk on that could not be read.
   * @returns false where that was so
   */
  #leave(offset: bigint): boolean {
    for (let chunk = this.#chunks[0]; chunk !== undefined; chunk = this.#chunks[0]) {
      if (!chunk.used && chunk.end + KEPT_BEHIND > offset) break;
      chunk.drop();
      this.#chunks.shift();
    }
    const broken = this.#chunks.findIndex((chunk) => chunk.failed);
    if (broken >= 0) this.#dropFrom(broken);
    return broken < 0;
  }

  /** What is there is read again, and only when the habit has shown anew. */
  #dropFrom(index: number): void {
    for (const chunk of this.#chunks.splice(index)) chunk.drop();
    this.#window = FIRST_WINDOW;
    this.habit = 0;
    this.reads = 0;
  }

  /** A range of the disk changes. */
  drop(offset: bigint, end: bigint): void {
    if (this.#chunks.length === 0) return;
    const index = this.#chunks.findIndex((chunk) => chunk.offset < end && chunk.end > offset);
    if (index >= 0) this.#dropFrom(index);
  }

  /** What was read ahead is given to nobody any more, and it follows nobody. */
  forget(): void {
    // Before each read of some, who read nothing ahead.
    if (this.#chunks.length > 0) this.#dropFrom(0);
    this.next = -1n;
  }

  /** It follows another reader from now on, whose first read this is. */
  startAt(offset: bigint, length: number): void {
    this.forget();
    this.next = offset + BigInt(length);
    this.habit = length;
    this.reads = 1;
    this.#idle = false;
  }

  /** Drops all if nobody has read since the last time. @returns whether there is anything left */
  sweep(): boolean {
    if (this.#idle) this.#dropFrom(0);
    this.#idle = true;
    return this.#chunks.length > 0;
  }
}
