/** Making a connection: to the address, and through the handshake. */

import { ErrnoError, errnoText } from '../errno.js';
import { DeadlineError, EndOfStreamError, converse } from '../transport/dialogue.js';
import type { Dialogue } from '../transport/dialogue.js';
import type { Transport } from '../transport/transport.js';
import { openTransport, orDiscard, timeLeft } from './dial.js';
import { HandshakeError, ProtocolError, SetupError } from './errors.js';
import type { HandshakeFailure } from './errors.js';
import { addressText } from './export.js';
import type { NegotiatedExport, Target } from './export.js';
import {
  checkExportName,
  clientHandshake,
  encryptedHandshake,
  startTlsHandshake,
} from './handshake.js';
import type { HandshakeOptions } from './handshake.js';
import { printable } from './printing.js';
import type { Encryption } from './tls-options.js';

export interface ReachOptions {
  /** Milliseconds for all of it. */
  readonly deadline: number;
  /** Ends it early, with an error that is of no interest then. */
  readonly signal?: AbortSignal | undefined;
  /** Told in one line what is dangerous about the keys in use. */
  readonly warn?: ((line: string) => void) | undefined;
  /** Of `prepareTls`, where several connections share it; otherwise it is prepared for this one. */
  readonly encryption?: Encryption | undefined;
}

export interface OpenOptions extends ReachOptions, Omit<HandshakeOptions, 'exportName'> {}

export interface OpenedExport {
  readonly transport: Transport;
  readonly negotiated: NegotiatedExport;
}

/** What a handshake is held with: all of it, or what comes after the agreement on encryption. */
export interface Talk<T> {
  readonly plain: () => Dialogue<T>;
  readonly encrypted: (agreed: { readonly zeroes: boolean }) => Dialogue<T>;
}

/**
 * Connects and shakes hands.
 * @throws HandshakeError with one line for the user that names the server
 */
export async function openExport(target: Target, options: OpenOptions): Promise<OpenedExport> {
  const handshake = { ...options, exportName: target.exportName };
  const { transport, told } = await openDialogue(target, options, {
    plain: () => clientHandshake(handshake),
    encrypted: (agreed) => encryptedHandshake(handshake, agreed),
  });
  return { transport, negotiated: told };
}

/**
 * Connects and holds a handshake of any kind.
 * @returns what it gave, and the stream that goes on from there
 * @throws HandshakeError with one line for the user that names the server
 */
export async function openDialogue<T>(
  target: Target,
  options: ReachOptions,
  talk: Talk<T>,
): Promise<{ readonly transport: Transport; readonly told: T }> {
  const until = performance.now() + options.deadline;
  const encryption = await orDiscard(target.address, () => {
    checkExportName(target.exportName);
    return options.encryption ?? prepareTls(target, options);
  });
  const transport = await openTransport(target.address, timeLeft(until), options.signal);
  try {
    if (encryption !== undefined) {
      return await openEncrypted(transport, encryption, talk, until, options.signal);
    }
    const told = await converse(transport, talk.plain(), timeLeft(until), options.signal);
    return { transport, told };
  } catch (error) {
    transport.close();
    throw explained(error, target, options.deadline);
  }
}

/**
 * Reads certificates and keys, once for all connections to a target.
 * @returns undefined where it is not encrypted
 * @throws SetupError with one line for the user; the signal's reason. A socket that the target is stays open
 */
export async function prepareTls(
  target: Target,
  { deadline, signal, warn }: Pick<ReachOptions, 'deadline' | 'signal' | 'warn'>,
): Promise<Encryption | undefined> {
  if (target.tls === undefined) return undefined;
  // Loaded only where it is used.
  const { tlsOptions } = await import('./tls-options.js');
  const { connection, warnings } = await tlsOptions(target, target.tls, { deadline, signal });
  for (const line of warnings) warn?.(line);
  return connection;
}

/** @param plain owned from now on */
async function openEncrypted<T>(
  plain: Transport,
  encryption: Encryption,
  talk: Talk<T>,
  until: number,
  signal: AbortSignal | undefined,
): Promise<{ readonly transport: Transport; readonly told: T }> {
  const [{ startTls }, { tlsProblem, hungUpAfterTls }] = await Promise.all([
    import('../transport/tls-transport.js'),
    import('./tls-errors.js'),
  ]);
  const { identified } = encryption;
  const agreed = await converse(plain, startTlsHandshake(), timeLeft(until), signal);
  let transport;
  try {
    transport = await startTls(plain, encryption, timeLeft(until), signal);
  } catch (error) {
    throw error instanceof Error ? tlsProblem(error, identified) : error;
  }
  try {
    const told = await converse(transport, talk.encrypted(agreed), timeLeft(until), signal);
    return { transport, told };
  } catch (error) {
    transport.close();
    // With TLS 1.3 a server tells after its handshake that it refuses ours.
    if (transport.failure !== undefined) throw tlsProblem(transport.failure, identified);
    const hungUp = error instanceof EndOfStreamError && error.atStart;
    throw hungUp ? hungUpAfterTls(error, identified) : error;
  }
}

/** What went wrong in a handshake, as a sentence about the server. */
function explained(error: unknown, target: Target, deadline: number): Error {
  const fail = (text: string, failure?: HandshakeFailure): HandshakeError =>
    new HandshakeError(`NBD server at ${addressText(target.address)}: ${text}`, {
      cause: error,
      failure,
    });
  if (error instanceof SetupError) return error;
  if (error instanceof HandshakeError) return fail(error.message, error.failure);
  if (error instanceof ProtocolError) return fail(`it ${error.message}`);
  if (error instanceof DeadlineError) {
    // Not the message of the error: it knows only what was left of the time after connecting.
    return fail(`no answer within ${deadline / 1000} s; is it an NBD server?`);
  }
  if (error instanceof EndOfStreamError) {
    if (error.atStart) return fail('it closed the connection before it said anything');
    // An old server has no other way to refuse an export (doc/proto.md, NBD_OPT_EXPORT_NAME).
    return fail(
      `it closed the connection in the middle of the handshake; ${exportQuestion(target)}`,
      'refused',
    );
  }
  if (error instanceof ErrnoError) {
    return fail(`the connection broke in the handshake: ${errnoText(error.errno)}`);
  }
  return error instanceof Error ? error : new Error(String(error));
}

function exportQuestion({ exportName }: Target): string {
  return exportName === ''
    ? 'has it a default export?'
    : `has it an export named "${printable(exportName)}"?`;
}
