/**
 * The client's handshake (doc/proto.md, "Handshake phase"), in all three forms that servers have:
 * fixed newstyle with options, newstyle that knows only the export name, and oldstyle. It does no
 * I/O: see transport/dialogue.ts.
 */

import { ByteReader, ByteWriter } from '../bytes.js';
import { traceNbd } from '../trace.js';
import { say, take } from '../transport/dialogue.js';
import type { Dialogue } from '../transport/dialogue.js';
import {
  BASE_ALLOCATION,
  CLISERV_MAGIC,
  IHAVEOPT,
  Info,
  MAX_STRING,
  NBDMAGIC,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  Option,
  OptionReply,
  TransmissionFlag,
} from './constants.js';
import { HandshakeError, ProtocolError } from './errors.js';
import type { NegotiatedExport } from './export.js';
import { DEFAULT_LIMITS, UNTOLD_LIMITS, checkBlockSizes, readBlockSizes } from './block-sizes.js';
import { isError, readOptionReply, refusal, sendOption } from './options.js';
import type { OptionAnswer } from './options.js';
import { printable } from './printing.js';

export interface HandshakeOptions {
  readonly exportName: string;
  /** Ask for structured replies; without them there is no base:allocation. */
  readonly structuredReplies?: boolean;
  /** Ask for extended headers first. They imply structured replies, and are not asked for without them. */
  readonly extendedHeaders?: boolean;
  /** Ask for base:allocation. */
  readonly allocation?: boolean;
}

/** Zeroes that end the old forms of the handshake. */
const PADDING_BYTES = 124;
/** A server has a handful of things to tell of an export. */
const MAX_INFOS = 64;
/** No disk is longer: offsets are signed in every operating system. */
const MAX_SIZE = 2n ** 63n - 1n;
const NO_DATA = Buffer.alloc(0);
const NO_TLS =
  'offers no encryption, which is asked for; without it nothing is done (nbd: in place of nbds: would take it unencrypted)';

/**
 * @returns what was agreed on; the connection is in its transmission phase
 * @throws HandshakeError if the server refuses, or the export cannot be used: the server was told
 *   that we leave; ProtocolError if it breaks the protocol
 */
export function* clientHandshake(options: HandshakeOptions): Dialogue<NegotiatedExport> {
  const offered = yield* greeting();
  return checked(yield* offered === undefined ? oldstyle(options) : newstyle(options, offered));
}

/**
 * The first half where the connection is to be encrypted: up to the agreement on that (NBD_OPT_STARTTLS).
 * Not a byte of what follows may come in the clear.
 * @throws HandshakeError if the server does not agree; there is no way on without
 */
export function* startTlsHandshake(): Dialogue<{ readonly zeroes: boolean }> {
  const offered = yield* greeting();
  if (offered === undefined) throw new HandshakeError(`the server is of an old kind and ${NO_TLS}`);
  const { fixed, zeroes } = yield* answerGreeting(offered);
  if (!fixed) throw new HandshakeError(`the server is of an old kind and ${NO_TLS}`);
  yield* sendOption(Option.STARTTLS, NO_DATA);
  const answer = yield* readOptionReply(Option.STARTTLS);
  if (isAck(answer)) return { zeroes };
  if (!isError(answer.type)) throw unexpected(answer);
  yield* stopIfFinal(answer);
  return yield* giveUp(new HandshakeError(`the server ${NO_TLS}`));
}

/** The second half, over the encrypted connection. What was agreed on before counts no more. */
export function* encryptedHandshake(
  options: HandshakeOptions,
  { zeroes }: { readonly zeroes: boolean },
): Dialogue<NegotiatedExport> {
  return checked(yield* haggle(options, zeroes));
}

/** @returns the handshake flags; undefined for a server of the oldest kind */
function* greeting(): Dialogue<number | undefined> {
  // Not all 16 bytes at once: a server of another kind may have a shorter greeting, and then wait.
  const first = yield* take(8);
  if (first.readBigUInt64BE() !== NBDMAGIC) {
    throw new ProtocolError(`does not speak NBD; it sent "${escaped(first)}"`);
  }
  const magic = (yield* take(8)).readBigUInt64BE();
  if (magic === CLISERV_MAGIC) return undefined;
  if (magic !== IHAVEOPT) {
    throw new ProtocolError(`sent a greeting of no known kind (0x${magic.toString(16)})`);
  }
  const offered = (yield* take(2)).readUInt16BE();
  if (traceNbd.enabled) traceNbd('rx greeting, handshake flags 0x%s', offered.toString(16));
  return offered;
}

function* answerGreeting(offered: number): Dialogue<{ fixed: boolean; zeroes: boolean }> {
  const echoed = offered & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  yield* say(new ByteWriter('big').u32(echoed).finish());
  return {
    fixed: (offered & NBD_FLAG_FIXED_NEWSTYLE) !== 0,
    zeroes: (offered & NBD_FLAG_NO_ZEROES) === 0,
  };
}

