/** A disk made of functions that give promises, for whoever would rather not answer through reply objects. */

import pLimit from 'p-limit';
import { ErrnoError, errno, errnoOf } from '../errno.js';
import { traceDisk } from '../trace.js';
import { HEADROOM } from './disk.js';
import type {
  BlockLimits,
  Disk,
  DiskInfo,
  Extent,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from './disk.js';

/** A value, or the promise of one. */
export type Awaitable<T> = T | Promise<T>;

/** A stretch of a custom disk of one kind. */
export interface CustomExtent {
  /** In bytes, more than 0; exact up to 2^53 as a number. */
  readonly length: number | bigint;
  /** No room is allocated for it. Not so if it is left out. */
  readonly hole?: boolean | undefined;
  /** It reads as zeroes. Not so if it is left out. */
  readonly zero?: boolean | undefined;
}

/**
 * What a disk is made of: its size and a function that reads, and as much more as it can do. A class may
 * implement it; the functions are called as its methods.
 *
 * They are asked for ranges within the disk only, for none that is empty, and several of them run at once.
 * One that throws (or rejects) an error with the name of a Linux errno as its `code`, or with an `errno`,
 * as Node's own do, passes that on to whoever asked; any other error becomes EIO.
 *
 * @typeParam N `number` where the size is a number, `bigint` where it is a bigint: offsets come as the
 *   size is given
 */
export interface CustomDisk<N extends number | bigint> {
  /** In bytes, from 0 to 2^63 - 1; a number has to be a safe integer. */
  readonly size: N;
  /** Gives exactly `length` bytes; any other number of them is an error. They may be used until they are copied. */
  read(offset: N, length: number): Awaitable<Uint8Array>;
  /** Writes all of `data`, which is its own to keep. A disk without it is read-only. */
  write?(offset: N, data: Buffer): Awaitable<void>;
  /**
   * Makes durable what was written, trimmed and zeroed before. A disk without it counts as durable by the time
   * a write has been done.
   */
  flush?(): Awaitable<void>;
  /** Is told that the content of a range is no longer wanted. */
  trim?(offset: N, length: N): Awaitable<void>;
  /** Makes a range read as zeroes; with `noHole` it has to keep its room. Without it zeroes are written. */
  zero?(offset: N, length: N, options: { readonly noHole: boolean }): Awaitable<void>;
  /**
   * Tells what is where, from `offset` on: at least one extent, of less than was asked or of more. Without it
   * all of the disk is data.
   */
  extents?(offset: N, length: N): Awaitable<Iterable<CustomExtent>>;
  /** Called once at the end, when nothing else runs any more. */
  close?(): Awaitable<void>;
  /** Nothing can be written, although there is a `write`. */
  readonly readOnly?: boolean | undefined;
  /** Offsets and lengths are multiples of it: a power of two from 1, which it is if left out, to 65536. */
  readonly blockSize?: number | undefined;
  /** The most bytes of one read or write, a multiple of the block size; 32 MiB if left out. */
  readonly maximumSize?: number | undefined;
  /** How many of its functions run at once; what comes beyond that waits. 16 if left out. */
  readonly concurrency?: number | undefined;
  /** Told of each error that became EIO for want of an errno, so that a bug does not pass for a bad disk. */
  onError?(error: unknown): void;
}

/** What a disk can be at the most. */
const MAX_SIZE = 2n ** 63n - 1n;
const MAX_BLOCK = 65536;
const DEFAULT_MAXIMUM = 32 * 1024 * 1024;
const LARGEST_MAXIMUM = 1024 * 1024 * 1024;
const PREFERRED = 4096;
const DEFAULT_CONCURRENCY = 16;
/** What is taken of one list of extents; the rest is asked for again. */
const MAX_EXTENTS = 128 * 1024;

/**
 * Makes a disk of functions: to be mounted, or served over NBD.
 * @throws RangeError for a size, a block size or a maximum that no disk has
 */
export function diskOf(functions: CustomDisk<number>): Disk;
/** The same with offsets and sizes as bigint, for a disk that a number cannot count. */
// In one signature, an offset whose type is not written would be of both types.
// eslint-disable-next-line @typescript-eslint/unified-signatures
export function diskOf(functions: CustomDisk<bigint>): Disk;
export function diskOf(functions: CustomDisk<number> | CustomDisk<bigint>): Disk {
  if (typeof functions !== 'object') throw new TypeError('the functions of a disk are missing');
  if (typeof functions.size === 'bigint') {
    return new FunctionsDisk(functions as CustomDisk<bigint>, (value) => value);
  }
  if (!Number.isSafeInteger(functions.size)) {
    throw new RangeError(`the size of a disk is no whole number: ${functions.size}`);
  }
  // Exact: nothing lies beyond the size.
  return new FunctionsDisk(functions as CustomDisk<number>, Number);
}

class FunctionsDisk<N extends number | bigint> implements Disk {
  readonly info: DiskInfo;
  readonly #functions: CustomDisk<N>;
  readonly #convert: (value: bigint) => N;
  readonly #limit: ReturnType<typeof pLimit>;
  #active = 0;
  #whenIdle: (() => void) | undefined;
  #closed: Promise<void> | undefined;

  constructor(functions: CustomDisk<N>, convert: (value: bigint) => N) {
    const size = BigInt(functions.size);
    if (size < 0n || size > MAX_SIZE) {
      throw new RangeError(`the size of a disk is from 0 to 2^63 - 1: ${size.toString()}`);
    }
    const canWrite = functions.write !== undefined && functions.readOnly !== true;
    const canFlush = canWrite && functions.flush !== undefined;
    this.info = {
      size,
      readOnly: !canWrite,
      canFlush,
      // What has no flush is durable when it is answered.
      canFua: canWrite && !canFlush,
      canTrim: canWrite && functions.trim !== undefined,
      canZero: canWrite && functions.zero !== undefined,
      canExtents: functions.extents !== undefined,
      canMultiConn: true,
      rotational: false,
      limits: limitsOf(functions),
    };
    const { concurrency = DEFAULT_CONCURRENCY } = functions;
    if (!Number.isSafeInteger(concurrency) || concurrency < 1) {
      throw new RangeError(`the concurrency of a disk is a whole number over 0: ${concurrency}`);
    }
    this.#functions = functions;
    this.#convert = convert;
    this.#limit = pLimit(concurrency);
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    this.#run(
      async () => {
        const bytes = await this.#functions.read(this.#convert(offset), length);
        if (!(bytes instanceof Uint8Array) || bytes.length !== length) {
          throw new TypeError(
            `read(${offset.toString()}, ${length}) of a custom disk gave ${described(bytes)}, and has to give a Uint8Array of ${length} bytes`,
          );
        }
        // Whoever gets it may write before it, and the memory of the function is not theirs.
        const place = Buffer.allocUnsafe(HEADROOM + length);
        place.set(bytes, HEADROOM);
        return place;
      },
      (place) => reply.data(place, HEADROOM),
      (code) => reply.fail(code),
    );
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    _options: WriteOptions,
    reply: Reply,
  ): void {
    this.#change(reply, () =>
      // Ours only until the reply, which a function need not know.
      this.#functions.write?.(
        this.#convert(offset),
        Buffer.from(bytes.subarray(start, start + length)),
      ),
    );
  }

  flush(reply: Reply): void {
    if (this.info.canFlush) this.#change(reply, () => this.#functions.flush?.());
    else reply.done(0);
  }

  trim(offset: bigint, length: bigint, _options: WriteOptions, reply: Reply): void {
    const run = (): Awaitable<void> | undefined =>
      this.#functions.trim?.(this.#convert(offset), this.#convert(length));
    this.#change(reply, this.info.canTrim && run);
  }

  zero(offset: bigint, length: bigint, { noHole }: ZeroOptions, reply: Reply): void {
    const run = (): Awaitable<void> | undefined =>
      this.#functions.zero?.(this.#convert(offset), this.#convert(length), { noHole });
    this.#change(reply, this.info.canZero && run);
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    if (!this.info.canExtents) {
      reply.extents([{ length, hole: false, zero: false }]);
      return;
    }
    this.#run(
      async () => {
        const told = await this.#functions.extents?.(this.#convert(offset), this.#convert(length));
        return takeExtents(told ?? [], length);
      },
      (extents) => reply.extents(extents),
      (code) => reply.fail(code),
    );
  }

  /** @param run or false for what the disk cannot do */
  #change(reply: Reply, run: false | (() => Awaitable<void> | undefined)): void {
    if (this.info.readOnly) reply.done(errno.EROFS);
    else if (run === false) reply.done(errno.EOPNOTSUPP);
    else
      this.#run(
        async () => run(),
        () => reply.done(0),
        (code) => reply.done(code),
      );
  }

  /** Runs a function when it is its turn. What is done with the answer is no part of that: it may lead to more. */
  #run<T>(run: () => Promise<T>, answer: (value: T) => void, fail: (code: number) => void): void {
    if (this.#closed !== undefined) {
      fail(errno.EIO);
      return;
    }
    this.#active++;
    const settle = (tell: () => void): void => {
      tell();
      if (--this.#active === 0) this.#whenIdle?.();
    };
    void this.#limit(run).then(
      (value) => settle(() => answer(value)),
      (error: unknown) => settle(() => fail(this.#codeOf(error))),
    );
  }

  #codeOf(error: unknown): number {
    const code = errnoOf(error);
    traceDisk('a function of a custom disk failed: %s', error);
    if (code === undefined) this.#report(error);
    return code ?? errno.EIO;
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#active > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
    try {
      await this.#functions.close?.();
    } catch (error) {
      traceDisk('closing a custom disk failed: %s', error);
      this.#report(error);
    }
  }

  /** What it throws itself is not to keep whoever asked from their answer. */
  #report(error: unknown): void {
    queueMicrotask(() => this.#functions.onError?.(error));
  }
}

