/**
 * The server's half of the fixed newstyle handshake (doc/proto.md, "Newstyle negotiation"): bytes in,
 * bytes out. TLS and extended headers are not offered.
 */

import { ByteReader, ByteWriter, ShortReadError } from '../bytes.js';
import {
  BASE_ALLOCATION,
  IHAVEOPT,
  Info,
  MAX_STRING,
  NBDMAGIC,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
} from '../nbd/constants.js';
import { ProtocolError } from '../nbd/errors.js';
import { traceServer } from '../trace.js';
import { say, take } from '../transport/dialogue.js';
import type { Dialogue } from '../transport/dialogue.js';
import { ALLOCATION_ID, transmissionFlags } from './export.js';
import type { Agreed, Export } from './export.js';

const HANDSHAKE_FLAGS = NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES;
/** The zeroes after the answer to EXPORT_NAME, from the days before NO_ZEROES. */
const RESERVED_ZEROES = 124;

/** The longest data of an option that is looked at: a name and many queries. */
const MAX_OPTION_BYTES = 64 * 1024;
/** Up to here options that are too long are skipped and refused, all together; who sends more is cut off. */
const MAX_SKIPPED_BYTES = 1024 * 1024;
/** More than any client needs to make up its mind. */
const MAX_OPTIONS = 128;

interface Outcome {
  readonly replies: readonly Buffer[];
  /** What comes after them; the next option where neither is there. */
  readonly agreed?: Agreed;
  readonly aborted?: true;
}

/** What the options so far have led to. */
interface Haggling {
  readonly offered: Export;
  readonly name: Buffer;
  readonly noZeroes: boolean;
  structuredReplies: boolean;
  /** For which name base:allocation is selected. */
  allocationFor: Buffer | undefined;
}

type Handler = (state: Haggling, data: ByteReader, option: number) => Outcome;

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [Option.EXPORT_NAME, exportName],
  [Option.ABORT, abort],
  [Option.LIST, list],
  [Option.INFO, info],
  [Option.GO, info],
  [Option.STRUCTURED_REPLY, structuredReply],
  [Option.LIST_META_CONTEXT, metaContext],
  [Option.SET_META_CONTEXT, metaContext],
]);

/**
 * @returns what was agreed for the transmission phase, which follows at once; undefined where the
 *   client left in good order
 * @throws ProtocolError on what leaves no answer but to hang up
 */
export function* handshake(offered: Export): Dialogue<Agreed | undefined> {
  yield* say(new ByteWriter('big').u64(NBDMAGIC).u64(IHAVEOPT).u16(HANDSHAKE_FLAGS).finish());
  const clientFlags = (yield* take(4)).readUInt32BE();
  if ((clientFlags & ~HANDSHAKE_FLAGS) !== 0) {
    throw new ProtocolError(`sent client flags that it was not offered: ${clientFlags}`);
  }
  const state: Haggling = {
    offered,
    name: Buffer.from(offered.name, 'utf8'),
    noZeroes: (clientFlags & NBD_FLAG_NO_ZEROES) !== 0,
    structuredReplies: false,
    allocationFor: undefined,
  };
  const fixed = (clientFlags & NBD_FLAG_FIXED_NEWSTYLE) !== 0;
  let skippable = MAX_SKIPPED_BYTES;

  for (let count = 0; count < MAX_OPTIONS; count++) {
    const header = new ByteReader(yield* take(16), 'big');
    if (header.u64() !== IHAVEOPT) throw new ProtocolError('sent an option with the wrong magic');
    const option = header.u32();
    const length = header.u32();
    traceServer('rx option %d, %d bytes', option, length);
    if (!fixed && option !== Option.EXPORT_NAME) {
      throw new ProtocolError('sent an option without having agreed on fixed newstyle');
    }
    if (length > MAX_OPTION_BYTES) {
      if (length > skippable || option === Option.EXPORT_NAME) {
        throw new ProtocolError(`sent an option of ${length} bytes`);
      }
      skippable -= length;
      yield* skip(length);
      yield* say(refusal(option, OptionReply.ERR_TOO_BIG, 'the option is too long'));
      continue;
    }
    const outcome = answer(state, option, yield* take(length));
    for (const reply of outcome.replies) yield* say(reply);
    if (outcome.agreed !== undefined || outcome.aborted === true) return outcome.agreed;
  }
  throw new ProtocolError(`sent more than ${MAX_OPTIONS} options`);
}

function* skip(length: number): Dialogue<void> {
  for (let left = length; left > 0; left -= MAX_OPTION_BYTES) {
    yield* take(Math.min(left, MAX_OPTION_BYTES));
  }
}

function answer(state: Haggling, option: number, data: Buffer): Outcome {
  const handler = HANDLERS.get(option);
  if (handler === undefined) {
    return refused(option, OptionReply.ERR_UNSUP, 'the option is not known to this server');
  }
  try {
    return handler(state, new ByteReader(data, 'big'), option);
  } catch (error) {
    if (!(error instanceof ShortReadError)) throw error;
    return refused(option, OptionReply.ERR_INVALID, 'the option is shorter than it says');
  }
}

/** The old way in: it has no answer that says no. */
function exportName(state: Haggling, data: ByteReader): Outcome {
  const name = data.bytes(data.left);
  if (!isServed(state, name)) throw new ProtocolError('asked for an export that there is not');
  const { info: disk } = state.offered;
  const reply = new ByteWriter('big')
    .u64(disk.size)
    .u16(transmissionFlags(disk, state.structuredReplies))
    .zeroes(state.noZeroes ? 0 : RESERVED_ZEROES)
    .finish();
  return { replies: [reply], agreed: agreement(state, name) };
}