/** @throws ProtocolError for what no server may say of an export */
function checked(agreed: NegotiatedExport): NegotiatedExport {
  if (agreed.size > MAX_SIZE) {
    throw new ProtocolError(`sent an impossible size: ${agreed.size.toString()}`);
  }
  checkBlockSizes(agreed.limits, agreed.size);
  if (traceNbd.enabled) {
    const { size, flags, limits, structuredReplies, extendedHeaders, allocationId } = agreed;
    traceNbd(
      'export of %s bytes, flags 0x%s, blocks of %d, %d, %d bytes, structured replies %s, extended headers %s, %s %s',
      size.toString(),
      flags.toString(16),
      limits.minimum,
      limits.preferred,
      limits.maximum,
      structuredReplies,
      extendedHeaders,
      BASE_ALLOCATION,
      allocationId ?? 'none',
    );
  }
  return agreed;
}

const exportText = ({ exportName }: HandshakeOptions): string => `"${printable(exportName)}"`;

const ESCAPES: ReadonlyMap<number, string> = new Map([
  [0x09, '\\t'],
  [0x0a, '\\n'],
  [0x0d, '\\r'],
]);

/** Bytes of any kind, as one would write them in a string: `y\ny\n`. */
function escaped(bytes: Buffer): string {
  const one = (byte: number): string =>
    ESCAPES.get(byte) ??
    (byte >= 0x20 && byte < 0x7f
      ? String.fromCharCode(byte)
      : `\\x${byte.toString(16).padStart(2, '0')}`);
  return Array.from(bytes, one).join('');
}

/** The server says all there is, and does not ask which export. */
function* oldstyle(options: HandshakeOptions): Dialogue<NegotiatedExport> {
  if (options.exportName !== '') {
    throw new HandshakeError(
      `the server is of the oldest kind, which has one export without a name; it cannot give ${exportText(options)}`,
    );
  }
  const reader = new ByteReader(yield* take(8 + 4 + PADDING_BYTES), 'big');
  const size = reader.u64();
  return plainExport(size, transmissionFlags(reader.u32() & 0xffff));
}

function* newstyle(options: HandshakeOptions, offered: number): Dialogue<NegotiatedExport> {
  const { fixed, zeroes } = yield* answerGreeting(offered);
  return yield* fixed ? haggle(options, zeroes) : byName(options, zeroes);
}

/**
 * @param zeroes whether the reply to NBD_OPT_EXPORT_NAME is padded
 */
function* haggle(options: HandshakeOptions, zeroes: boolean): Dialogue<NegotiatedExport> {
  const replies = yield* replyForms(options);
  const wantsAllocation = replies.structuredReplies && (options.allocation ?? true);
  const allocationId = wantsAllocation ? yield* metaContext(options.exportName) : undefined;
  const answered = yield* go(options);
  if (answered !== undefined) return { ...answered, ...replies, allocationId };
  if (replies.extendedHeaders) {
    // NBD_OPT_EXPORT_NAME is out of the question then (doc/proto.md, NBD_OPT_EXTENDED_HEADERS).
    throw new ProtocolError('agreed to extended headers and does not know NBD_OPT_GO');
  }
  // It knows options, but not this one.
  return { ...(yield* byName(options, zeroes)), ...replies, allocationId };
}

/** In what form replies come: the first one that the server agrees to. */
function* replyForms(
  options: HandshakeOptions,
): Dialogue<{ structuredReplies: boolean; extendedHeaders: boolean }> {
  if (!(options.structuredReplies ?? true)) {
    return { structuredReplies: false, extendedHeaders: false };
  }
  if ((options.extendedHeaders ?? true) && (yield* agreesTo(Option.EXTENDED_HEADERS))) {
    return { structuredReplies: true, extendedHeaders: true };
  }
  return { structuredReplies: yield* agreesTo(Option.STRUCTURED_REPLY), extendedHeaders: false };
}

/** NBD_OPT_EXPORT_NAME: a server that refuses can only hang up. */
function* byName(options: HandshakeOptions, zeroes: boolean): Dialogue<NegotiatedExport> {
  yield* sendOption(Option.EXPORT_NAME, Buffer.from(options.exportName, 'utf8'));
  const reader = new ByteReader(yield* take(8 + 2), 'big');
  const size = reader.u64();
  const flags = transmissionFlags(reader.u16());
  if (zeroes) yield* take(PADDING_BYTES);
  return plainExport(size, flags);
}

/** Without NBD_FLAG_HAS_FLAGS no other bit means anything. */
function transmissionFlags(flags: number): number {
  return (flags & TransmissionFlag.HAS_FLAGS) === 0 ? 0 : flags;
}

