/** An open file or block device as a disk. */

import { close, fdatasync, read, readSync, write, writeSync } from 'node:fs';
import { BufferPool } from '../../buffer-pool.js';
import type { PooledBuffer } from '../../buffer-pool.js';
import { HEADROOM } from '../../disk/disk.js';
import type {
  Disk,
  DiskInfo,
  Extent,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from '../../disk/disk.js';
import { errno } from '../../errno.js';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  SEEK_DATA,
  SEEK_HOLE,
} from '../../linux.js';
import { native } from '../../native.js';
import { FileFlush } from './file-flush.js';
import { FileWrites, MAX_GATHERED_BYTES } from './file-writes.js';
import type { PendingWrite } from './file-writes.js';

/** For the data of reads on their way to clients. */
const KEPT_BYTES = 32 * 1024 * 1024;
/** Reads that go to another thread, at most, before it is seen again whether they have to. */
const MAX_UNTRIED = 15;
/** In one answer: each takes two calls. */
const MAX_EXTENTS = 64;
/** Written at once where the file system has no other way to zero. */
const ZEROES = Buffer.alloc(1024 * 1024);

export interface FileDiskOptions {
  /**
   * The file is nowhere but in memory (tmpfs): nothing of it waits for a disk, but for what was swapped out,
   * and another thread would cost more than the copy. Its file system cannot say so (EOPNOTSUPP).
   */
  readonly inMemory?: boolean;
}

export class FileDisk implements Disk {
  readonly info: DiskInfo;
  readonly #fd: number;
  readonly #inMemory: boolean;
  readonly #pool = new BufferPool(KEPT_BYTES);
  readonly #flush: FileFlush;
  readonly #writes: FileWrites;
  /** How many reads are left to another thread without a try. */
  #untried = 0;
  /** How many there were after the last read that was not in memory; none after one that was. */
  #untriedBefore = 0;
  #closed: Promise<void> | undefined;
  /** The modes of fallocate that the file system turned out not to have. */
  readonly #missing = new Set<number>();

  /** @param fd owned from now on */
  constructor(fd: number, info: DiskInfo, { inMemory = false }: FileDiskOptions = {}) {
    this.#fd = fd;
    this.#inMemory = inMemory;
    this.info = info;
    this.#flush = new FileFlush((done) => fdatasync(fd, (error) => done(errnoOf(error))));
    this.#writes = new FileWrites(fd, (write, put) => this.#writeRest(write, put));
  }

  /** What is in memory is given at once; what has to be waited for is read by another thread. */
  read(offset: bigint, length: number, reply: ReadReply): void {
    let memory;
    try {
      memory = this.#pool.take(HEADROOM + length);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      reply.fail(errno.ENOMEM);
      return;
    }
    const got = this.#readNow(offset, length, memory.bytes);
    if (got === length) reply.data(memory.bytes, HEADROOM, memory);
    else this.#readRest(offset, length, memory, got, reply);
  }

  /**
   * Where a file is not in memory, a try costs the time of the one thread that all clients share, as the
   * system begins to read ahead within it: the next ones then go without, one, three, seven and fifteen.
   * @returns how many bytes there are without waiting; what is wrong shows where the rest is read
   */
  #readNow(offset: bigint, length: number, bytes: Buffer): number {
    if (this.#inMemory) {
      return countOf(() => readSync(this.#fd, bytes, HEADROOM, length, Number(offset)));
    }
    if (this.#untried > 0) {
      this.#untried--;
      return 0;
    }
    const count = native.preadNow(this.#fd, bytes, HEADROOM, length, offset);
    if (count === length) {
      this.#untriedBefore = 0;
    } else if (count === -errno.EOPNOTSUPP) {
      // The file system cannot tell, and never will.
      this.#untried = Number.POSITIVE_INFINITY;
    } else {
      this.#untriedBefore = Math.min(2 * this.#untriedBefore + 1, MAX_UNTRIED);
      this.#untried = this.#untriedBefore;
    }
    return Math.max(0, count);
  }

  /** Reads from the `got`th byte on. */
  #readRest(
    offset: bigint,
    length: number,
    memory: PooledBuffer,
    got: number,
    reply: ReadReply,
  ): void {
    const { bytes } = memory;
    const position = Number(offset) + got;
    read(this.#fd, bytes, HEADROOM + got, length - got, position, (error, count) => {
      // 0 is the end of a file that was cut short behind our back.
      const code = error === null && count === 0 ? errno.EIO : errnoOf(error);
      if (code !== 0) {
        memory.release();
        reply.fail(code);
      } else if (got + count < length) {
        this.#readRest(offset, length, memory, got + count, reply);
      } else {
        reply.data(bytes, HEADROOM, memory);
      }
    });
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    _options: WriteOptions,
    reply: Reply,
  ): void {
    const write = { offset, bytes, start, length, reply };
    if (length > MAX_GATHERED_BYTES) {
      this.#writeRest(write, 0);
    } else if (this.#inMemory) {
      const put = countOf(() => writeSync(this.#fd, bytes, start, length, Number(offset)));
      if (put === length) reply.done(0);
      else this.#writeRest(write, put);
    } else {
      this.#writes.request(write);
    }
  }

  /** Writes from the `put`th byte on. */
  #writeRest(pending: PendingWrite, put: number): void {
    const { offset, bytes, start, length, reply } = pending;
    const position = Number(offset) + put;
    write(this.#fd, bytes, start + put, length - put, position, (error, count) => {
      const code = error === null && count === 0 ? errno.EIO : errnoOf(error);
      if (code !== 0) reply.done(code);
      else if (put + count < length) this.#writeRest(pending, put + count);
      else reply.done(0);
    });
  }

