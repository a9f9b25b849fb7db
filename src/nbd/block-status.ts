/** What BLOCK_STATUS tells of a meta context, in its two forms (doc/proto.md, "Structured reply types"). */

import type { Extent } from '../disk/disk.js';
import { STATE_HOLE, STATE_ZERO } from './constants.js';
import { ProtocolError } from './errors.js';

/** What nbdkit sends in one reply at the most; qemu-nbd and others send less. */
const MAX_EXTENTS = 1024 * 1024;
/**
 * What is taken of them: little enough to keep. The rest is as if the server had not told it yet, as it
 * may end anywhere, and is asked for again.
 */
const MAX_TAKEN = 128 * 1024;

/** Before the extents, and for each of them: an id, a length and flags of 32 bits. */
const ID_BYTES = 4;
const EXTENT_BYTES = 8;
/** The same where lengths and flags have 64 bits; the id is followed by the number of extents. */
const EXT_ID_BYTES = 8;
const EXT_EXTENT_BYTES = 16;

/** Whether a chunk of this length is a list of at least one extent, and not of too many. */
export function isStatusLength(length: number): boolean {
  return isListLength(length, ID_BYTES, EXTENT_BYTES);
}

/** The same for BLOCK_STATUS_EXT. */
export function isStatusExtLength(length: number): boolean {
  return isListLength(length, EXT_ID_BYTES, EXT_EXTENT_BYTES);
}

function isListLength(length: number, idBytes: number, extentBytes: number): boolean {
  const list = length - idBytes;
  return list > 0 && list % extentBytes === 0 && list <= extentBytes * MAX_EXTENTS;
}

/** A stretch that is alike in the eyes of one meta context. */
export interface StatusExtent {
  /** In bytes, more than 0. */
  readonly length: bigint;
  /** What they mean depends on the context; 32 bits of them, and 64 with extended headers. */
  readonly flags: bigint;
}

/** What a server has told of a range, by the names of the contexts. */
export type BlockStatus = ReadonlyMap<string, readonly StatusExtent[]>;

/** The answer to a question for all contexts that were agreed on; exactly one call of the two. */
export interface StatusReply {
  /** Of each context at least one extent; they may tell of less than was asked, or more. */
  status(found: BlockStatus): void;
  /** @param errno a positive Linux errno */
  fail(errno: number): void;
}

/** Makes an extent of what stands in a chunk. @param high of the flags, 0 without extended headers */
export type MakeExtent<T> = (length: bigint, high: number, low: number) => T;

/** Of base:allocation. @throws ProtocolError */
export function allocationExtent(length: bigint, high: number, low: number): Extent {
  // Other meta contexts may use these bits, those of "base:" may not.
  if (high !== 0) {
    const flags = flagsOf(high, low).toString(16);
    throw new ProtocolError(`sent block status flags over 32 bits (0x${flags})`);
  }
  return { length, hole: (low & STATE_HOLE) !== 0, zero: (low & STATE_ZERO) !== 0 };
}

/** Of any context. */
export function statusExtent(length: bigint, high: number, low: number): StatusExtent {
  return { length, flags: flagsOf(high, low) };
}

const flagsOf = (high: number, low: number): bigint => (BigInt(high) << 32n) | BigInt(low);

/**
 * @param length checked before, of the chunk that stands at `at`
 * @throws ProtocolError
 */
export function readStatus<T>(
  view: DataView,
  at: number,
  length: number,
  make: MakeExtent<T>,
): T[] {
  const extents: T[] = [];
  const end = at + Math.min(length, ID_BYTES + MAX_TAKEN * EXTENT_BYTES);
  for (let i = at + ID_BYTES; i < end; i += EXTENT_BYTES) {
    extents.push(make(checked(BigInt(view.getUint32(i))), 0, view.getUint32(i + 4)));
  }
  return extents;
}

/** The same for BLOCK_STATUS_EXT. */
export function readStatusExt<T>(
  view: DataView,
  at: number,
  length: number,
  make: MakeExtent<T>,
): T[] {
  const told = view.getUint32(at + 4);
  const count = (length - EXT_ID_BYTES) / EXT_EXTENT_BYTES;
  // A server need not count them.
  if (told !== 0 && told !== count) {
    throw new ProtocolError(`sent block status of ${count} extents and said that it has ${told}`);
  }
  const extents: T[] = [];
  const end = at + Math.min(length, EXT_ID_BYTES + MAX_TAKEN * EXT_EXTENT_BYTES);
  for (let i = at + EXT_ID_BYTES; i < end; i += EXT_EXTENT_BYTES) {
    const extent = checked(view.getBigUint64(i));
    extents.push(make(extent, view.getUint32(i + 8), view.getUint32(i + 12)));
  }
  return extents;
}

/** @throws ProtocolError */
function checked(length: bigint): bigint {
  if (length === 0n) throw new ProtocolError('sent an extent of length 0');
  return length;
}
