/**
 * The client's handshake (doc/proto.md, "Handshake phase"), in all three forms that servers have:
 * fixed newstyle with options, newstyle that knows only the export name, and oldstyle. It does no
 * I/O: see transport/dialogue.ts.
 */

import { ByteReader } from '../bytes.js';
import { traceNbd } from '../trace.js';
import { take } from '../transport/dialogue.js';
import type { Dialogue } from '../transport/dialogue.js';
import { DEFAULT_LIMITS, checkBlockSizes } from './block-sizes.js';
import { BASE_ALLOCATION, Info, MAX_STRING, Option, OptionReply } from './constants.js';
import { HandshakeError, ProtocolError } from './errors.js';
import { askExport, transmissionFlags } from './export-info.js';
import type { NegotiatedExport } from './export.js';
import { answerGreeting, greeting } from './greeting.js';
import { setMetaContexts } from './meta-contexts.js';
import {
  giveUp,
  isAck,
  isError,
  readOptionReply,
  refusal,
  sendOption,
  stopIfFinal,
  unexpected,
} from './options.js';
import { printable } from './printing.js';

export interface HandshakeOptions {
  readonly exportName: string;
  /** Ask for structured replies; without them there is no base:allocation. */
  readonly structuredReplies?: boolean;
  /** Ask for extended headers first. They imply structured replies, and are not asked for without them. */
  readonly extendedHeaders?: boolean;
  /** Ask for base:allocation. */
  readonly allocation?: boolean;
  /** Further meta contexts to be asked for, as `qemu:dirty-bitmap:NAME`; they need structured replies. */
  readonly contexts?: readonly string[] | undefined;
}

/** Zeroes that end the old forms of the handshake. */
const PADDING_BYTES = 124;
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
  if (offered === undefined) throw withoutTls('is of an old kind and ');
  const { fixed, zeroes } = yield* answerGreeting(offered);
  if (!fixed) throw withoutTls('is of an old kind and ');
  yield* sendOption(Option.STARTTLS, NO_DATA);
  const answer = yield* readOptionReply(Option.STARTTLS);
  if (isAck(answer)) return { zeroes };
  if (!isError(answer.type)) throw unexpected(answer);
  yield* stopIfFinal(answer);
  return yield* giveUp(withoutTls());
}

/** @param also what else there is to be said of the server */
const withoutTls = (also = ''): HandshakeError =>
  new HandshakeError(`the server ${also}${NO_TLS}`, { failure: 'tls' });

/** The second half, over the encrypted connection. What was agreed on before counts no more. */
export function* encryptedHandshake(
  options: HandshakeOptions,
  { zeroes }: { readonly zeroes: boolean },
): Dialogue<NegotiatedExport> {
  return checked(yield* haggle(options, zeroes));
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

/** The server says all there is, and does not ask which export. */
function* oldstyle(options: HandshakeOptions): Dialogue<NegotiatedExport> {
  if (options.exportName !== '') {
    throw new HandshakeError(
      `the server is of the oldest kind, which has one export without a name; it cannot give ${exportText(options)}`,
      { failure: 'refused' },
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
  const status = yield* statusContexts(options, replies.structuredReplies);
  const answered = yield* go(options);
  if (answered !== undefined) return { ...answered, ...replies, ...status };
  if (replies.extendedHeaders) {
    // NBD_OPT_EXPORT_NAME is out of the question then (doc/proto.md, NBD_OPT_EXTENDED_HEADERS).
    throw new ProtocolError('agreed to extended headers and does not know NBD_OPT_GO');
  }
  // It knows options, but not this one.
  return { ...(yield* byName(options, zeroes)), ...replies, ...status };
}

/** What BLOCK_STATUS will tell of. */
function* statusContexts(
  { exportName, allocation = true, contexts = [] }: HandshakeOptions,
  structuredReplies: boolean,
): Dialogue<Pick<NegotiatedExport, 'allocationId' | 'contexts'>> {
  const wanted = allocation ? [BASE_ALLOCATION, ...contexts] : contexts;
  if (!structuredReplies || wanted.length === 0) return { allocationId: undefined };
  const ids = yield* setMetaContexts(exportName, wanted);
  const allocationId = ids.get(BASE_ALLOCATION);
  ids.delete(BASE_ALLOCATION);
  return ids.size === 0 ? { allocationId } : { allocationId, contexts: ids };
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

/** NBD_OPT_GO. @returns undefined if the server does not know it */
function* go(
  options: HandshakeOptions,
): Dialogue<Pick<NegotiatedExport, 'size' | 'flags' | 'limits'> | undefined> {
  const { told, refused } = yield* askExport(Option.GO, options.exportName, [Info.BLOCK_SIZE]);
  if (refused?.type === OptionReply.ERR_UNSUP) return undefined;
  if (refused !== undefined) return yield* giveUp(refusal(refused, exportText(options)));
  const { size, flags, limits } = told;
  return { size, flags, limits };
}

/** Names are bounded by the protocol. @throws HandshakeError */
export function checkExportName(name: string): void {
  if (Buffer.byteLength(name, 'utf8') > MAX_STRING) {
    throw new HandshakeError(`the export name has more than ${MAX_STRING} bytes`, {
      failure: 'refused',
    });
  }
}
