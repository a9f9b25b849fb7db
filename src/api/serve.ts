/** Serving a disk over NBD. */

import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { TOO_LATE, within } from '../deadline.js';
import { readOnlyDisk } from '../disk/read-only.js';
import { ErrnoError, errno } from '../errno.js';
import { checkExportName } from '../nbd/handshake.js';
import type { Listener } from '../server/listen.js';
import type { Server } from '../server/server.js';
import { checkObject } from './arguments.js';
import { diskFrom } from './disk-source.js';
import type { DiskSource } from './disk-source.js';
import { milliseconds } from './numbers.js';

/** A port of one address. */
export interface ListenAddress {
  /** Numeric, of IPv4 or IPv6; `0.0.0.0` and `::` are all addresses there are. */
  readonly host: string;
  /** From 1 to 65535, or 0 for one that is free. */
  readonly port: number;
}

/** What `serve` takes beside the disk. */
export interface ServeOptions {
  /**
   * Where clients find it: a TCP port of this machine alone (127.0.0.1 and ::1), with 0 for one that is free; the
   * path of a Unix socket, which is made, and removed at the end; or a port of one numeric address, for others.
   * There is no encryption and no password: whoever reaches it may use it.
   */
  readonly on: number | string | ListenAddress;
  /** A name for the export, beside the empty one, which always leads to it. */
  readonly exportName?: string | undefined;
  /** Clients cannot write. */
  readonly readOnly?: boolean | undefined;
  /** How many clients at once; others wait. 64 if left out. */
  readonly maxConnections?: number | undefined;
  /** Ends it: before it listens, `serve` rejects with the signal's reason; later it is the same as `close`. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds for its end, the last flush included; 30,000 if left out. */
  readonly closeTimeout?: number | undefined;
}

const CLOSE_TIMEOUT = 30_000;

/**
 * Serves a disk to NBD clients until it is closed.
 *
 * ```ts
 * await using server = await serve(disk, { on: 0 });
 * console.log(server.uri); // nbd://127.0.0.1:40123/
 * ```
 *
 * @param disk stays the caller's: closing the server flushes it and does not close it
 * @throws ErrnoError where it cannot listen, as `EADDRINUSE`; RangeError, TypeError or HandshakeError for an
 *   option; the signal's reason
 */
export async function serve(disk: DiskSource, options: ServeOptions): Promise<NbdServer> {
  checkObject(options, 'where to serve, { on },');
  const { on, exportName = '', readOnly = false, maxConnections, signal } = options;
  const closeTimeout = milliseconds(options.closeTimeout ?? CLOSE_TIMEOUT, 'the time to close');
  if (
    maxConnections !== undefined &&
    !(Number.isSafeInteger(maxConnections) && maxConnections > 0)
  ) {
    throw new RangeError(`the most connections are a whole number over 0: ${maxConnections}`);
  }
  checkExportName(exportName);
  const name = encoded(exportName, 'the export name');
  const source = diskFrom(disk);
  const shown = readOnly ? readOnlyDisk(source) : source;
  signal?.throwIfAborted();
  const { serve: start } = await import('../server/server.js');
  const place = await listen(on);
  try {
    signal?.throwIfAborted();
  } catch (error) {
    for (const listener of place.listeners) listener.close();
    throw error;
  }
  let failed: (error: Error) => void = () => undefined;
  const server = start(shown, place.listeners, {
    exportName,
    ...(maxConnections !== undefined && { maxConnections }),
    failed: (error) => failed(error),
  });
  const uri = `${place.uri}/${name}${place.query}`;
  const running = new NbdServer(server, uri, place.port, closeTimeout, signal);
  failed = (error) => running.fail(error);
  return running;
}

/** A disk that is served. Made by `serve`. */
export class NbdServer implements AsyncDisposable {
  /** For a client: `nbd://127.0.0.1:40123/`, or `nbd+unix:///?socket=/run/disk.sock`. */
  readonly uri: string;
  /** Of TCP. */
  readonly port: number | undefined;
  /**
   * Settles when it has ended, however that came about; rejects as `close` does, or because it can accept no
   * more clients. It need not be waited for.
   */
  readonly closed: Promise<void>;
  readonly #server: Server;
  readonly #closeTimeout: number;
  readonly #signal: AbortSignal | undefined;
  readonly #aborted = (): void => void this.close().catch(() => undefined);
  #settle: (end: Promise<void>) => void = () => undefined;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(
    server: Server,
    uri: string,
    port: number | undefined,
    closeTimeout: number,
    signal: AbortSignal | undefined,
  ) {
    this.#server = server;
    this.uri = uri;
    this.port = port;
    this.#closeTimeout = closeTimeout;
    this.#signal = signal;
    this.closed = new Promise((resolve) => (this.#settle = resolve));
    this.closed.catch(() => undefined);
    signal?.addEventListener('abort', this.#aborted);
  }

  /** How many clients are connected. */
  get connections(): number {
    return this.#server.connections;
  }

  /**
   * Accepts no further client, answers what is under way, hangs up and flushes the disk. May be called twice.
   * @throws ErrnoError of the flush; `ETIMEDOUT` where the disk has not answered in time, which is then not
   *   waited for any more
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  fail(error: Error): void {
    this.#settle(Promise.reject(error));
    void this.close().catch(() => undefined);
  }

  async #close(): Promise<void> {
    this.#signal?.removeEventListener('abort', this.#aborted);
    const ended = this.#end();
    this.#settle(ended);
    await ended;
  }

  async #end(): Promise<void> {
    if ((await within(this.#server.close(), this.#closeTimeout)) === TOO_LATE) {
      throw new ErrnoError(errno.ETIMEDOUT, 'closing the server');
    }
  }
}

/** Where it listens, and how that is written in a URI, before and behind the name of the export. */
interface Place {
  readonly listeners: readonly Listener[];
  readonly uri: string;
  readonly query: string;
  readonly port: number | undefined;
}

/** @throws ErrnoError; RangeError; TypeError */
async function listen(on: ServeOptions['on']): Promise<Place> {
  const { Listener } = await import('../server/listen.js');
  if (typeof on === 'string') {
    if (on === '') throw new TypeError('the name of the socket is empty');
    const path = on.startsWith('\0') ? on : resolve(on);
    const parts = path.split('/').map((part) => encoded(part, 'the name of the socket'));
    const query = `?socket=${parts.join('/')}`;
    return { listeners: [Listener.unix(path)], uri: 'nbd+unix://', query, port: undefined };
  }
  if (typeof on !== 'number') checkObject(on, '`on`, where to listen,');
  const { host, port } = typeof on === 'number' ? { host: undefined, port: on } : on;
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
    throw new RangeError(`a port is a number from 0 to 65535: ${port}`);
  }
  if (host === undefined) {
    const { listenOnLoopback } = await import('../server/loopback.js');
    const listeners = listenOnLoopback(port);
    return tcp('127.0.0.1', listeners);
  }
  if (isIP(host) === 0) throw new TypeError(`${host} is no numeric address, which it has to be`);
  return tcp(isIP(host) === 6 ? `[${host}]` : host, [Listener.tcp(host, port)]);
}

/** For a URI. @throws TypeError */
function encoded(text: string, what: string): string {
  // Half a character, which no UTF-8 has.
  if (/\p{Surrogate}/u.test(text)) throw new TypeError(`${what} is no Unicode text`);
  return encodeURIComponent(text);
}

function tcp(host: string, listeners: readonly [Listener, ...Listener[]]): Place {
  const { port } = listeners[0];
  return { listeners, uri: `nbd://${host}:${port}`, query: '', port };
}
