/** Connecting to an address: a stream to the server, before a word of NBD is spoken. */

import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrnoError, errno, errnoText } from '../errno.js';
import { WRITABLE, native } from '../native.js';
import { FdTransport } from '../transport/fd-transport.js';
import type { Transport } from '../transport/transport.js';
import { MAX_VSOCK } from './constants.js';
import { HandshakeError } from './errors.js';
import { addressText } from './export.js';
import type { Address, SshAddress, TcpAddress, UnixAddress, VsockAddress } from './export.js';

/** Milliseconds between attempts while a Unix server's queue of connections is full. */
const RETRY_EVERY = 20;

/** Milliseconds, at least one: whoever is late is told so by the wait itself. */
export const timeLeft = (until: number): number => Math.max(1, until - performance.now());

/** A socket that is connected already is ours from the start, and closed when there is no use for it. */
export async function orDiscard<T>(address: Address, use: () => T | Promise<T>): Promise<T> {
  return address.kind === 'socket' ? orClose(address.fd, use) : use();
}

/**
 * Connects to an address; a name with several addresses is tried at each of them in turn.
 * @param deadline milliseconds for all of it
 * @param signal ends it early
 * @throws HandshakeError with one line for the user that names the server; AbortError
 */
export async function openTransport(
  address: Address,
  deadline: number,
  signal?: AbortSignal,
): Promise<Transport> {
  const until = performance.now() + deadline;
  await orDiscard(address, () => signal?.throwIfAborted());
  if (address.kind === 'ssh') return openSsh(address);
  const fd = await connectSocket(address, until, signal);
  return orClose(fd, () => new FdTransport(fd));
}

/** @returns a connected socket */
function connectSocket(
  address: Exclude<Address, SshAddress>,
  until: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  switch (address.kind) {
    case 'unix':
      return connectUnix(address, until, signal);
    case 'tcp':
      return connectTcp(address, until, signal);
    case 'vsock':
      return connectVsock(address, until, signal);
    case 'socket':
      return Promise.resolve(address.fd);
  }
}

/** A descriptor is ours until somebody has taken it over. */
async function orClose<T>(fd: number, use: () => T | Promise<T>): Promise<T> {
  try {
    return await use();
  } catch (error) {
    native.close(fd);
    throw error;
  }
}

/** @param code the positive errno that says so, or 0 */
function cannotConnect(address: Address, why: string, code = 0): HandshakeError {
  const cause = code === 0 ? undefined : new ErrnoError(code, 'connect');
  return new HandshakeError(`cannot connect to ${addressText(address)}: ${why}`, { cause });
}

async function connectUnix(
  address: UnixAddress,
  until: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  for (;;) {
    const fd = native.unixConnect(address.path);
    if (fd >= 0) return fd;
    if (fd === -errno.ENAMETOOLONG) {
      throw cannotConnect(address, 'a socket path has at most 107 bytes', -fd); // sun_path of unix(7)
    }
    if (fd !== -errno.EAGAIN) throw cannotConnect(address, errnoText(-fd), -fd);
    if (performance.now() >= until) {
      throw cannotConnect(
        address,
        'its queue of connections is full and it accepts none',
        errno.EAGAIN,
      );
    }
    await sleep(RETRY_EVERY, undefined, { signal });
  }
}

async function connectTcp(
  shown: TcpAddress,
  until: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { host, port } = shown;
  let why = 'it has no address';
  let last = 0;
  const addresses = await resolveHost(shown, host, until, signal);
  for (const [i, address] of addresses.entries()) {
    const fd = native.tcpConnect(address, port);
    if (fd < 0) {
      last = -fd;
      why = connectText(last);
      continue;
    }
    // One address that swallows everything leaves the others their share of the time.
    const share = timeLeft(until) / (addresses.length - i);
    const code = await orClose(fd, () => connected(fd, share, signal));
    if (code === 0) return fd;
    native.close(fd);
    signal?.throwIfAborted();
    last = code;
    why = connectText(last);
  }
  throw cannotConnect(shown, why, last);
}

const isVsockNumber = (value: number): boolean =>
  Number.isInteger(value) && value >= 0 && value <= MAX_VSOCK;

async function connectVsock(
  address: VsockAddress,
  until: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  // What is longer would be cut to 32 bits, and mean another machine, or any.
  if (![address.cid, address.port].every(isVsockNumber)) {
    throw cannotConnect(address, `both are numbers from 0 to ${MAX_VSOCK}`);
  }
  const fd = native.vsockConnect(address.cid, address.port);
  if (fd === -errno.EAFNOSUPPORT) {
    throw cannotConnect(address, 'this kernel has no vsock; load it with: modprobe vsock');
  }
  if (fd < 0) throw cannotConnect(address, connectText(-fd), -fd);
  const code = await orClose(fd, () => connected(fd, timeLeft(until), signal));
  if (code === 0) return fd;
  native.close(fd);
  signal?.throwIfAborted();
  throw cannotConnect(address, connectText(code), code);
}

const connectText = (code: number): string =>
  code === errno.ETIMEDOUT ? 'no answer in time' : errnoText(code);

/** What becomes of a connection shows only when the far side says something, or hangs up. */
async function openSsh(address: SshAddress): Promise<Transport> {
  // Loaded for those who need it.
  const { startSsh } = await import('./ssh.js');
  try {
    return await startSsh(address);
  } catch (error) {
    throw cannotConnect(address, error instanceof Error ? error.message : String(error));
  }
}

async function resolveHost(
  shown: Address,
  host: string,
  until: number,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  // A scope (%eth0) is part of the address.
  if (isIP(host.replace(/%.*$/, '')) !== 0) return [host];
  // Loaded by those who need it.
  const { lookup } = await import('node:dns/promises');
  const stop = new AbortController();
  try {
    const ends = signal === undefined ? stop.signal : AbortSignal.any([stop.signal, signal]);
    const late = sleep(timeLeft(until), undefined, { signal: ends });
    const found = await Promise.race([lookup(host, { all: true }), late]);
    if (found === undefined) throw cannotConnect(shown, 'its name was not resolved in time');
    return found.map(({ address }) => address);
  } catch (error) {
    signal?.throwIfAborted();
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

/**
 * Waits for a connection that was started.
 * @param deadline milliseconds
 * @returns 0 or a positive errno, ECANCELED after the signal
 */
function connected(fd: number, deadline: number, signal: AbortSignal | undefined): Promise<number> {
  return new Promise((resolve) => {
    const end = (code: number): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
      watcher.close();
      resolve(code);
    };
    const watcher = new native.PollWatcher(fd, (status) => {
      const code = -native.socketError(fd);
      end(code === 0 && status < 0 ? -status : code);
    });
    const timer = setTimeout(() => end(errno.ETIMEDOUT), deadline);
    const aborted = (): void => end(errno.ECANCELED);
    signal?.addEventListener('abort', aborted);
    watcher.start(WRITABLE);
  });
}
