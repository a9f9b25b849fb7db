/** The header of a request, in its two forms (doc/proto.md, "Request message"). */

import {
  Command,
  CommandFlag,
  EXTENDED_REQUEST_BYTES,
  EXTENDED_REQUEST_MAGIC,
  REQUEST_BYTES,
  REQUEST_MAGIC,
} from './constants.js';
import type { CommandType } from './constants.js';

const TWO_TO_32 = 0x1_0000_0000;

/** How long it is: the same for all requests of a connection. */
export function requestBytes(extended: boolean): number {
  return extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
}

/**
 * @param extended extended headers were agreed on
 * @param cookieHigh and the low half, 32 bits each
 * @param length at most 2^32 - 1, or 2^53 - 1 with extended headers
 */
export function putRequest(
  bytes: Buffer,
  at: number,
  extended: boolean,
  flags: number,
  type: CommandType,
  cookieHigh: number,
  cookieLow: number,
  offset: bigint,
  length: number,
): void {
  // An extended header tells by a flag that its length is that of a payload, and not of a range.
  const withPayload = extended && type === Command.WRITE ? flags | CommandFlag.PAYLOAD_LEN : flags;
  bytes.writeUInt32BE(extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC, at);
  bytes.writeUInt16BE(withPayload, at + 4);
  bytes.writeUInt16BE(type, at + 6);
  bytes.writeUInt32BE(cookieHigh, at + 8);
  bytes.writeUInt32BE(cookieLow, at + 12);
  bytes.writeBigUInt64BE(offset, at + 16);
  if (extended) {
    bytes.writeUInt32BE(Math.floor(length / TWO_TO_32), at + 24);
    bytes.writeUInt32BE(length >>> 0, at + 28);
  } else {
    bytes.writeUInt32BE(length, at + 24);
  }
}
