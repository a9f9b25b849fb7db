/** The sizes that requests must keep to (doc/proto.md, "Block size constraints"). */

import type { ByteReader } from '../bytes.js';
import type { BlockLimits } from '../disk/disk.js';
import { DEFAULT_MAX_PAYLOAD } from './constants.js';
import { ProtocolError } from './errors.js';

/**
 * For a server that could not be asked. The protocol advises to keep to multiples of 512 then, which
 * costs nothing for requests from the page cache, and makes the odd ones right on any server.
 */
export const DEFAULT_LIMITS: BlockLimits = {
  minimum: 512,
  preferred: 4096,
  maximum: DEFAULT_MAX_PAYLOAD,
};

/** For a server that was asked for its block sizes and told none: it must take any then. */
export const UNTOLD_LIMITS: BlockLimits = { ...DEFAULT_LIMITS, minimum: 1 };

const LARGEST_MINIMUM = 65536;
/** "No limit" on the wire. */
const UNLIMITED = 0xffffffff;

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value));

/**
 * A maximum below what is preferred is for exports that are shorter than that: otherwise each request of
 * ours would have to be made of many, down to single bytes.
 * @param size of the export, in bytes @throws ProtocolError
 */
export function checkBlockSizes({ preferred, maximum }: BlockLimits, size: bigint): void {
  if (maximum < Math.min(preferred, DEFAULT_MAX_PAYLOAD) && BigInt(maximum) < size) {
    throw new ProtocolError(
      `sent a maximum block size of ${maximum} and a preferred one of ${preferred}`,
    );
  }
}

/** NBD_INFO_BLOCK_SIZE behind its type. @throws ProtocolError */
export function readBlockSizes(reader: ByteReader): BlockLimits {
  const minimum = reader.u32();
  const preferred = reader.u32();
  const told = reader.u32();
  if (!isPowerOfTwo(minimum) || minimum > LARGEST_MINIMUM) {
    throw new ProtocolError(`sent a minimum block size of ${minimum}`);
  }
  if (!isPowerOfTwo(preferred) || preferred < minimum) {
    throw new ProtocolError(`sent a preferred block size of ${preferred}`);
  }
  if (told < minimum || (told !== UNLIMITED && told % minimum !== 0)) {
    throw new ProtocolError(`sent a maximum block size of ${told}`);
  }
  // Also where the server takes more: nothing of ours is longer.
  return { minimum, preferred, maximum: Math.min(told, DEFAULT_MAX_PAYLOAD) };
}
