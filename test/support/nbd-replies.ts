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

/** The same with an extended header. @param offset of the request */
export function extendedChunk(
  cookie: bigint,
  offset: bigint,
  type: number,
  done: boolean,
  payload: Buffer,
): Buffer {
  const flags = done ? REPLY_FLAG_DONE : 0;
  const header = new ByteWriter('big').u32(0x6e8a278c).u16(flags).u16(type).u64(cookie);
  return Buffer.concat([header.u64(offset).u64(BigInt(payload.length)).finish(), payload]);
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

/** Block status of extended headers. @param count of extents, 0 where it is not told */
export function statusExt(
  cookie: bigint,
  offset: bigint,
  id: number,
  extents: readonly (readonly [length: bigint, flags: number])[],
  count = extents.length,
): Buffer {
  const payload = new ByteWriter('big').u32(id).u32(count);
  for (const [length, flags] of extents) payload.u64(length).u64(BigInt(flags));
  return extendedChunk(cookie, offset, Chunk.BLOCK_STATUS_EXT, true, payload.finish());
}

/**
 * What a reply without an extended header is with one: a simple one without data, or a chunk.
 * @param offset of the request
 */
export function extended(compact: Buffer, offset: bigint): Buffer {
  const cookie = compact.readBigUInt64BE(8);
  if (compact.readUInt32BE(0) === 0x67446698) {
    const error = compact.readUInt32BE(4);
    const same = error === 0 ? none(cookie) : errorChunk(cookie, true, error);
    return extended(same, offset);
  }
  const done = (compact.readUInt16BE(4) & REPLY_FLAG_DONE) !== 0;
  const type = compact.readUInt16BE(6);
  const payload = compact.subarray(20);
  if (type !== Chunk.BLOCK_STATUS) return extendedChunk(cookie, offset, type, done, payload);
  const wide = new ByteWriter('big').u32(payload.readUInt32BE(0)).u32((payload.length - 4) / 8);
  for (let at = 4; at < payload.length; at += 8) {
    wide.u64(BigInt(payload.readUInt32BE(at))).u64(BigInt(payload.readUInt32BE(at + 4)));
  }
  return extendedChunk(cookie, offset, Chunk.BLOCK_STATUS_EXT, done, wide.finish());
}
