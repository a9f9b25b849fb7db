/** Makes the replies of the transmission phase and queues them to be sent. */

import type { Owner } from '../buffer-pool.js';
import type { Extent } from '../disk/disk.js';
import {
  Chunk,
  CommandFlag,
  REPLY_FLAG_DONE,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STATE_HOLE,
  STATE_ZERO,
  STRUCTURED_REPLY_BYTES,
  STRUCTURED_REPLY_MAGIC,
} from '../nbd/constants.js';
import { wireFromErrno } from '../nbd/errors.js';
import type { Transport } from '../transport/transport.js';
import { ALLOCATION_ID } from './export.js';
import type { Request } from './request.js';

/** A chunk of data starts with its offset. */
const OFFSET_BYTES = 8;
/** Room for so many replies without a payload between two turns; more is taken where it is needed. */
const REPLIES_STAGED = 512;
/** In one answer to BLOCK_STATUS; a client asks again from where it ends. */
const MAX_EXTENTS = 4096;
/** The longest extent that 32 bits hold, and a multiple of any block size. */
const MAX_EXTENT_LENGTH = 2n ** 32n - 65536n;

export class ReplySender {
  /** How many bytes of replies were queued so far. */
  queuedBytes = 0;
  readonly #transport: Transport;
  readonly #structured: boolean;

  // Replies without a payload are made here, one behind the other, so that they leave as one piece.
  #staging = Buffer.allocUnsafeSlow(REPLIES_STAGED * SIMPLE_REPLY_BYTES);
  #staged = 0;

  constructor(transport: Transport, structured: boolean) {
    this.#transport = transport;
    this.#structured = structured;
  }

  /** Success of a request that asks for no data. Allowed after structured replies were agreed, too. */
  success(request: Request): void {
    const at = this.#stage();
    putSimple(this.#staging, at, 0, request);
    this.#send(this.#staging, at, SIMPLE_REPLY_BYTES);
  }

  /** The data of a read, from `start` on, the header in the headroom before it. */
  data(request: Request, bytes: Buffer, start: number): void {
    const { length } = request;
    let at: number;
    if (this.#structured) {
      at = start - OFFSET_BYTES - STRUCTURED_REPLY_BYTES;
      putChunk(bytes, at, Chunk.OFFSET_DATA, OFFSET_BYTES + length, request);
      bytes.writeBigUInt64BE(request.offset, at + STRUCTURED_REPLY_BYTES);
    } else {
      at = start - SIMPLE_REPLY_BYTES;
      putSimple(bytes, at, 0, request);
    }
    this.#send(bytes, at, start - at + length, request);
  }

  /** @param code a positive Linux errno @param message for people, sent where the protocol allows it */
  error(request: Request, code: number, message: string): void {
    const value = wireFromErrno(code);
    if (!this.#structured) {
      const at = this.#stage();
      putSimple(this.#staging, at, value, request);
      this.#send(this.#staging, at, SIMPLE_REPLY_BYTES);
      return;
    }
    const text = Buffer.from(message, 'utf8');
    const payload = 6 + text.length;
    const bytes = Buffer.allocUnsafe(STRUCTURED_REPLY_BYTES + payload);
    putChunk(bytes, 0, Chunk.ERROR, payload, request);
    bytes.writeUInt32BE(value, STRUCTURED_REPLY_BYTES);
    bytes.writeUInt16BE(text.length, STRUCTURED_REPLY_BYTES + 4);
    text.copy(bytes, STRUCTURED_REPLY_BYTES + 6);
    this.#send(bytes, 0, bytes.length);
  }

  /**
   * Tells of no more than was asked for: clients written for older versions of the protocol do not
   * expect a last extent that reaches further.
   */
  extents(request: Request, extents: readonly Extent[]): void {
    const most = (request.flags & CommandFlag.REQ_ONE) !== 0 ? 1 : MAX_EXTENTS;
    const count = Math.min(extents.length, most);
    const bytes = Buffer.allocUnsafe(STRUCTURED_REPLY_BYTES + 4 + 8 * count);
    let at = STRUCTURED_REPLY_BYTES;
    bytes.writeUInt32BE(ALLOCATION_ID, at);
    at += 4;
    let left = BigInt(request.length);
    for (const extent of extents) {
      if (left === 0n || at === bytes.length) break;
      let { length } = extent;
      if (length > left) length = left;
      const cut = length > MAX_EXTENT_LENGTH;
      if (cut) length = MAX_EXTENT_LENGTH;
      bytes.writeUInt32BE(Number(length), at);
      bytes.writeUInt32BE((extent.hole ? STATE_HOLE : 0) | (extent.zero ? STATE_ZERO : 0), at + 4);
      at += 8;
      left -= length;
      if (cut) break;
    }
    putChunk(bytes, 0, Chunk.BLOCK_STATUS, at - STRUCTURED_REPLY_BYTES, request);
    this.#send(bytes, 0, at);
  }

  #send(bytes: Buffer, start: number, length: number, owner?: Owner): void {
    this.queuedBytes += length;
    this.#transport.send(bytes, start, length, owner);
  }

  /** A place for one simple reply. What is still queued to be sent is not disturbed. */
  #stage(): number {
    if (this.#transport.queuedBytes === 0) this.#staged = 0;
    if (this.#staged === this.#staging.length) {
      // The queue keeps the old one until it is sent.
      this.#staging = Buffer.allocUnsafeSlow(REPLIES_STAGED * SIMPLE_REPLY_BYTES);
      this.#staged = 0;
    }
    const at = this.#staged;
    this.#staged += SIMPLE_REPLY_BYTES;
    return at;
  }
}

/** doc/proto.md, "Simple reply message". */
function putSimple(bytes: Buffer, at: number, error: number, request: Request): void {
  bytes.writeUInt32BE(SIMPLE_REPLY_MAGIC, at);
  bytes.writeUInt32BE(error, at + 4);
  bytes.writeUInt32BE(request.cookieHigh, at + 8);
  bytes.writeUInt32BE(request.cookieLow, at + 12);
}

/** doc/proto.md, "Structured reply chunk message"; the only one of its reply. */
function putChunk(bytes: Buffer, at: number, type: number, length: number, request: Request): void {
  bytes.writeUInt32BE(STRUCTURED_REPLY_MAGIC, at);
  bytes.writeUInt16BE(REPLY_FLAG_DONE, at + 4);
  bytes.writeUInt16BE(type, at + 6);
  bytes.writeUInt32BE(request.cookieHigh, at + 8);
  bytes.writeUInt32BE(request.cookieLow, at + 12);
  bytes.writeUInt32BE(length, at + 16);
}
