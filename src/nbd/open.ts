/** Making a connection: to the address, and through the handshake. */

import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrnoError, errno, errnoText } from '../errno.js';
import { WRITABLE, native } from '../native.js';
import { DeadlineError, EndOfStreamError, converse } from '../transport/dialogue.js';
import { FdTransport } from '../transport/fd-transport.js';
import type { Transport } from '../transport/transport.js';
import { HandshakeError, ProtocolError } from './errors.js';
import { addressText } from './export.js';
import type { Address, NegotiatedExport, Target } from './export.js';
import { checkExportName, clientHandshake } from './handshake.js';
import type { HandshakeOptions } from './handshake.js';

/** Milliseconds between attempts while a Unix server's queue of connections is full. */
const RETRY_EVERY = 20;

export interface OpenOptions extends Omit<HandshakeOptions, 'exportName'> {
  /** Milliseconds for all of it. */
  readonly deadline: number;
}

export interface OpenedExport {
  readonly transport: Transport;
  readonly negotiated: NegotiatedExport;
}

/**
 * Connects and shakes hands.
 * @throws HandshakeError with one line for the user that names the server
 */
export async function openExport(target: Target, options: OpenOptions): Promise<OpenedExport> {
  checkExportName(target.exportName);
  const started = Date.now();
  const transport = await openTransport(target.address, options.deadline);
  try {
    const left = Math.max(1, options.deadline - (Date.now() - started));
    const { exportName } = target;
    const negotiated = await converse(transport, clientHandshake({ ...options, exportName }), left);
    return { transport, negotiated };
  } catch (error) {
    transport.close();
    throw explained(error, target.address);
  }
}

/** What went wrong in a handshake, as a sentence about the server. */
function explained(error: unknown, address: Address): Error {
  const server = `NBD server at ${addressText(address)}`;
  const fail = (text: string): HandshakeError => new HandshakeError(text, { cause: error });
  if (error instanceof HandshakeError) return fail(`${server}: ${error.message}`);
  if (error instanceof ProtocolError) return fail(`${server}: it ${error.message}`);
  if (error instanceof DeadlineError) {
    return fail(`${server}: ${error.message}; is it an NBD server?`);
  }
  if (error instanceof EndOfStreamError) {
    return fail(
      error.atStart
        ? `${server}: it closed the connection before it said anything`
        : `${server}: it closed the connection in the middle of the handshake`,
    );
  }
  if (error instanceof ErrnoError) return fail(`${server}: ${error.message}`);
  return error instanceof Error ? error : new Error(String(error));
}

/**
 * Connects to an address.
 * @param deadline milliseconds
 * @throws HandshakeError
 */
export async function openTransport(address: Address, deadline: number): Promise<Transport> {
  const until = Date.now() + deadline;
  const fd =
    address.kind === 'unix'
      ? await connectUnix(address, until)
      : await connectTcp(address.host, address.port, until);
  return new FdTransport(fd);
}

function cannotConnect(address: Address, why: string): HandshakeError {
  return new HandshakeError(`cannot connect to ${addressText(address)}: ${why}`);
}

async function connectUnix(
  address: Extract<Address, { kind: 'unix' }>,
  until: number,
): Promise<number> {
  for (;;) {
    const fd = native.unixConnect(address.path);
    if (fd >= 0) return fd;
    if (fd !== -errno.EAGAIN) throw cannotConnect(address, errnoText(-fd));
    if (Date.now() >= until) {
      throw cannotConnect(address, 'its queue of connections is full and it accepts none');
    }
    await sleep(RETRY_EVERY);
  }
}

async function connectTcp(host: string, port: number, until: number): Promise<number> {
  const shown: Address = { kind: 'tcp', host, port };
  let why = 'it has no address';
  for (const address of await resolveHost(shown, host, until)) {
    const fd = native.tcpConnect(address, port);
    const code = fd < 0 ? -fd : await connected(fd, until);
    if (code === 0) return fd;
    if (fd >= 0) native.close(fd);
    why = code === errno.ETIMEDOUT ? 'no answer in time' : errnoText(code);
  }
  throw cannotConnect(shown, why);
}

async function resolveHost(shown: Address, host: string, until: number): Promise<string[]> {
  // A scope (%eth0) is part of the address.
  if (isIP(host.replace(/%.*$/, '')) !== 0) return [host];
  const stop = new AbortController();
  try {
    const late = sleep(Math.max(1, until - Date.now()), undefined, { signal: stop.signal });
    const found = await Promise.race([lookup(host, { all: true }), late]);
    if (found === undefined) throw cannotConnect(shown, 'its name was not resolved in time');
    return found.map(({ address }) => address);
  } catch (error) {
    if (error instanceof HandshakeError) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw cannotConnect(
      shown,
      code === 'ENOTFOUND'
        ? 'there is no host of this name'
        : `its name was not resolved (${code})`,
    );
  } finally {
    stop.abort();
  }
}

/** Waits for a connection that was started. @returns 0 or a positive errno */
function connected(fd: number, until: number): Promise<number> {
  return new Promise((resolve) => {
    const end = (code: number): void => {
      clearTimeout(timer);
      watcher.close();
      resolve(code);
    };
    const timer = setTimeout(() => end(errno.ETIMEDOUT), Math.max(1, until - Date.now()));
    const watcher = new native.PollWatcher(fd, () => end(-native.socketError(fd)));
    watcher.start(WRITABLE);
  });
}
