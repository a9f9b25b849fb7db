/** NBD messages as a client makes them, right or wrong, and the server's as it takes them apart. */

import { ByteReader, ByteWriter } from '../../src/bytes.js';

export const hex = (text: string): Buffer => Buffer.from(text.replace(/\s+/g, ''), 'hex');

export function clientFlags(flags: number): Buffer {
  return new ByteWriter('big').u32(flags).finish();
}

export function option(type: number, data: Buffer = Buffer.alloc(0), length = data.length): Buffer {
  return new ByteWriter('big').utf8('IHAVEOPT').u32(type).u32(length).bytes(data).finish();
}

export function goData(name: string, requests: readonly number[] = []): Buffer {
  const writer = new ByteWriter('big').u32(Buffer.byteLength(name)).utf8(name);
  writer.u16(requests.length);
  for (const request of requests) writer.u16(request);
  return writer.finish();
}

export function metaData(name: string, queries: readonly string[]): Buffer {
  const writer = new ByteWriter('big').u32(Buffer.byteLength(name)).utf8(name);
  writer.u32(queries.length);
  for (const query of queries) writer.u32(Buffer.byteLength(query)).utf8(query);
  return writer.finish();
}

export interface OptionReplyMessage {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export function optionReplies(bytes: Buffer): OptionReplyMessage[] {
  const reader = new ByteReader(bytes, 'big');
  const found: OptionReplyMessage[] = [];
  while (reader.left > 0) {
    const magic = reader.u64();
    if (magic !== 0x3e889045565a9n) throw new Error(`option reply with magic ${magic}`);
    const of = reader.u32();
    const type = reader.u32();
    found.push({ option: of, type, data: reader.bytes(reader.u32()) });
  }
  return found;
}

export interface RequestFields {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: bigint;
  readonly length?: number;
  readonly payload?: Buffer;
  readonly magic?: number;
}

export function request(fields: RequestFields): Buffer {
  return new ByteWriter('big')
    .u32(fields.magic ?? 0x25609513)
    .u16(fields.flags ?? 0)
    .u16(fields.type)
    .u64(fields.cookie ?? 0n)
    .u64(fields.offset ?? 0n)
    .u32(fields.length ?? fields.payload?.length ?? 0)
    .bytes(fields.payload ?? Buffer.alloc(0))
    .finish();
}
