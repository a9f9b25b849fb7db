/** The NBD client for scripting. */

import { fitDisk } from '../disk/fit.js';
import {
  diskExtents,
  flushDisk,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from '../disk/promises.js';
import type { BlockLimits, Disk } from '../disk/disk.js';
import { ErrnoError, errno } from '../errno.js';
import type { BlockStatus, StatusExtent } from '../nbd/block-status.js';
import { BASE_ALLOCATION } from '../nbd/constants.js';
import type { NbdDisk } from '../nbd/nbd-disk.js';
import { orAborted } from './abort.js';
import { rangeOf } from './numbers.js';
import type { Bytes, Range } from './numbers.js';

/** What every request can be given. */
export interface RequestOptions {
  /**
   * Gives the request up: it rejects with the signal's reason at once, and the answer of the server is dropped.
   * What was to be changed may be changed all the same, as NBD has no way to take a request back.
   */
  readonly signal?: AbortSignal | undefined;
}

/** What a request that changes the disk can be given. */
export interface ChangeOptions extends RequestOptions {
  /** It is answered when it is durable (FUA, or else a flush after it). */
  readonly fua?: boolean | undefined;
}

/** What `NbdClient.zero` can be given. */
export interface ZeroRequestOptions extends ChangeOptions {
  /** The range keeps its room: no later write there can fail for want of it. */
  readonly noHole?: boolean | undefined;
}

/** A stretch of a disk, as `NbdClient.extents` tells of it. */
export interface ExtentAt {
  /** Where it begins, in bytes. */
  readonly offset: bigint;
  /** In bytes, more than 0. */
  readonly length: bigint;
  /** No room is allocated for it. */
  readonly hole: boolean;
  /** It reads as zeroes. */
  readonly zero: boolean;
}

/** A stretch of a disk, as a meta context tells of it. */
export interface StatusAt {
  /** Where it begins, in bytes. */
  readonly offset: bigint;
  /** In bytes, more than 0. */
  readonly length: bigint;
  /** What they mean depends on the context: of a dirty bitmap, 1 is dirty. */
  readonly flags: bigint;
}

/** What `NbdClient.blockStatus` can be given. */
export interface BlockStatusOptions extends RequestOptions {
  /** Which one; `base:allocation` if left out. Others have to be asked for when connecting. */
  readonly context?: string | undefined;
}

/** The longest read or write; longer than anything that should be held in memory at once. */
const MOST_AT_ONCE = 1024 * 1024 * 1024;
/** The most that is asked for at once of contexts: what 32 bits can say, aligned to any block. */
const MOST_STATUS = 2n ** 32n - 65536n;

/**
 * A connection to an export. Made by `connect`.
 *
 * Requests go to the server at once, and several together, as they are made: await one before the next where
 * the order matters. Lengths come before offsets, as pread(2) and libnbd have them. Any length and offset within
 * the disk will do, whatever the block sizes of the server are. A request rejects with an `ErrnoError`: `EIO`
 * also where the server is lost, `EROFS` for a change of a disk that is read-only, `ENOTSUP` for what the server
 * cannot do, `EBADF` after `close`; and with a `RangeError` for what is not on the disk.
 */
export class NbdClient implements AsyncDisposable {
  /** Where it is connected to, as it was given. */
  readonly uri: string;
  /**
   * The export as a disk, to be mounted or served: `mount({ disk: client, at })` finds it by itself. It is the
   * client's, and closed with it.
   */
  readonly disk: Disk;
  readonly #nbd: NbdDisk;
  /** It takes any request. */
  readonly #fitted: Disk;
  #lost: Error | undefined;
  #isClosed = false;

  /** @internal */
  constructor(nbd: NbdDisk, uri: string) {
    this.uri = uri;
    this.disk = nbd;
    this.#nbd = nbd;
    this.#fitted = fitDisk(nbd, MOST_AT_ONCE);
    nbd.onLost = (reason) => (this.#lost = new Error(`the server ${reason}`));
  }

  /** In bytes. */
  get size(): bigint {
    return this.disk.info.size;
  }

  /** The disk cannot be written. */
  get readOnly(): boolean {
    return this.disk.info.readOnly;
  }

  /** The server has a volatile cache, which `flush` empties; without it a flush does nothing. */
  get canFlush(): boolean {
    return this.disk.info.canFlush;
  }

  /** The server knows FUA by itself. */
  get canFua(): boolean {
    return this.disk.info.canFua;
  }

  /** `trim` can be asked for. */
  get canTrim(): boolean {
    return this.disk.info.canTrim && !this.readOnly;
  }

  /** The server zeroes by itself; where it cannot, `zero` writes zeroes. */
  get canZero(): boolean {
    return this.disk.info.canZero && !this.readOnly;
  }

  /** `cache` can be asked for. */
  get canCache(): boolean {
    return this.#nbd.canCache;
  }

  /** The server allows several connections to the export (multi-conn). */
  get canMultiConn(): boolean {
    return this.disk.info.canMultiConn;
  }

  /** As the server told them; see `BlockLimits`. */
  get blockSizes(): BlockLimits {
    return this.disk.info.limits;
  }

  /** The meta contexts that `blockStatus` can tell of. */
  get contexts(): readonly string[] {
    return this.#nbd.contexts;
  }

  /** How many connections are in use. */
  get connections(): number {
    return this.#nbd.connections;
  }

  /**
   * Reads.
   * @param length in bytes, at most 1 GiB
   * @param offset in bytes
   * @returns a buffer of its own with exactly so many bytes
   */
  async pread(length: number, offset: Bytes, options: RequestOptions = {}): Promise<Buffer> {
    const range = this.#range('pread', length, offset, options);
    bounded(length);
    if (length === 0) return Buffer.alloc(0);
    return this.#ask('pread', options, readDisk(this.#fitted, range.offset, length));
  }

  /**
   * Writes all of `data`, which may be changed as soon as this returns.
   * @param data at most 1 GiB
   * @param offset in bytes
   */
  async pwrite(data: Uint8Array, offset: Bytes, options: ChangeOptions = {}): Promise<void> {
    const range = this.#changeRange('pwrite', data.length, offset, options);
    bounded(data.length);
    if (data.length === 0) return;
    const fua = this.#fua(options);
    await this.#ask('pwrite', options, writeDisk(this.#fitted, range.offset, data, { fua }));
    await this.#thenFlush(options, fua);
  }

  /** Makes durable what was written, zeroed and trimmed by requests that were answered before. */
  async flush(options: RequestOptions = {}): Promise<void> {
    this.#check('flush', options);
    await this.#ask('flush', options, flushDisk(this.#fitted));
  }

  /**
   * Says that the content of a range is no longer wanted; what a read gives there is undefined.
   * @param length in bytes
   * @param offset in bytes
   */
  async trim(length: Bytes, offset: Bytes, options: ChangeOptions = {}): Promise<void> {
    const range = this.#changeRange('trim', length, offset, options);
    if (!this.canTrim) throw notOffered('trim');
    if (range.length === 0n) return;
    const fua = this.#fua(options);
    const asked = trimDisk(this.#fitted, range.offset, range.length, { fua });
    await this.#ask('trim', options, asked);
    await this.#thenFlush(options, fua);
  }

  /**
   * Makes a range read as zeroes, as cheaply as the server can.
   * @param length in bytes
   * @param offset in bytes
   */
  async zero(length: Bytes, offset: Bytes, options: ZeroRequestOptions = {}): Promise<void> {
    const range = this.#changeRange('zero', length, offset, options);
    if (range.length === 0n) return;
    const how = { fua: this.#fua(options), noHole: options.noHole ?? false };
    const asked = zeroDisk(this.#fitted, range.offset, range.length, how);
    await this.#ask('zero', options, asked);
    await this.#thenFlush(options, how.fua);
  }

  /**
   * Asks the server to have a range at hand for reads to come (NBD_CMD_CACHE).
   * @param length in bytes
   * @param offset in bytes
   */
  async cache(length: Bytes, offset: Bytes, options: RequestOptions = {}): Promise<void> {
    const range = this.#range('cache', length, offset, options);
    if (!this.canCache) throw notOffered('cache');
    if (range.length === 0n) return;
    const asked = new Promise<void>((resolve, reject) => {
      this.#nbd.cache(range.offset, range.length, {
        done: (code) => (code === 0 ? resolve() : reject(new ErrnoError(code, 'cache'))),
      });
    });
    await this.#ask('cache', options, asked);
  }

  /**
   * Tells which parts of a range are holes, and which read as zeroes (base:allocation), from its start to its
   * end. Where the server cannot tell, all of it is data.
   *
   * ```ts
   * for await (const { offset, length, hole } of client.extents(client.size, 0)) { ... }
   * ```
   * @param length in bytes
   * @param offset in bytes
   */
  extents(
    length: Bytes,
    offset: Bytes,
    options: RequestOptions = {},
  ): AsyncGenerator<ExtentAt, void> {
    return this.#stretches('extents', length, offset, options, (at, left) =>
      diskExtents(this.#fitted, at, left),
    );
  }

  /**
   * Tells what a meta context says of a range, from its start to its end.
   * @param length in bytes
   * @param offset in bytes
   */
  blockStatus(
    length: Bytes,
    offset: Bytes,
    options: BlockStatusOptions = {},
  ): AsyncGenerator<StatusAt, void> {
    const { context = BASE_ALLOCATION } = options;
    return this.#stretches('blockStatus', length, offset, options, async (at, left) => {
      if (!this.contexts.includes(context)) throw notOffered(context);
      const skip = at % BigInt(this.blockSizes.minimum);
      const found = await this.#status(at - skip, left + skip);
      return withoutStart(found.get(context) ?? [], skip);
    });
  }

  #status(offset: bigint, length: bigint): Promise<BlockStatus> {
    const block = BigInt(this.blockSizes.minimum);
    const whole = length % block === 0n ? length : length + block - (length % block);
    // A disk may end in the middle of a block.
    const asked = min(min(whole, this.size - offset), MOST_STATUS);
    return new Promise((resolve, reject) => {
      this.#nbd.status(offset, Number(asked), {
        status: resolve,
        fail: (code) => reject(new ErrnoError(code, 'blockStatus')),
      });
    });
  }

  /** Asks again until all of a range is told. */
  async *#stretches<T extends { readonly length: bigint }>(
    what: string,
    length: Bytes,
    start: Bytes,
    options: RequestOptions,
    ask: (offset: bigint, length: bigint) => Promise<readonly T[]>,
  ): AsyncGenerator<T & { readonly offset: bigint }, void> {
    const range = this.#range(what, length, start, options);
    const end = range.offset + range.length;
    for (let offset = range.offset; offset < end;) {
      this.#check(what, options);
      const found = await this.#ask(what, options, ask(offset, end - offset));
      if (found.length === 0) throw new ErrnoError(errno.EIO, what);
      for (const extent of found) {
        const left = end - offset;
        if (left <= 0n) return;
        const cut = min(extent.length, left);
        yield { ...extent, offset, length: cut };
        offset += cut;
      }
    }
  }

  /**
   * Ends the connection when all requests are answered, which is waited for up to 10 s. It does not flush. Never
   * rejects; may be called twice.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#nbd.close();
  }

  /** The same as `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @throws ErrnoError; the signal's reason */
  #check(what: string, { signal }: RequestOptions): void {
    signal?.throwIfAborted();
    if (this.#isClosed) throw new ErrnoError(errno.EBADF, what);
  }

  #range(what: string, length: Bytes, offset: Bytes, options: RequestOptions): Range {
    this.#check(what, options);
    return rangeOf(length, offset, this.size);
  }

  #changeRange(what: string, length: Bytes, offset: Bytes, options: ChangeOptions): Range {
    const range = this.#range(what, length, offset, options);
    if (this.readOnly) throw new ErrnoError(errno.EROFS, what);
    if (options.fua === true && !this.canFua && !this.canFlush) {
      throw notOffered(`${what} with fua`);
    }
    return range;
  }

  /** Whether the flag can be given. */
  #fua({ fua = false }: ChangeOptions): boolean {
    return fua && this.canFua;
  }

  async #thenFlush(options: ChangeOptions, fua: boolean): Promise<void> {
    if (options.fua === true && !fua) await this.flush(options);
  }

  async #ask<T>(what: string, { signal }: RequestOptions, asked: Promise<T>): Promise<T> {
    try {
      return await orAborted(asked, signal);
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error;
      const cause = this.#lost ?? (error.cause instanceof Error ? error.cause : undefined);
      throw new ErrnoError(error.errno, what, cause);
    }
  }
}

const notOffered = (what: string): ErrnoError =>
  new ErrnoError(errno.ENOTSUP, what, new Error('the server does not offer it'));

const min = (a: bigint, b: bigint): bigint => (a < b ? a : b);

/** Extents without what lies before the range that was asked for. */
function withoutStart(extents: readonly StatusExtent[], skip: bigint): StatusExtent[] {
  const left: StatusExtent[] = [];
  for (const extent of extents) {
    const cut = min(skip, extent.length);
    skip -= cut;
    if (extent.length > cut) left.push({ ...extent, length: extent.length - cut });
  }
  return left;
}

/** @throws RangeError */
function bounded(length: number): void {
  if (length > MOST_AT_ONCE) {
    throw new RangeError(`a request has at most ${MOST_AT_ONCE} bytes: ${length}`);
  }
}
