/** Replies of an NBD server as bytes, right and wrong ones. */

import { Chunk, REPLY_FLAG_DONE } from '../../src/nbd/constants.js';
import { ByteWriter } from '../../src/bytes.js';

/** The cookie of the first use of the command object with this index, as the client makes it. */
export const cookieOf = (index: number, generation = 1): bigint =>
  (BigInt(generation) << 32n) | BigInt(index);

export function simpleReply(cookie: bigint, error = 0, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = new ByteWriter('big').u32(0x67446698).u32(error).u64(cookie);
  return Buffer.concat([header.finish(), data]);
}

/** A chunk of a structured reply. @param done it is the last one */
export function chunk(cookie: bigint, type: number, done: boolean, payload: Buffer): Buffer {
  const flags = done ? REPLY_FLAG_DONE : 0;
  const header = new ByteWriter('big').u32(0x668e33ef).u16(flags).u16(type).u64(cookie);
  return Buffer.concat([header.u32(payload.length).finish(), payload]);
}

export const none = (cookie: bigint): Buffer => chunk(cookie, Chunk.NONE, true, Buffer.alloc(0));

export function data(cookie: bigint, done: boolean, offset: bigint, content: Buffer): Buffer {
  const payload = new ByteWriter('big', 8 + content.length).u64(offset).bytes(content);
  return chunk(cookie, Chunk.OFFSET_DATA, done, payload.finish());
}

export function hole(cookie: bigint, done: boolean, offset: bigint, length: number): Buffer {
  const payload = new ByteWriter('big').u64(offset).u32(length);
  return chunk(cookie, Chunk.OFFSET_HOLE, done, payload.finish());
}

/** @param extents pairs of a length and flags */
export function status(
  cookie: bigint,
  done: boolean,
  id: number,
  extents: readonly (readonly [length: number, flags: number])[],
): Buffer {
  const payload = new ByteWriter('big').u32(id);
  for (const [length, flags] of extents) payload.u32(length).u32(flags);
  return chunk(cookie, Chunk.BLOCK_STATUS, done, payload.finish());
}

/** @param offset where it happened, for an ERROR_OFFSET */
export function errorChunk(
  cookie: bigint,
  done: boolean,
  error: number,
  message = '',
  offset?: bigint,
): Buffer {
  const text = Buffer.from(message);
  const payload = new ByteWriter('big').u32(error).u16(text.length).bytes(text);
  if (offset !== undefined) payload.u64(offset);
  const type = offset === undefined ? Chunk.ERROR : Chunk.ERROR_OFFSET;
  return chunk(cookie, type, done, payload.finish());
}
