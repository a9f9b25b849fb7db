/** A disk in memory that holds its users to the contract of `Disk`, for tests. */

import assert from 'node:assert/strict';
import { errno } from '../../src/errno.js';
import { HEADROOM } from '../../src/disk/disk.js';
import type {
  Disk,
  DiskInfo,
  Extent,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from '../../src/disk/disk.js';

export interface MemoryDiskOptions extends Partial<Omit<DiskInfo, 'size'>> {
  readonly size: number;
  /** Answers at once, or each in a later turn, in random order by this generator of numbers below 1. */
  readonly shuffle?: (() => number) | undefined;
}

export class MemoryDisk implements Disk {
  readonly info: DiskInfo;
  readonly content: Buffer;
  /** What was asked, in order: `write 512+1024`. */
  readonly log: string[] = [];
  /** Makes the next request of a kind fail with an errno. */
  readonly failNext = new Map<string, number>();
  readonly #shuffle: (() => number) | undefined;
  #waiting: (() => void)[] = [];

  constructor({ size, shuffle, ...info }: MemoryDiskOptions) {
    this.info = {
      size: BigInt(size),
      readOnly: false,
      canFlush: true,
      canFua: true,
      canTrim: true,
      canZero: true,
      canExtents: true,
      canMultiConn: true,
      rotational: false,
      limits: { minimum: 1, preferred: 4096, maximum: 32 * 1024 * 1024 },
      ...info,
    };
    this.content = Buffer.alloc(size);
    this.#shuffle = shuffle;
  }

  /** Runs it now, or later among others. */
  #later(run: () => void): void {
    const random = this.#shuffle;
    if (random === undefined) {
      run();
      return;
    }
    if (this.#waiting.length === 0) setImmediate(() => this.#runWaiting(random));
    this.#waiting.push(run);
  }

  #runWaiting(random: () => number): void {
    const all = this.#waiting;
    this.#waiting = [];
    while (all.length > 0) all.splice(Math.floor(random() * all.length), 1)[0]?.();
  }

  /** Checks what the contract asks of a request, and notes it. @returns the errno it is to fail with */
  #take(kind: string, offset: bigint, length: bigint): number {
    const { size, limits } = this.info;
    this.log.push(`${kind} ${offset.toString()}+${length.toString()}`);
    if (kind !== 'flush') {
      const block = BigInt(limits.minimum);
      assert.ok(length > 0n, `${kind} of nothing`);
      assert.ok(offset >= 0n && offset + length <= size, `${kind} past the end`);
      assert.equal(offset % block, 0n, `${kind} at an unaligned offset`);
      assert.ok(
        (offset + length) % block === 0n || offset + length === size,
        `${kind} of an unaligned length`,
      );
    }
    const code = this.failNext.get(kind) ?? 0;
    this.failNext.delete(kind);
    return code;
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    assert.ok(length <= this.info.limits.maximum, 'read too long');
    const code = this.#take('read', offset, BigInt(length));
    this.#later(() => {
      if (code !== 0) {
        reply.fail(code);
        return;
      }
      // Lent for the call only: overwritten afterwards, to show who keeps it.
      const lent = Buffer.alloc(HEADROOM + length);
      this.content.copy(lent, HEADROOM, Number(offset), Number(offset) + length);
      reply.data(lent, HEADROOM);
      lent.fill(0xee);
    });
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    assert.ok(length <= this.info.limits.maximum, 'write too long');
    assert.ok(start >= HEADROOM, 'no headroom before the data of a write');
    assert.ok(!options.fua || this.info.canFua, 'FUA on a disk without it');
    const code = this.#take(options.fua ? 'write-fua' : 'write', offset, BigInt(length));
    // It may be overwritten from the call to the reply.
    bytes.fill(0xdd, start - HEADROOM, start);
    this.#later(() => {
      if (code === 0) bytes.copy(this.content, Number(offset), start, start + length);
      reply.done(code);
    });
  }

  flush(reply: Reply): void {
    const code = this.#take('flush', 0n, 0n);
    this.#later(() => reply.done(code));
  }

  trim(offset: bigint, length: bigint, _options: WriteOptions, reply: Reply): void {
    const code = this.#take('trim', offset, length);
    this.#later(() => {
      // Undefined by the protocol: the worst that may be.
      if (code === 0) this.content.fill(0xaa, Number(offset), Number(offset + length));
      reply.done(code);
    });
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    assert.ok(this.info.canZero, 'zero on a disk without it');
    const code = this.#take(options.noHole ? 'zero-nohole' : 'zero', offset, length);
    this.#later(() => {
      if (code === 0) this.content.fill(0, Number(offset), Number(offset + length));
      reply.done(code);
    });
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    const code = this.#take('extents', offset, length);
    this.#later(() => {
      if (code !== 0) {
        reply.fail(code);
        return;
      }
      const found: Extent[] = [];
      const step = Math.max(this.info.limits.minimum, 512);
      const end = Number(offset + length);
      for (let at = Number(offset); at < end && found.length < 4;) {
        const isZero = this.#zeroAt(at, step);
        let next = at;
        while (next < end && this.#zeroAt(next, step) === isZero) {
          next = Math.min(next - (next % step) + step, this.content.length);
        }
        found.push({ length: BigInt(next - at), hole: isZero, zero: isZero });
        at = next;
      }
      reply.extents(found);
    });
  }

  #zeroAt(at: number, step: number): boolean {
    const start = at - (at % step);
    return this.content.subarray(start, start + step).every((byte) => byte === 0);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Random numbers below 1 that a seed repeats (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** EIO, for tests that need some error. */
export const SOME_ERROR = errno.EIO;
