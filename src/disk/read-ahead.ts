/**
 * A disk that reads ahead of sequential readers, and around small reads, where the disk below is far
 * away. The kernel keeps only 128 KiB under way for an ordinary user's mount, after which it waits for a
 * whole round trip, and of a page that is written in part, or of a file system's tables, it asks for
 * each page alone.
 *
 * What was read ahead is kept until it is taken, but does not outlive a change of its place: when a write
 * is answered it is dropped, also what was asked for meanwhile and is still on its way.
 */

import { ChangeWatchingDisk } from './change-watching-disk.js';
import type { Change } from './change-watching-disk.js';
import type { Disk, ReadReply, Reply } from './disk.js';
import { ChunkMemory } from './read-ahead-chunk.js';
import { CHUNK_BYTES, Stream } from './read-ahead-stream.js';
import { Surroundings } from './read-around.js';

/** How many sequential readers are followed at once. */
const STREAMS = 4;
/** How many bytes have to be read one after the other before it is taken for a habit. */
const HABIT_BYTES = 256 * 1024;
/** Bound on what is read ahead, of all readers together. */
const MOST_CHUNKS = 23;
/**
 * A disk is far if a read takes longer than these milliseconds and what its bytes take on a slow wire:
 * then waiting is what costs, and not the moving of data.
 */
const FAR_LATENCY = 0.7;
const FAR_PER_BYTE = 3e-6;
/** And so far that it is worth to fetch what stands around a small read; in milliseconds. */
const AROUND_LATENCY = 2;
/** One in so many of the reads that go on with nothing is timed. */
const TIME_EVERY = 16;
/** Milliseconds after which what a reader has not come back for is dropped. */
const PATIENCE = 2000;

export class ReadAheadDisk extends ChangeWatchingDisk {
  readonly #memory = new ChunkMemory(MOST_CHUNKS, CHUNK_BYTES);
  readonly #streams: Stream[];
  readonly #around: Surroundings;
  readonly #now: () => number;
  /** The last read that was timed took long. */
  #far = false;
  #farther = false;
  #timing = false;
  #started = false;
  #follows = false;
  /** How many reads went on with nothing. */
  #leaps = 0;
  #sweep: NodeJS.Timeout | undefined;

  /**
   * @param disk takes any request, as `fitDisk` makes it
   * @param now milliseconds
   */
  constructor(disk: Disk, now: () => number = () => performance.now()) {
    super(disk);
    this.#now = now;
    this.#streams = Array.from({ length: STREAMS }, () => new Stream(disk, this.#memory));
    this.#around = new Surroundings(disk);
  }

  /**
   * Reads around small reads from now on, and ahead of sequential ones unless the kernel does. Before that
   * all goes straight on. No change of the disk may be under way.
   */
  start({ ahead }: { readonly ahead: boolean }): void {
    this.#started = true;
    this.#follows = ahead;
  }

  /** Nothing that was read before this call is given to anybody: others may have changed the disk. */
  forget(): void {
    for (const stream of this.#streams) stream.forget();
    this.#around.forget();
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    const stream = this.#follows ? this.#follow(offset, length) : undefined;
    if (stream === undefined) {
      this.#readAround(offset, length, reply);
    } else if (stream.holds(offset)) {
      this.#readAhead(stream, offset, length, reply);
    } else if (!this.#timing && timeToMeasure(stream)) {
      this.#timedRead(offset, length, reply);
    } else if (this.#far && stream.habit >= HABIT_BYTES) {
      this.#readAhead(stream, offset, length, reply);
    } else {
      this.#readAround(offset, length, reply);
    }
  }

  #readAround(offset: bigint, length: number, reply: ReadReply): void {
    if (!this.#started) {
      this.below.read(offset, length, reply);
    } else if (this.#around.give(offset, length, reply)) {
      // It was there.
    } else if (!this.#timing && this.#leaps++ % TIME_EVERY === 0) {
      this.#timedRead(offset, length, reply);
    } else if (this.#farther && this.#around.fetch(offset, length, reply)) {
      this.#sweepLater();
    } else {
      this.below.read(offset, length, reply);
    }
  }

  #readAhead(stream: Stream, offset: bigint, length: number, reply: ReadReply): void {
    stream.read(offset, length, reply);
    this.#sweepLater();
  }

  /**
   * The stream that a read goes on with, or undefined where it goes on with none: then it may be the
   * start of one, in the place of the one that was used least recently.
   */
  #follow(offset: bigint, length: number): Stream | undefined {
    const streams = this.#streams;
    for (let i = 0; i < streams.length; i++) {
      const stream = streams[i];
      if (stream === undefined || (stream.next !== offset && !stream.holds(offset))) continue;
      // The most recently used stands first.
      for (let j = i; j > 0; j--) streams[j] = streams[j - 1] ?? stream;
      streams[0] = stream;
      stream.goneOn(offset, length);
      return stream;
    }
    const last = streams.pop();
    if (last !== undefined) {
      last.startAt(offset, length);
      streams.unshift(last);
    }
    return undefined;
  }

  #timedRead(offset: bigint, length: number, reply: ReadReply): void {
    const start = this.#now();
    this.#timing = true;
    const took = (): void => {
      this.#timing = false;
      const latency = this.#now() - start - FAR_PER_BYTE * length;
      this.#far = latency > FAR_LATENCY;
      this.#farther = latency > AROUND_LATENCY;
    };
    this.below.read(offset, length, {
      data(bytes, at, owner) {
        took();
        reply.data(bytes, at, owner);
      },
      fail(code) {
        took();
        reply.fail(code);
      },
    });
  }

  /** From time to time what nobody has come back for is dropped. */
  #sweepLater(): void {
    if (this.#sweep !== undefined) return;
    this.#sweep = setTimeout(() => {
      this.#sweep = undefined;
      let left = this.#around.sweep();
      for (const stream of this.#streams) left = stream.sweep() || left;
      if (left) this.#sweepLater();
      else this.#memory.trim();
    }, PATIENCE).unref();
  }

  protected override changing(offset: bigint, length: bigint, reply: Reply): Reply {
    return this.#started ? this.watched(offset, length, reply) : reply;
  }

  protected override changed({ offset, end }: Change): void {
    for (const stream of this.#streams) stream.drop(offset, end);
    this.#around.drop(offset, end);
  }

  override close(): Promise<void> {
    clearTimeout(this.#sweep);
    this.forget();
    return super.close();
  }
}

/** Each reader anew, as the disk may come nearer, and one that is near now and then. */
const timeToMeasure = ({ reads }: Stream): boolean => reads === 2 || reads % 16 === 0;
