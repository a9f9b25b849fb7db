/**
 * Small writes to one file, gathered: handing a request to another thread and hearing of its end costs
 * more than copying it to the page cache, so that those which come together go together. They are not
 * made on the event loop, since a write may wait: for room in the page cache, for the journal, for the
 * rest of a block that is not in memory.
 */

import type { Reply } from '../../disk/disk.js';
import { native } from '../../native.js';
import type { Native } from '../../native.js';

/** The longest write that is worth it, in bytes. */
export const MAX_GATHERED_BYTES = 32 * 1024;
/** At once; they are answered together. */
const MAX_PIECES = 64;
/** While others are under way, so many have to come together: the longer it takes, the more they are. */
const WORTH_A_THREAD = 16;
/** How many threads of the pool may be at it, which has four. */
const MAX_THREADS = 2;

/** A write of its own, from its `put`th byte on. */
export type WriteRest = (write: PendingWrite, put: number) => void;

export interface PendingWrite {
  readonly offset: bigint;
  readonly bytes: Buffer;
  readonly start: number;
  readonly length: number;
  readonly reply: Reply;
}

export class FileWrites {
  readonly #fd: number;
  readonly #writeRest: WriteRest;
  readonly #pwrites: Native['pwrites'];
  #waiting: PendingWrite[] = [];
  #threads = 0;
  #scheduled = false;
  readonly #atEndOfTurn = (): void => {
    this.#scheduled = false;
    this.#go();
  };

  /** @param writeRest goes on where the system wrote a part of a piece */
  constructor(
    fd: number,
    writeRest: WriteRest,
    pwrites: Native['pwrites'] = (...args) => native.pwrites(...args),
  ) {
    this.#fd = fd;
    this.#writeRest = writeRest;
    this.#pwrites = pwrites;
  }

  request(write: PendingWrite): void {
    this.#waiting.push(write);
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(this.#atEndOfTurn);
  }

  #go(): void {
    while (
      this.#waiting.length >= (this.#threads === 0 ? 1 : WORTH_A_THREAD) &&
      this.#threads < MAX_THREADS
    ) {
      this.#threads++;
      void this.#writeTogether(this.#waiting.splice(0, MAX_PIECES));
    }
  }

  async #writeTogether(writes: readonly PendingWrite[]): Promise<void> {
    const ranges = new Uint32Array(2 * writes.length);
    const offsets = new BigInt64Array(writes.length);
    const results = new Int32Array(writes.length);
    for (const [i, { offset, start, length }] of writes.entries()) {
      ranges[2 * i] = start;
      ranges[2 * i + 1] = length;
      offsets[i] = offset;
    }
    const buffers = writes.map(({ bytes }) => bytes);
    try {
      await this.#pwrites(this.#fd, buffers, ranges, offsets, results);
    } catch (error) {
      // Nothing was written then, and each goes by itself.
      if ((error as NodeJS.ErrnoException).code !== 'ENOMEM') throw error;
    }
    this.#threads--;
    this.#go();
    for (const [i, write] of writes.entries()) {
      const result = results[i] ?? 0;
      if (result === write.length) write.reply.done(0);
      else if (result < 0) write.reply.done(-result);
      else this.#writeRest(write, result);
    }
  }
}
