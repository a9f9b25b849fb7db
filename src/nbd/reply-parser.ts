/**
 * Takes the replies of a server apart, in the buffer in which they arrived, and answers the commands
 * they belong to. It does no I/O, and it believes nothing: whatever the protocol does not allow is a
 * ProtocolError, after which the connection is of no more use (doc/proto.md, "Transmission phase").
 */

import { HEADROOM } from '../disk/disk.js';
import { traceNbd } from '../trace.js';
import { allocationExtent, readStatus, readStatusExt, statusExtent } from './block-status.js';
import { CHUNK_OFFSET_BYTES, checkChunk, wrongChunkLength } from './chunk-rules.js';
import {
  BASE_ALLOCATION,
  Chunk,
  Command,
  EXTENDED_REPLY_BYTES,
  EXTENDED_REPLY_MAGIC,
  REPLY_FLAG_DONE,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_BYTES,
  STRUCTURED_REPLY_MAGIC,
} from './constants.js';
import { NbdError, ProtocolError, errnoFromWire } from './errors.js';
import type { NegotiatedExport } from './export.js';
import type { InFlight, PendingCommand } from './in-flight.js';
import { commandName, printable } from './printing.js';
import { keepData, keepHole, placeOf } from './read-assembly.js';

/** How many errors one reply may tell of; the longest read has 65536 sectors that may be bad. */
const MAX_ERROR_CHUNKS = 65536;

/** What decides the form of replies. */
type Agreed = Pick<
  NegotiatedExport,
  'structuredReplies' | 'extendedHeaders' | 'allocationId' | 'contexts'
>;

export class ReplyParser {
  readonly #inFlight: InFlight;
  readonly #structured: boolean;
  readonly #extended: boolean;
  /** Of a reply in chunks, which may be the only kind there is. */
  readonly #chunkMagic: number;
  readonly #chunkHeaderBytes: number;
  /** Of the shortest reply. */
  readonly #leastBytes: number;
  /** The names of the meta contexts that were agreed on, by id. */
  readonly #contexts = new Map<number, string>();

  /** The server has said that it is about to go: no further request is of use. */
  shuttingDown = false;

  /** How many bytes the reply at the returned position takes, as far as that is known. */
  wanted: number;

  constructor(inFlight: InFlight, agreed: Agreed) {
    this.#inFlight = inFlight;
    this.#structured = agreed.structuredReplies;
    this.#extended = agreed.extendedHeaders;
    this.#chunkMagic = this.#extended ? EXTENDED_REPLY_MAGIC : STRUCTURED_REPLY_MAGIC;
    this.#chunkHeaderBytes = this.#extended ? EXTENDED_REPLY_BYTES : STRUCTURED_REPLY_BYTES;
    this.#leastBytes = this.#extended ? EXTENDED_REPLY_BYTES : SIMPLE_REPLY_BYTES;
    this.wanted = this.#leastBytes;
    for (const [name, id] of agreed.contexts ?? []) this.#contexts.set(id, name);
    if (agreed.allocationId !== undefined) {
      this.#contexts.set(agreed.allocationId, BASE_ALLOCATION);
    }
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
      this.wanted = this.#leastBytes;
      // Enough to see what it is, also where it is none of those that we would wait longer for.
      if (end - start < SIMPLE_REPLY_BYTES) return start;
      const magic = view.getUint32(start);
      let next: number;
      if (magic === SIMPLE_REPLY_MAGIC) next = this.#simple(bytes, view, start, end);
      else if (magic === this.#chunkMagic) next = this.#chunk(bytes, view, start, end);
      else throw this.#wrongMagic(magic);
      if (next === start) return start;
      start = next;
    }
  }

