/** Which chunks a reply may have, and how long each may be (doc/proto.md, "Structured reply types"). */

import { isStatusExtLength, isStatusLength } from './block-status.js';
import { CHUNK_ERROR_BIT, Chunk, Command, MAX_STRING } from './constants.js';
import { ProtocolError } from './errors.js';
import type { PendingCommand } from './in-flight.js';
import { commandName } from './printing.js';

/** An error chunk: value, length and text of a message, and an offset. */
const MAX_ERROR_CHUNK = 4 + 2 + MAX_STRING + 8;
/** A data chunk starts with its offset. */
export const CHUNK_OFFSET_BYTES = 8;
const HOLE_CHUNK_BYTES = CHUNK_OFFSET_BYTES + 4;

/**
 * What a chunk of this type may be to this command, and how long.
 * @param length of its payload
 * @param done it is the last one
 * @param extended extended headers were agreed on
 * @throws ProtocolError
 */
export function checkChunk(
  command: PendingCommand,
  type: number,
  length: number,
  done: boolean,
  extended: boolean,
): void {
  let allowed: boolean;
  let belongs = true;
  switch (type) {
    case Chunk.NONE:
      allowed = length === 0 && done;
      break;
    case Chunk.OFFSET_DATA:
      belongs = command.type === Command.READ;
      allowed = length > CHUNK_OFFSET_BYTES && length <= CHUNK_OFFSET_BYTES + command.length;
      break;
    case Chunk.OFFSET_HOLE:
      belongs = command.type === Command.READ;
      allowed = length === HOLE_CHUNK_BYTES;
      break;
    case Chunk.BLOCK_STATUS:
      belongs = command.type === Command.BLOCK_STATUS && !extended;
      allowed = isStatusLength(length);
      break;
    case Chunk.BLOCK_STATUS_EXT:
      belongs = command.type === Command.BLOCK_STATUS && extended;
      allowed = isStatusExtLength(length);
      break;
    default:
      belongs = (type & CHUNK_ERROR_BIT) !== 0;
      allowed = length >= (type === Chunk.ERROR_OFFSET ? 14 : 6) && length <= MAX_ERROR_CHUNK;
  }
  if (!belongs) {
    throw new ProtocolError(
      `sent a chunk of type ${type} in reply to ${commandName(command.type)}`,
    );
  }
  if (!allowed) throw wrongChunkLength(type, length);
}

export function wrongChunkLength(type: number, length: number | bigint): ProtocolError {
  return new ProtocolError(`sent a chunk of type ${type} with a length of ${length.toString()}`);
}
