/**
 * Takes the replies of a server apart, in the buffer in which they arrived, and answers the commands
 * they belong to. It does no I/O, and it believes nothing: whatever the protocol does not allow is a
 * ProtocolError, after which the connection is of no more use (doc/proto.md, "Transmission phase").
 */

import { HEADROOM } from '../disk/disk.js';
import type { Extent } from '../disk/disk.js';
import { traceNbd } from '../trace.js';
import {
  CHUNK_ERROR_BIT,
  Chunk,
  Command,
  MAX_STRING,
  REPLY_FLAG_DONE,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STATE_HOLE,
  STATE_ZERO,
  STRUCTURED_REPLY_BYTES,
  STRUCTURED_REPLY_MAGIC,
} from './constants.js';
import { NbdError, ProtocolError, errnoFromWire } from './errors.js';
import type { InFlight, PendingCommand } from './in-flight.js';
import { commandName, printable } from './printing.js';

/** An error chunk: value, length and text of a message, and an offset. */
const MAX_ERROR_CHUNK = 4 + 2 + MAX_STRING + 8;
/** Extents of one reply: far more than any server sends, and little enough to keep. */
const MAX_STATUS_CHUNK = 4 + 8 * 128 * 1024;
/** A data chunk starts with its offset. */
const CHUNK_OFFSET_BYTES = 8;

export class ReplyParser {
  readonly #inFlight: InFlight;
  readonly #structured: boolean;
  readonly #allocationId: number | undefined;

  /** The server has said that it is about to go: no further request is of use. */
  shuttingDown = false;

  /** How many bytes the reply at the returned position takes, as far as that is known. */
  wanted = SIMPLE_REPLY_BYTES;

  constructor(
    inFlight: InFlight,
    agreed: { readonly structuredReplies: boolean; readonly allocationId: number | undefined },
  ) {
    this.#inFlight = inFlight;
    this.#structured = agreed.structuredReplies;
    this.#allocationId = agreed.allocationId;
  }

  /**
   * Answers all commands whose replies stand whole between `start` and `end`. Before `start` at
   * least HEADROOM - SIMPLE_REPLY_BYTES bytes of `bytes` must be free to be overwritten.
   *
   * @param view of the same bytes
   * @returns where the first reply starts that is not whole, `wanted` bytes long
   * @throws ProtocolError
   */
  parse(bytes: Buffer, view: DataView, start: number, end: number): number {
    for (;;) {
      this.wanted = SIMPLE_REPLY_BYTES;
      if (end - start < SIMPLE_REPLY_BYTES) return start;
      const magic = view.getUint32(start);
      let next: number;
      if (magic === SIMPLE_REPLY_MAGIC) next = this.#simple(bytes, view, start, end);
      else if (magic === STRUCTURED_REPLY_MAGIC) next = this.#chunk(bytes, view, start, end);
      else throw new ProtocolError(`sent a reply with the wrong magic 0x${magic.toString(16)}`);
      if (next === start) return start;
      start = next;
    }
  }