function limitsOf({
  blockSize = 1,
  maximumSize = DEFAULT_MAXIMUM,
}: Pick<CustomDisk<number>, 'blockSize' | 'maximumSize'>): BlockLimits {
  if (!Number.isInteger(Math.log2(blockSize)) || blockSize < 1 || blockSize > MAX_BLOCK) {
    throw new RangeError(`the block size is a power of two from 1 to ${MAX_BLOCK}: ${blockSize}`);
  }
  const isMultiple = Number.isSafeInteger(maximumSize / blockSize);
  if (!isMultiple || maximumSize < blockSize || maximumSize > LARGEST_MAXIMUM) {
    throw new RangeError(
      `the maximum size is a multiple of the block size, up to ${LARGEST_MAXIMUM}: ${maximumSize}`,
    );
  }
  return { minimum: blockSize, preferred: Math.max(blockSize, PREFERRED), maximum: maximumSize };
}

function described(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  return value === null ? 'null' : `a value of type ${typeof value}`;
}

/** Up to the end of what was asked. @throws ErrnoError; Error */
function takeExtents(told: Iterable<CustomExtent>, wanted: bigint): Extent[] {
  const extents: Extent[] = [];
  let covered = 0n;
  for (const { length, hole = false, zero = false } of told) {
    const bytes = BigInt(length);
    if (bytes <= 0n) throw new RangeError(`an extent of ${bytes.toString()} bytes`);
    extents.push({ length: bytes, hole, zero });
    covered += bytes;
    if (covered >= wanted || extents.length === MAX_EXTENTS) break;
  }
  if (extents.length === 0)
    throw new ErrnoError(errno.EIO, 'extents of a custom disk: there are none');
  return extents;
}