function plainExport(size: bigint, flags: number): NegotiatedExport {
  return {
    size,
    flags,
    limits: DEFAULT_LIMITS,
    structuredReplies: false,
    extendedHeaders: false,
    allocationId: undefined,
  };
}

/** Asks for an option that has no data and that we can do without. */
function* agreesTo(option: number): Dialogue<boolean> {
  yield* sendOption(option, NO_DATA);
  const answer = yield* readOptionReply(option);
  if (isAck(answer)) return true;
  if (isError(answer.type)) {
    yield* stopIfFinal(answer);
    return false;
  }
  throw unexpected(answer);
}

/** Asks for base:allocation. @returns its id, or undefined where the server has none */
function* metaContext(exportName: string): Dialogue<number | undefined> {
  const name = Buffer.from(exportName, 'utf8');
  const query = Buffer.from(BASE_ALLOCATION, 'utf8');
  const request = new ByteWriter('big')
    .u32(name.length)
    .bytes(name)
    .u32(1)
    .u32(query.length)
    .bytes(query);
  yield* sendOption(Option.SET_META_CONTEXT, request.finish());
  let id: number | undefined;
  for (let i = 0; i < MAX_INFOS; i++) {
    const answer = yield* readOptionReply(Option.SET_META_CONTEXT);
    if (isAck(answer)) return id;
    if (isError(answer.type)) {
      // What came before the error does not count.
      yield* stopIfFinal(answer);
      return undefined;
    }
    if (answer.type !== OptionReply.META_CONTEXT || answer.data.length < 4) {
      throw unexpected(answer);
    }
    const context = answer.data.subarray(4).toString('utf8');
    if (context === BASE_ALLOCATION) id = answer.data.readUInt32BE(0);
    else traceNbd('the server answered with meta context %s', printable(context));
  }
  throw new ProtocolError('sent endless meta contexts');
}

/** NBD_OPT_GO. @returns undefined if the server does not know it */
function* go(
  options: HandshakeOptions,
): Dialogue<Pick<NegotiatedExport, 'size' | 'flags' | 'limits'> | undefined> {
  const name = Buffer.from(options.exportName, 'utf8');
  const request = new ByteWriter('big').u32(name.length).bytes(name).u16(1).u16(Info.BLOCK_SIZE);
  yield* sendOption(Option.GO, request.finish());
  let size: bigint | undefined;
  let flags = 0;
  let limits = UNTOLD_LIMITS;
  for (let i = 0; i < MAX_INFOS; i++) {
    const answer = yield* readOptionReply(Option.GO);
    if (answer.type === OptionReply.ERR_UNSUP) return undefined;
    if (isError(answer.type)) return yield* giveUp(refusal(answer, exportText(options)));
    if (isAck(answer)) {
      if (size === undefined) {
        throw new ProtocolError('agreed to an export without telling its size');
      }
      return { size, flags, limits };
    }
    if (answer.type !== OptionReply.INFO || answer.data.length < 2) throw unexpected(answer);
    const reader = new ByteReader(answer.data, 'big');
    switch (reader.u16()) {
      case Info.EXPORT:
        if (answer.data.length !== 12) throw unexpected(answer);
        size = reader.u64();
        flags = transmissionFlags(reader.u16());
        break;
      case Info.BLOCK_SIZE:
        if (answer.data.length !== 14) throw unexpected(answer);
        limits = readBlockSizes(reader);
        break;
      default:
      // What we did not ask for is ours to ignore.
    }
  }
  throw new ProtocolError('sent endless information about an export');
}

/** An error of an option that we can do without, unless it tells that there is no point in going on. */
function* stopIfFinal(answer: OptionAnswer): Dialogue<void> {
  if (answer.type === OptionReply.ERR_TLS_REQD || answer.type === OptionReply.ERR_SHUTDOWN) {
    yield* giveUp(refusal(answer, ''));
  }
}

/**
 * Says goodbye, and throws. A client that leaves a server which did nothing wrong has to say so
 * ("Termination of the session during option haggling"), but need not wait for the answer.
 */
function* giveUp(reason: HandshakeError): Dialogue<never> {
  yield* sendOption(Option.ABORT, NO_DATA);
  throw reason;
}

/** @throws ProtocolError for an NBD_REP_ACK that carries something */
function isAck(answer: OptionAnswer): boolean {
  if (answer.type !== OptionReply.ACK) return false;
  if (answer.data.length > 0) throw unexpected(answer);
  return true;
}

function unexpected(answer: OptionAnswer): ProtocolError {
  return new ProtocolError(
    `sent a reply of type ${answer.type} and ${answer.data.length} bytes to option ${answer.option}, which it may not`,
  );
}

/** Names are bounded by the protocol. @throws HandshakeError */
export function checkExportName(name: string): void {
  if (Buffer.byteLength(name, 'utf8') > MAX_STRING) {
    throw new HandshakeError(`the export name has more than ${MAX_STRING} bytes`);
  }
}
