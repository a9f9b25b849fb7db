/**
 * The one interface in the middle: what the mount serves, what the NBD client offers, and what a
 * plugin or a filter of the embedded server implements.
 *
 * Offsets and sizes of a disk are `bigint` (a disk may be as large as 2^63 - 1 bytes, which a number
 * cannot count), lengths of something held in memory are `number`; the type checker keeps the two
 * apart. All are in bytes.
 *
 * Requests are answered through reply objects and not through promises, so that whoever asks can
 * keep and reuse the object: the data path allocates nothing for a request. `disk/promises.ts` gives
 * promises to those who do not mind.
 */

import type { Owner } from '../buffer-pool.js';

/**
 * How many bytes before a payload may be overwritten by whoever holds it. It is the room for the
 * larger of the headers that may be put in front of a payload: 32 bytes of an NBD request with
 * extended headers, 28 of a structured read reply, 16 of a FUSE reply.
 */
export const HEADROOM = 32;

/** Tells how a request ended; called exactly once for each request, at once or later. */
export interface Reply {
  /**
   * The end of the request.
   * @param errno 0, or the positive Linux errno that tells what went wrong
   */
  done(errno: number): void;

  /**
   * Of a write, where whoever asked can spare the memory of the payload. The disk calls it right before
   * `done(0)`, once at the most, to keep the payload as it is until it releases what it got. Without it,
   * or where it gives undefined, the payload is the disk's no longer than until `done`.
   */
  keep?(): Owner | undefined;
}

/** The answer to a read; exactly one call of `data` or of `fail`. */
export interface ReadReply {
  /**
   * All the bytes asked for stand in `bytes` from `start` on, and the `HEADROOM` bytes before them
   * are free to be overwritten. Both are lent for the time of this call only, unless there is an
   * owner: then they are handed over, until the owner is told to release them.
   */
  data(bytes: Buffer, start: number, owner?: Owner): void;
  /**
   * The request has failed.
   * @param errno a positive Linux errno
   */
  fail(errno: number): void;
}

/** The answer to a question for extents; exactly one call of `extents` or of `fail`. */
export interface ExtentsReply {
  /**
   * At least one extent; they follow one another from the offset asked for. They may tell of less
   * than was asked, and the last one may reach further.
   */
  extents(extents: readonly Extent[]): void;
  /**
   * The request has failed.
   * @param errno a positive Linux errno
   */
  fail(errno: number): void;
}

/** A stretch of a disk of one kind (the flags of NBD's `base:allocation`, doc/proto.md). */
export interface Extent {
  /** In bytes, more than 0. */
  readonly length: bigint;
  /** No room is allocated for it. Says nothing of what a read gives. */
  readonly hole: boolean;
  /** It reads as zeroes. */
  readonly zero: boolean;
}

/** Sizes that requests to a disk must keep to (NBD_INFO_BLOCK_SIZE in doc/proto.md). */
export interface BlockLimits {
  /** Offsets and lengths are multiples of it; a power of two from 1 to 65536. */
  readonly minimum: number;
  /** What is fast; a power of two, at least `minimum`. */
  readonly preferred: number;
  /** The most bytes a read or a write may carry; a multiple of `minimum`. */
  readonly maximum: number;
}

/** What a disk is and what it can do. Fixed for the life of the disk. */
export interface DiskInfo {
  /** In bytes. */
  readonly size: bigint;
  /** It cannot be written, trimmed or zeroed. */
  readonly readOnly: boolean;
  /** It has a volatile cache that `flush` empties. Without it, `flush` succeeds and does nothing. */
  readonly canFlush: boolean;
  /** `fua` is honoured. Without it, the flag must not be given. */
  readonly canFua: boolean;
  /** `trim` can be asked for. */
  readonly canTrim: boolean;
  /** `zero` can be asked for. */
  readonly canZero: boolean;
  /** `extents` tells more than "all is data". */
  readonly canExtents: boolean;
  /** What a flush covers does not depend on the connection that carried the write. */
  readonly canMultiConn: boolean;
  /** Seeking takes it time. */
  readonly rotational: boolean;
  /** What requests keep to. */
  readonly limits: BlockLimits;
}

/** How something is written. */
export interface WriteOptions {
  /** Durable before it is answered. */
  readonly fua: boolean;
}

/** How a range is zeroed. */
export interface ZeroOptions extends WriteOptions {
  /** The range stays allocated, so that a later write there cannot fail for want of room. */
  readonly noHole: boolean;
}

/**
 * A disk. Requests are answered through reply objects, at once or later and in any order; whoever makes them keeps
 * to what `info` allows, and asks for ranges within the disk only, for none that is empty.
 */
export interface Disk {
  /** What it is and can do. */
  readonly info: DiskInfo;

  /** Reads `length` bytes, at most `limits.maximum`. */
  read(offset: bigint, length: number, reply: ReadReply): void;

  /**
   * Writes the `length` bytes that stand in `bytes` from `start` on. The disk holds them, and the
   * `HEADROOM` bytes before them, which it may overwrite, until it has replied.
   */
  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void;

  /** Makes every write, zero and trim durable that was answered before this call. */
  flush(reply: Reply): void;

  /** Says that the content of the range is no longer wanted. What a read gives there is undefined. */
  trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void;

  /** Makes the range read as zeroes. */
  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void;

  /** Asks which parts of the range are holes and which read as zeroes. */
  extents(offset: bigint, length: bigint, reply: ExtentsReply): void;

  /** Ends the disk once all requests are answered. Does not flush. Never rejects; may be called twice. */
  close(): Promise<void>;
}

/** Durable at the next flush. */
export const NOT_DURABLE: WriteOptions = { fua: false };
/** Durable before it is answered. */
export const DURABLE: WriteOptions = { fua: true };
