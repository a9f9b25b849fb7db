/** Offsets and lengths as callers give them. */

import { LONGEST_WAIT } from '../deadline.js';

/** A place on a disk, or a length of it, in bytes: a bigint, or a number up to 2^53 - 1, which is exact. */
export type Bytes = number | bigint;

/** @throws RangeError for a number that is negative, not whole or not exact */
export function exact(value: Bytes, what: string): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new RangeError(`${what} is no exact number of bytes: ${value}`);
  }
  if (value < 0) throw new RangeError(`${what} is negative: ${value.toString()}`);
  return BigInt(value);
}

export interface Range {
  readonly offset: bigint;
  readonly length: bigint;
}

/** @throws RangeError for what is not on the disk */
export function rangeOf(length: Bytes, offset: Bytes, size: bigint): Range {
  const range = { offset: exact(offset, 'the offset'), length: exact(length, 'the length') };
  if (range.offset + range.length > size) {
    throw new RangeError(
      `${range.length.toString()} bytes at offset ${range.offset.toString()} reach past the end of the disk, which has ${size.toString()} bytes`,
    );
  }
  return range;
}

/** @param most it may be @throws RangeError */
export function milliseconds(value: number, what: string, most = LONGEST_WAIT): number {
  if (!Number.isFinite(value) || value < 0 || value > most) {
    throw new RangeError(`${what} is no number of milliseconds from 0 to ${most}: ${value}`);
  }
  return value;
}