  flush(reply: Reply): void {
    this.#flush.request(reply);
  }

  /** Punches a hole, or does nothing where that cannot be: a trim is a hint. */
  trim(offset: bigint, length: bigint, _options: WriteOptions, reply: Reply): void {
    void this.#allocate(FALLOC_FL_PUNCH_HOLE, offset, length).then((code) => {
      reply.done(code === errno.EOPNOTSUPP ? 0 : code);
    });
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    void this.#zero(offset, length, options.noHole).then((code) => reply.done(code));
  }

  /** @returns 0 or a positive errno */
  async #zero(offset: bigint, length: bigint, noHole: boolean): Promise<number> {
    for (const mode of noHole
      ? [FALLOC_FL_ZERO_RANGE]
      : [FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE]) {
      const code = await this.#allocate(mode, offset, length);
      if (code !== errno.EOPNOTSUPP) return code;
    }
    return this.#writeZeroes(offset, length);
  }

  async #writeZeroes(offset: bigint, length: bigint): Promise<number> {
    const end = offset + length;
    for (let at = offset; at < end;) {
      const left = end - at;
      const count = left < BigInt(ZEROES.length) ? Number(left) : ZEROES.length;
      const code = await new Promise<number>((resolve) => {
        this.write(at, ZEROES, 0, count, { fua: false }, { done: resolve });
      });
      if (code !== 0) return code;
      at += BigInt(count);
    }
    return 0;
  }

  /** @returns 0 or a positive errno, EOPNOTSUPP where the file system has no such thing */
  async #allocate(mode: number, offset: bigint, length: bigint): Promise<number> {
    if (this.#missing.has(mode)) return errno.EOPNOTSUPP;
    const code = -(await native.fallocate(this.#fd, mode | FALLOC_FL_KEEP_SIZE, offset, length));
    if (code !== errno.EOPNOTSUPP && code !== errno.ENOSYS) return code;
    this.#missing.add(mode);
    return errno.EOPNOTSUPP;
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    if (!this.info.canExtents) {
      reply.extents([{ length, hole: false, zero: false }]);
      return;
    }
    void this.#extents(offset, length).then((found) => {
      if (typeof found === 'number') reply.fail(found);
      else reply.extents(found);
    });
  }

  /** @returns a positive errno if the file cannot be asked */
  async #extents(offset: bigint, length: bigint): Promise<Extent[] | number> {
    const end = offset + length;
    const found: Extent[] = [];
    let at = offset;
    const add = (to: bigint, hole: boolean): void => {
      // Others may change the file in between: what does not fit is asked for again.
      const stop = to < end ? to : end;
      if (stop > at) found.push({ length: stop - at, hole, zero: hole });
      at = stop > at ? stop : at;
    };
    while (at < end && found.length < MAX_EXTENTS) {
      const before = at;
      const data = await native.lseek(this.#fd, at, SEEK_DATA);
      if (data === BigInt(-errno.ENXIO)) add(end, true);
      else if (data < 0n) return this.#withoutMap(-Number(data), found, end - at);
      else add(data, true);
      if (at === end) break;
      const hole = await native.lseek(this.#fd, at, SEEK_HOLE);
      if (hole < 0n) return this.#withoutMap(-Number(hole), found, end - at);
      add(hole, false);
      if (at === before) return this.#withoutMap(errno.EINVAL, found, end - at);
    }
    return found;
  }

  /** The answer where the file system cannot tell, or not consistently: the rest may be data. */
  #withoutMap(code: number, found: Extent[], left: bigint): Extent[] | number {
    const cannotTell = [errno.EINVAL, errno.ENXIO, errno.EOPNOTSUPP].includes(code);
    if (!cannotTell) return code;
    return [...found, { length: left, hole: false, zero: false }];
  }

  close(): Promise<void> {
    this.#closed ??= new Promise((resolve) => close(this.#fd, () => resolve()));
    return this.#closed;
  }
}

/** How many bytes a call has moved; what went wrong shows where it is tried again for the rest. */
function countOf(call: () => number): number {
  try {
    return call();
  } catch {
    return 0;
  }
}

/** 0 for no error. */
function errnoOf(error: NodeJS.ErrnoException | null): number {
  return error === null ? 0 : Math.abs(error.errno ?? errno.EIO);
}
