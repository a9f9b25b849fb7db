/** Options of the handshake, as the client sends them, and the server's replies to them. */

import { ByteReader, ByteWriter } from '../bytes.js';
import { traceNbd } from '../trace.js';
import { say, take } from '../transport/dialogue.js';
import type { Dialogue } from '../transport/dialogue.js';
import { IHAVEOPT, MAX_STRING, OPTION_REPLY_MAGIC, Option, OptionReply } from './constants.js';
import { HandshakeError, ProtocolError } from './errors.js';
import type { HandshakeFailure } from './errors.js';
import { printable } from './printing.js';

export interface OptionAnswer {
  readonly option: number;
  /** OptionReply. */
  readonly type: number;
  readonly data: Buffer;
}

/** No reply that we ask for is longer: two strings and some numbers. */
const MAX_REPLY = 2 * MAX_STRING + 64;
const ERROR_BIT = 0x80000000;
const NO_DATA = Buffer.alloc(0);

const nameOf = (table: Readonly<Record<string, number>>, value: number): string =>
  Object.entries(table).find(([, one]) => one === value)?.[0] ?? String(value);

export function isError(type: number): boolean {
  return type >= ERROR_BIT;
}

export function* sendOption(option: number, data: Buffer): Dialogue<void> {
  if (traceNbd.enabled) traceNbd('tx option %s, %d bytes', nameOf(Option, option), data.length);
  const message = new ByteWriter('big', 16 + data.length);
  yield* say(message.u64(IHAVEOPT).u32(option).u32(data.length).bytes(data).finish());
}

/** @throws ProtocolError */
export function* readOptionReply(option: number): Dialogue<OptionAnswer> {
  const reader = new ByteReader(yield* take(20), 'big');
  const magic = reader.u64();
  if (magic !== OPTION_REPLY_MAGIC) {
    throw new ProtocolError(`sent an option reply with the wrong magic 0x${magic.toString(16)}`);
  }
  const answered = reader.u32();
  if (answered !== option) {
    throw new ProtocolError(`replied to option ${answered} when ${option} was sent`);
  }
  const type = reader.u32();
  const length = reader.u32();
  if (length > MAX_REPLY) {
    throw new ProtocolError(
      `sent an option reply of ${length} bytes, over the most of ${MAX_REPLY}`,
    );
  }
  const data = yield* take(length);
  if (traceNbd.enabled) {
    traceNbd('rx %s to %s, %d bytes', nameOf(OptionReply, type), nameOf(Option, option), length);
  }
  return { option, type, data };
}

/** What is refused other than the export. A server that shuts down may be back when it is tried again. */
const FAILURES: ReadonlyMap<number, HandshakeFailure> = new Map([
  [OptionReply.ERR_TLS_REQD, 'tls'],
  [OptionReply.ERR_SHUTDOWN, 'unreachable'],
]);

/** What a refusal means, for the user. @param exportText the name in its quotes */
export function refusal(answer: OptionAnswer, exportText: string): HandshakeError {
  const said = printable(answer.data);
  const message = said === '' ? reason() : `${reason()} (the server says: ${said})`;
  return new HandshakeError(message, { failure: FAILURES.get(answer.type) ?? 'refused' });

  function reason(): string {
    switch (answer.type) {
      case OptionReply.ERR_UNKNOWN:
        return `the server has no export named ${exportText}`;
      case OptionReply.ERR_POLICY:
        return `the server refuses the export ${exportText} to us`;
      case OptionReply.ERR_TLS_REQD:
        return 'the server wants an encrypted connection; use a URI that begins with nbds (nbds:, nbds+unix:, ...)';
      case OptionReply.ERR_SHUTDOWN:
        return 'the server is shutting down';
      case OptionReply.ERR_BLOCK_SIZE_REQD:
        return `the server wants block sizes agreed on, but did not take ours`;
      case OptionReply.ERR_EXT_HEADER_REQD:
        return `the server serves the export ${exportText} with extended headers only, which were not agreed on`;
      case OptionReply.ERR_PLATFORM:
        return `the export ${exportText} cannot be served on the server's platform`;
      default:
        return `the server refused the export ${exportText} with error 0x${answer.type.toString(16)}`;
    }
  }
}

/** An error of an option that we can do without, unless it tells that there is no point in going on. */
export function* stopIfFinal(answer: OptionAnswer): Dialogue<void> {
  if (answer.type === OptionReply.ERR_TLS_REQD || answer.type === OptionReply.ERR_SHUTDOWN) {
    yield* giveUp(refusal(answer, ''));
  }
}

/**
 * Says goodbye, and throws. A client that leaves a server which did nothing wrong has to say so
 * ("Termination of the session during option haggling"), but need not wait for the answer.
 */
export function* giveUp(reason: HandshakeError): Dialogue<never> {
  yield* sendOption(Option.ABORT, NO_DATA);
  throw reason;
}

/** @throws ProtocolError for an NBD_REP_ACK that carries something */
export function isAck(answer: OptionAnswer): boolean {
  if (answer.type !== OptionReply.ACK) return false;
  if (answer.data.length > 0) throw unexpected(answer);
  return true;
}

export function unexpected(answer: OptionAnswer): ProtocolError {
  return new ProtocolError(
    `sent a reply of type ${answer.type} and ${answer.data.length} bytes to option ${answer.option}, which it may not`,
  );
}