function abort(_state: Haggling, _data: ByteReader, option: number): Outcome {
  return { replies: [message(option, OptionReply.ACK)], aborted: true };
}

function list(state: Haggling, data: ByteReader, option: number): Outcome {
  if (data.left > 0) return refused(option, OptionReply.ERR_INVALID, 'LIST takes no data');
  const entry = new ByteWriter('big').u32(state.name.length).bytes(state.name).finish();
  return accepted(option, message(option, OptionReply.SERVER, entry));
}

/** GO is INFO, and then the transmission phase. */
function info(state: Haggling, data: ByteReader, option: number): Outcome {
  const name = data.bytes(data.u32());
  const requests: number[] = [];
  for (let count = data.u16(); count > 0; count--) requests.push(data.u16());
  if (data.left > 0) {
    return refused(option, OptionReply.ERR_INVALID, 'the option is longer than it says');
  }
  const no = refusedName(state, option, name);
  if (no !== undefined) return no;

  const { info: disk } = state.offered;
  const tell = (content: ByteWriter): Buffer => message(option, OptionReply.INFO, content.finish());
  const replies = [
    tell(
      new ByteWriter('big')
        .u16(Info.EXPORT)
        .u64(disk.size)
        .u16(transmissionFlags(disk, state.structuredReplies)),
    ),
    // Also to those who do not ask: who does not understand it ignores it.
    tell(
      new ByteWriter('big')
        .u16(Info.BLOCK_SIZE)
        .u32(disk.limits.minimum)
        .u32(disk.limits.preferred)
        .u32(disk.limits.maximum),
    ),
  ];
  if (requests.includes(Info.NAME)) {
    replies.push(tell(new ByteWriter('big').u16(Info.NAME).bytes(state.name)));
  }
  const outcome = accepted(option, ...replies);
  return option === Option.GO ? { ...outcome, agreed: agreement(state, name) } : outcome;
}

function structuredReply(state: Haggling, data: ByteReader, option: number): Outcome {
  if (data.left > 0) {
    return refused(option, OptionReply.ERR_INVALID, 'STRUCTURED_REPLY takes no data');
  }
  state.structuredReplies = true;
  return accepted(option);
}

/**
 * LIST_META_CONTEXT and SET_META_CONTEXT (doc/proto.md, "Metadata querying"). To list, `base:` stands
 * for all of its namespace, and no query at all for all there is; to set, both select nothing.
 */
function metaContext(state: Haggling, data: ByteReader, option: number): Outcome {
  const setting = option === Option.SET_META_CONTEXT;
  // "replaces all previously-set metadata contexts (including when this command fails)"
  if (setting) state.allocationFor = undefined;
  if (setting && !state.structuredReplies) {
    return refused(option, OptionReply.ERR_INVALID, 'structured replies come first');
  }
  const name = data.bytes(data.u32());
  const count = data.u32();
  let matches = count === 0 && !setting;
  for (let i = 0; i < count; i++) {
    const query = data.bytes(data.u32());
    if (query.length > MAX_STRING) {
      return refused(option, OptionReply.ERR_INVALID, 'the query is too long');
    }
    const text = query.toString('latin1');
    if (text === BASE_ALLOCATION || (!setting && text === 'base:')) matches = true;
  }
  if (data.left > 0) {
    return refused(option, OptionReply.ERR_INVALID, 'the option is longer than it says');
  }
  const no = refusedName(state, option, name);
  if (no !== undefined) return no;
  if (!matches) return accepted(option);
  if (setting) state.allocationFor = name;
  const context = new ByteWriter('big')
    .u32(setting ? ALLOCATION_ID : 0)
    .utf8(BASE_ALLOCATION)
    .finish();
  return accepted(option, message(option, OptionReply.META_CONTEXT, context));
}

function isServed(state: Haggling, name: Buffer): boolean {
  return name.length === 0 || name.equals(state.name);
}

function refusedName(state: Haggling, option: number, name: Buffer): Outcome | undefined {
  if (name.length > MAX_STRING) {
    return refused(option, OptionReply.ERR_INVALID, 'the name of the export is too long');
  }
  if (isServed(state, name)) return undefined;
  return refused(option, OptionReply.ERR_UNKNOWN, 'there is no export of that name');
}

/** A context that was selected for another name than the one used in the end does not count. */
function agreement(state: Haggling, name: Buffer): Agreed {
  return {
    structuredReplies: state.structuredReplies,
    allocation: state.allocationFor?.equals(name) === true,
  };
}

function accepted(option: number, ...replies: Buffer[]): Outcome {
  return { replies: [...replies, message(option, OptionReply.ACK)] };
}

function refused(option: number, type: number, reason: string): Outcome {
  return { replies: [refusal(option, type, reason)] };
}

function refusal(option: number, type: number, reason: string): Buffer {
  traceServer('tx option %d refused: %s', option, reason);
  return message(option, type, Buffer.from(reason, 'utf8'));
}

/** An option reply. */
function message(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return new ByteWriter('big', 20 + data.length)
    .u64(OPTION_REPLY_MAGIC)
    .u32(option)
    .u32(type)
    .u32(data.length)
    .bytes(data)
    .finish();
}