  #wrongMagic(magic: number): ProtocolError {
    if (magic === STRUCTURED_REPLY_MAGIC) {
      return new ProtocolError('sent a structured reply although extended headers were agreed on');
    }
    if (magic === EXTENDED_REPLY_MAGIC) {
      return new ProtocolError('sent an extended header although they were not agreed on');
    }
    return new ProtocolError(`sent a reply with the wrong magic 0x${magic.toString(16)}`);
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
    if (this.#extended) {
      throw new ProtocolError('sent a simple reply although extended headers were agreed on');
    }
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
    const headerBytes = this.#chunkHeaderBytes;
    this.wanted = headerBytes;
    if (end - start < headerBytes) return start;
    const done = (view.getUint16(start + 4) & REPLY_FLAG_DONE) !== 0;
    const type = view.getUint16(start + 6);
    const command = this.#find(view, start + 8);
    const length = this.#extended
      ? extendedLength(command, view, start, type)
      : view.getUint32(start + 16);
    checkChunk(command, type, length, done, this.#extended);

    // Only a chunk that stands whole is taken, so that each is taken once.
    this.wanted = headerBytes + length;
    if (end - start < this.wanted) return start;
    const at = start + headerBytes;
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
        keepData(command, from, bytes, at + CHUNK_OFFSET_BYTES, after);
        break;
      }
      case Chunk.OFFSET_HOLE: {
        const count = view.getUint32(at + CHUNK_OFFSET_BYTES);
        keepHole(command, placeOf(command, view.getBigUint64(at), count), count);
        break;
      }
      case Chunk.BLOCK_STATUS:
        this.#keepStatus(command, view, at, length, readStatus);
        break;
      case Chunk.BLOCK_STATUS_EXT:
        this.#keepStatus(command, view, at, length, readStatusExt);
        break;
      default:
        this.#errorChunk(command, bytes, view, at, length, type);
    }
    if (done) this.#finish(command);
    return after;
  }

  /**
   * There is one chunk for each context that was agreed on, whichever of them the command is about.
   * @throws ProtocolError
   */
  #keepStatus(
    command: PendingCommand,
    view: DataView,
    at: number,
    length: number,
    read: typeof readStatus,
  ): void {
    const id = view.getUint32(at);
    const context = this.#contexts.get(id);
    if (context === undefined) {
      throw new ProtocolError(
        `sent block status for a meta context that was not agreed on (id ${id})`,
      );
    }
    const forExtents = command.statusReply === undefined;
    const isExtents = forExtents && context === BASE_ALLOCATION;
    if (isExtents ? command.extents !== undefined : command.statuses?.has(context) === true) {
      throw new ProtocolError('sent block status twice in one reply');
    }
    if (isExtents) {
      command.extents = read(view, at, length, allocationExtent);
    } else {
      // Of a context that nobody asks about it is kept that it was there: not even that may come without end.
      command.statuses ??= new Map();
      command.statuses.set(context, forExtents ? [] : read(view, at, length, statusExtent));
    }
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
    // They move nothing on, so that there could be more of them for ever.
    if (++command.errorChunks > MAX_ERROR_CHUNKS) {
      throw new ProtocolError(`sent endless errors in reply to one ${commandName(command.type)}`);
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
      this.#inFlight.refuse(command, command.errno);
      return;
    }
    const { readReply, extentsReply, statusReply, place, extents, statuses, length } = command;
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
    } else if (statusReply !== undefined) {
      if (statuses === undefined)
        throw new ProtocolError('answered BLOCK_STATUS without an extent');
      this.#inFlight.remove(command);
      statusReply.status(statuses);
    } else {
      this.#succeed(command);
    }
  }

  #succeed(command: PendingCommand): void {
    const { reply } = command;
    if (reply === undefined) {
      throw new ProtocolError(`answered ${commandName(command.type)} without its data`);
    }
    this.#inFlight.succeed(command, reply);
  }

  #fail(command: PendingCommand, wireError: number, message: string): void {
    if (traceNbd.enabled) {
      traceNbd('rx %s error %d %s', commandName(command.type), wireError, message);
    }
    this.#inFlight.refuse(command, this.#errnoOf(wireError));
  }

  #errnoOf(wireError: number): number {
    if (wireError === NbdError.ESHUTDOWN) this.shuttingDown = true;
    return errnoFromWire(wireError);
  }
}

/**
 * The length of a chunk's payload from an extended header, whose offset has to be that of the request.
 * @throws ProtocolError
 */
function extendedLength(
  command: PendingCommand,
  view: DataView,
  start: number,
  type: number,
): number {
  const offset = view.getBigUint64(start + 16);
  if (offset !== command.offset) {
    throw new ProtocolError(
      `sent a reply with offset ${offset.toString()} to a request with offset ${command.offset.toString()}`,
    );
  }
  // No chunk is allowed to be so long, whatever its type.
  if (view.getUint32(start + 24) !== 0) {
    throw wrongChunkLength(type, view.getBigUint64(start + 24));
  }
  return view.getUint32(start + 28);
}