  #find(view: DataView, at: number): PendingCommand {
    const command = this.#inFlight.find(view.getUint32(at), view.getUint32(at + 4));
    if (command === undefined) {
      const cookie = view.getBigUint64(at).toString(16);
      throw new ProtocolError(
        `sent a reply to a request that is not in flight (cookie 0x${cookie})`,
      );
    }
    return command;
  }

  #simple(bytes: Buffer, view: DataView, start: number, end: number): number {
    const wireError = view.getUint32(start + 4);
    const command = this.#find(view, start + 8);
    const after = start + SIMPLE_REPLY_BYTES;
    if (this.#structured && command.type === Command.READ) {
      throw new ProtocolError(
        'sent a simple reply to READ although structured replies were agreed on',
      );
    }
    if (wireError !== 0) {
      this.#fail(command, wireError, '');
      return after;
    }
    const reply = command.readReply;
    if (reply === undefined) {
      this.#succeed(command);
      return after;
    }
    const { length } = command;
    this.wanted = SIMPLE_REPLY_BYTES + length;
    if (end - start < this.wanted) return start;
    this.#inFlight.remove(command);
    reply.data(bytes, after);
    return after + length;
  }

  #chunk(bytes: Buffer, view: DataView, start: number, end: number): number {
    if (!this.#structured) {
      throw new ProtocolError('sent a structured reply although they were not agreed on');
    }
    this.wanted = STRUCTURED_REPLY_BYTES;
    if (end - start < STRUCTURED_REPLY_BYTES) return start;
    const done = (view.getUint16(start + 4) & REPLY_FLAG_DONE) !== 0;
    const type = view.getUint16(start + 6);
    const command = this.#find(view, start + 8);
    const length = view.getUint32(start + 16);
    checkChunkLength(command, type, length, done);

    // Only a chunk that stands whole is taken, so that each is taken once.
    this.wanted = STRUCTURED_REPLY_BYTES + length;
    if (end - start < this.wanted) return start;
    const at = start + STRUCTURED_REPLY_BYTES;
    const after = at + length;

    switch (type) {
      case Chunk.NONE:
        break;
      case Chunk.OFFSET_DATA: {
        const count = length - CHUNK_OFFSET_BYTES;
        const from = placeOf(command, view.getBigUint64(at), count);
        if (done && count === command.length && command.received.empty && command.errno === 0) {
          // The whole answer in one chunk: lent from where it is.
          const reply = command.readReply;
          this.#inFlight.remove(command);
          reply?.data(bytes, at + CHUNK_OFFSET_BYTES);
          return after;
        }
        noteReceived(command, from, count);
        bytes.copy(assemblyOf(command), HEADROOM + from, at + CHUNK_OFFSET_BYTES, after);
        break;
      }
      case Chunk.OFFSET_HOLE: {
        const count = view.getUint32(at + CHUNK_OFFSET_BYTES);
        const from = placeOf(command, view.getBigUint64(at), count);
        noteReceived(command, from, count);
        assemblyOf(command).fill(0, HEADROOM + from, HEADROOM + from + count);
        break;
      }
      case Chunk.BLOCK_STATUS:
        this.#blockStatus(command, view, at, length);
        break;
      default:
        this.#errorChunk(command, bytes, view, at, length, type);
    }
    if (done) this.#finish(command);
    return after;
  }

  #blockStatus(command: PendingCommand, view: DataView, at: number, length: number): void {
    const id = view.getUint32(at);
    if (id !== this.#allocationId) {
      throw new ProtocolError(
        `sent block status for a meta context that was not agreed on (id ${id})`,
      );
    }
    if (command.extents !== undefined)
      throw new ProtocolError('sent block status twice in one reply');
    const extents: Extent[] = [];
    for (let i = at + 4; i < at + length; i += 8) {
      const extent = view.getUint32(i);
      const flags = view.getUint32(i + 4);
      if (extent === 0) throw new ProtocolError('sent an extent of length 0');
      extents.push({
        length: BigInt(extent),
        hole: (flags & STATE_HOLE) !== 0,
        zero: (flags & STATE_ZERO) !== 0,
      });
    }
    command.extents = extents;
  }

  #errorChunk(
    command: PendingCommand,
    bytes: Buffer,
    view: DataView,
    at: number,
    length: number,
    type: number,
  ): void {
    const wireError = view.getUint32(at);
    const messageLength = view.getUint16(at + 4);
    if (wireError === 0) throw new ProtocolError('sent an error chunk with error 0');
    const rest = type === Chunk.ERROR_OFFSET ? 6 + CHUNK_OFFSET_BYTES : 6;
    if (messageLength > length - rest) {
      throw new ProtocolError('sent an error chunk whose message is longer than the chunk');
    }
    if (command.errno === 0) command.errno = this.#errnoOf(wireError);
    if (traceNbd.enabled) {
      const message = printable(bytes.subarray(at + 6, at + 6 + messageLength));
      traceNbd('rx %s error %d: %s', commandName(command.type), wireError, message);
    }
  }

  /** The last chunk of a reply was taken. */
  #finish(command: PendingCommand): void {
    if (command.errno !== 0) {
      this.#inFlight.fail(command, command.errno);
      return;
    }
    const { readReply, extentsReply, place, extents, length } = command;
    if (readReply !== undefined) {
      if (place === undefined || !command.received.covers(length)) {
        throw new ProtocolError('ended the reply to a read before all its data was sent');
      }
      this.#inFlight.remove(command);
      readReply.data(place, HEADROOM);
    } else if (extentsReply !== undefined) {
      if (extents === undefined) throw new ProtocolError('answered BLOCK_STATUS without an extent');
      this.#inFlight.remove(command);
      extentsReply.extents(extents);
    } else {
      this.#succeed(command);
    }
  }

  #succeed(command: PendingCommand): void {
    const { reply } = command;
    if (reply === undefined) {
      throw new ProtocolError(`answered ${commandName(command.type)} without its data`);
    }
    this.#inFlight.remove(command);
    reply.done(0);
  }

  #fail(command: PendingCommand, wireError: number, message: string): void {
    if (traceNbd.enabled) {
      traceNbd('rx %s error %d %s', commandName(command.type), wireError, message);
    }
    this.#inFlight.fail(command, this.#errnoOf(wireError));
  }

  #errnoOf(wireError: number): number {
    if (wireError === NbdError.ESHUTDOWN) this.shuttingDown = true;
    return errnoFromWire(wireError);
  }
}

/** What a chunk of this type may be to this command, and how long. @throws ProtocolError */
function checkChunkLength(
  command: PendingCommand,
  type: number,
  length: number,
  done: boolean,
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
      allowed = length === 12;
      break;
    case Chunk.BLOCK_STATUS:
      belongs = command.type === Command.BLOCK_STATUS;
      allowed = length >= 12 && length % 8 === 4 && length <= MAX_STATUS_CHUNK;
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
  if (!allowed) {
    throw new ProtocolError(`sent a chunk of type ${type} with a length of ${length}`);
  }
}

/**
 * Where a chunk of a read belongs in it, from 0 on.
 * @throws ProtocolError if any of it lies outside
 */
function placeOf(command: PendingCommand, offset: bigint, count: number): number {
  const from = offset - command.offset;
  if (count === 0 || from < 0n || from + BigInt(count) > BigInt(command.length)) {
    throw new ProtocolError(
      `sent ${count} bytes for offset ${offset.toString()} in reply to a read of ${command.length} at ${command.offset.toString()}`,
    );
  }
  return Number(from);
}

/** @throws ProtocolError if any of it was received before */
function noteReceived(command: PendingCommand, from: number, count: number): void {
  if (!command.received.add(from, from + count)) {
    const offset = command.offset + BigInt(from);
    throw new ProtocolError(`sent data for offset ${offset.toString()} twice in reply to one read`);
  }
}

function assemblyOf(command: PendingCommand): Buffer {
  command.place ??= Buffer.allocUnsafeSlow(HEADROOM + command.length);
  return command.place;
}
