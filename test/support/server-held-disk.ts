/** A disk that answers when it is told to, and counts what it was asked. */

import type { Owner } from '../../src/buffer-pool.js';
import { HEADROOM } from '../../src/disk/disk.js';
import type { Disk, DiskInfo, ExtentsReply, ReadReply, Reply } from '../../src/disk/disk.js';
import { MemoryDisk } from './memory-disk.js';

export class HeldDisk implements Disk {
  readonly info: DiskInfo;
  readonly #held: (() => void)[] = [];
  /** What was asked so far. */
  asked = 0;
  /** Memory that was handed over and not released. */
  handedOver = 0;

  constructor(size: number) {
    this.info = new MemoryDisk({ size: 512 }).info;
    this.info = { ...this.info, size: BigInt(size) };
  }

  get waiting(): number {
    return this.#held.length;
  }

  /** Answers the request that waits longest; or the last one. */
  answer(which: 'first' | 'last' = 'first'): void {
    (which === 'first' ? this.#held.shift() : this.#held.pop())?.();
  }

  answerAll(): void {
    while (this.#held.length > 0) this.answer();
  }

  #hold(answer: () => void): void {
    this.asked++;
    this.#held.push(answer);
  }

  /** Gives bytes of the value of the offset's lowest byte. */
  read(offset: bigint, length: number, reply: ReadReply): void {
    this.#hold(() => {
      const bytes = Buffer.alloc(HEADROOM + length, Number(offset & 0xffn));
      this.handedOver += length;
      const owner: Owner = { release: () => (this.handedOver -= length) };
      reply.data(bytes, HEADROOM, owner);
    });
  }

  write(
    _offset: bigint,
    _bytes: Buffer,
    _start: number,
    _length: number,
    _options: unknown,
    reply: Reply,
  ): void {
    this.#hold(() => reply.done(0));
  }

  flush(reply: Reply): void {
    this.#hold(() => reply.done(0));
  }

  trim(_offset: bigint, _length: bigint, _options: unknown, reply: Reply): void {
    this.#hold(() => reply.done(0));
  }

  zero(_offset: bigint, _length: bigint, _options: unknown, reply: Reply): void {
    this.#hold(() => reply.done(0));
  }

  extents(_offset: bigint, length: bigint, reply: ExtentsReply): void {
    this.#hold(() => reply.extents([{ length, hole: false, zero: false }]));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Lets the event loop turn until it is so. @throws Error after many turns */
export async function eventually(condition: () => boolean, what: string): Promise<void> {
  for (let turn = 0; turn < 10_000; turn++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, turn < 100 ? 0 : 1));
  }
  throw new Error(`never came true: ${what}`);
}
