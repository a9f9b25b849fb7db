/** A piece of a disk that is read before anybody asks for it. */

import { HEADROOM } from './disk.js';
import type { Disk, ReadReply } from './disk.js';

/** The memory of chunks: so many at the most, used again. */
export class ChunkMemory {
  readonly #most: number;
  readonly #bytes: number;
  readonly #free: Buffer[] = [];
  #taken = 0;

  /** @param bytes that a chunk has at the most */
  constructor(most: number, bytes: number) {
    this.#most = most;
    this.#bytes = bytes;
  }

  /** Room for a chunk behind HEADROOM bytes, or undefined where all is taken. */
  take(): Buffer | undefined {
    if (this.#taken === this.#most) return undefined;
    this.#taken++;
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(HEADROOM + this.#bytes);
  }

  give(bytes: Buffer): void {
    this.#taken--;
    this.#free.push(bytes);
  }

  /** Lets go of what is not in use. */
  trim(): void {
    this.#free.length = 0;
  }
}

interface Waiting {
  readonly offset: bigint;
  readonly length: number;
  readonly reply: ReadReply;
}

/** Where the bytes before a payload are kept while they are lent; undefined while somebody uses it. */
let spareHeadroom: Buffer | undefined;

export class Chunk {
  readonly offset: bigint;
  readonly length: number;
  readonly #disk: Disk;
  readonly #memory: ChunkMemory;
  readonly #bytes: Buffer;
  #state: 'asked' | 'here' | 'failed' = 'asked';
  #waiting: Waiting[] = [];
  #left: number;
  /** How many of those who get a part of it have not returned: they may ask, and change the disk, from there. */
  #lent = 0;
  #dropped = false;
  #gone = false;

  /**
   * Asks the disk for it.
   * @param bytes taken from the memory
   * @param length at most what the memory has for one
   */
  constructor(disk: Disk, memory: ChunkMemory, bytes: Buffer, offset: bigint, length: number) {
    this.#disk = disk;
    this.#memory = memory;
    this.#bytes = bytes;
    this.offset = offset;
    this.length = length;
    this.#left = length;
    disk.read(offset, length, {
      data: (lent, start, owner) => {
        lent.copy(bytes, HEADROOM, start, start + length);
        owner?.release();
        this.#settle('here');
      },
      fail: () => this.#settle('failed'),
    });
  }

  get end(): bigint {
    return this.offset + BigInt(this.length);
  }

  /** The disk has not answered yet. */
  get pending(): boolean {
    return this.#state === 'asked';
  }

  get failed(): boolean {
    return this.#state === 'failed';
  }

  /** As much was given as there is. */
  get used(): boolean {
    return this.#left <= 0;
  }

  #settle(state: 'here' | 'failed'): void {
    this.#state = state;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#lent++;
    for (const { offset, length, reply } of waiting) this.#answer(offset, length, reply);
    this.#lent--;
    this.#letGo();
  }

  /** Gives a part of it, as soon as it is here. */
  give(offset: bigint, length: number, reply: ReadReply): void {
    this.#left -= length;
    if (this.#state === 'asked') this.#waiting.push({ offset, length, reply });
    else this.#answer(offset, length, reply);
  }

  #answer(offset: bigint, length: number, reply: ReadReply): void {
    if (this.#state === 'failed') {
      // The error may be about another part of the chunk: who asks for this one gets its own answer.
      this.#disk.read(offset, length, reply);
      return;
    }
    const start = HEADROOM + Number(offset - this.offset);
    // What stands before is a part of the chunk, which somebody may still ask for.
    const headroom = spareHeadroom ?? Buffer.allocUnsafeSlow(HEADROOM);
    spareHeadroom = undefined;
    this.#bytes.copy(headroom, 0, start - HEADROOM, start);
    this.#lent++;
    reply.data(this.#bytes, start);
    this.#lent--;
    headroom.copy(this.#bytes, start - HEADROOM);
    spareHeadroom = headroom;
    this.#letGo();
  }

  /** Nobody asks for it any more. Who waits for it gets it. */
  drop(): void {
    this.#dropped = true;
    this.#letGo();
  }

  /** Gives its memory back, once, when it is dropped and nobody has anything of it. */
  #letGo(): void {
    if (!this.#dropped || this.#lent > 0 || this.#state === 'asked' || this.#gone) return;
    this.#gone = true;
    this.#memory.give(this.#bytes);
  }
}
