/** What BLOCK_STATUS tells of base:allocation, in its two forms (doc/proto.md, "Structured reply types"). */

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

/**
 * @param length checked before, of the chunk that stands at `at`
 * @param allocationId under which base:allocation was agreed on, if it was
 * @throws ProtocolError
 */
export function readStatus(
  view: DataView,
  at: number,
  length: number,
  allocationId: number | undefined,
): Extent[] {
  checkId(view.getUint32(at), allocationId);
  const extents: Extent[] = [];
  const end = at + Math.min(length, ID_BYTES + MAX_TAKEN * EXTENT_BYTES);
  for (let i = at + ID_BYTES; i < end; i += EXTENT_BYTES) {
    extents.push(extentOf(BigInt(view.getUint32(i)), view.getUint32(i + 4)));
  }
  return extents;
}

/** The same for BLOCK_STATUS_EXT. */
export function readStatusExt(
  view: DataView,
  at: number,
  length: number,
  allocationId: number | undefined,
): Extent[] {
  checkId(view.getUint32(at), allocationId);
  const told = view.getUint32(at + 4);
  const count = (length - EXT_ID_BYTES) / EXT_EXTENT_BYTES;
  // A server need not count them.
  if (told !== 0 && told !== count) {
    throw new ProtocolError(`sent block status of ${count} extents and said that it has ${told}`);
  }
  const extents: Extent[] = [];
  const end = at + Math.min(length, EXT_ID_BYTES + MAX_TAKEN * EXT_EXTENT_BYTES);
  for (let i = at + EXT_ID_BYTES; i < end; i += EXT_EXTENT_BYTES) {
    // Other meta contexts may use these bits, those of "base:" may not.
    const high = view.getUint32(i + 8);
    if (high !== 0) {
      throw new ProtocolError(
        `sent block status flags over 32 bits (0x${view.getBigUint64(i + 8).toString(16)})`,
      );
    }
    extents.push(extentOf(view.getBigUint64(i), view.getUint32(i + 12)));
  }
  return extents;
}

function checkId(id: number, allocationId: number | undefined): void {
  if (id !== allocationId) {
    throw new ProtocolError(
      `sent block status for a meta context that was not agreed on (id ${id})`,
    );
  }
}

function extentOf(length: bigint, flags: number): Extent {
  if (length === 0n) throw new ProtocolError('sent an extent of length 0');
  return { length, hole: (flags & STATE_HOLE) !== 0, zero: (flags & STATE_ZERO) !== 0 };
}
