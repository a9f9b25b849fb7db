/** `--metrics`: answers Prometheus, over HTTP. */

import { once } from 'node:events';
import { lstatSync } from 'node:fs';
import { realpath, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import type { Registry } from 'prom-client';
import { errorText } from '../errno.js';
import { makeRegistry } from '../observe/metrics.js';
import type { MetricsSource } from '../observe/metrics.js';
import { CommandError } from './errors.js';
import { metricsAddressText } from './metrics-address.js';
import type { MetricsAddress } from './metrics-address.js';
import { say } from './messages.js';
import { MAX_SOCKET_PATH } from './private-directory.js';
import { version } from './version.js';

/** Clients that are served at once; one scraper needs one. */
const MOST_CLIENTS = 32;
/** Milliseconds for a request to come, and for a connection that asks nothing more. */
const REQUEST_DEADLINE = 10_000;
const IDLE_DEADLINE = 65_000;
/** Milliseconds between two looks at who is late; Node's 30 s would leave the places to those who say nothing. */
const LOOK_INTERVAL = 1_000;

export class MetricsServer {
  readonly #server: Server;
  readonly #address: MetricsAddress;
  #registry: Registry | undefined;

  private constructor(address: MetricsAddress) {
    this.#address = address;
    const options = { connectionsCheckingInterval: LOOK_INTERVAL };
    this.#server = createServer(options, (request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
    this.#server.maxConnections = MOST_CLIENTS;
    this.#server.headersTimeout = REQUEST_DEADLINE;
    this.#server.requestTimeout = REQUEST_DEADLINE;
    this.#server.timeout = IDLE_DEADLINE;
  }

  /**
   * Listens; until `serve` it answers that the disk is not mounted yet.
   * @param mountpoint what is about to be mounted on, where no socket can be; without symbolic links
   * @throws CommandError
   */
  static async listen(address: MetricsAddress, mountpoint: string): Promise<MetricsServer> {
    const server = new MetricsServer(address);
    try {
      if (address.kind === 'unix') await checkSocket(resolve(address.path), mountpoint);
      await server.#listen();
    } catch (error) {
      const shown = metricsAddressText(address);
      throw new CommandError(`cannot serve metrics at ${shown}: ${problemText(error, address)}`, {
        cause: error,
      });
    }
    server.#server.on('error', (error) => say(`metrics: ${errorText(error)}`));
    return server;
  }

  async #listen(): Promise<void> {
    const listening = once(this.#server, 'listening');
    if (this.#address.kind === 'unix') this.#server.listen(resolve(this.#address.path));
    else this.#server.listen({ port: this.#address.port, host: this.#address.host });
    // Rejects where there is an error before.
    await listening;
  }

  /** The mount is there. */
  serve(source: MetricsSource): void {
    this.#registry = makeRegistry(source, version());
    const address = this.#server.address();
    if (this.#address.kind === 'tcp' && this.#address.port === 0 && typeof address === 'object') {
      const found = { ...this.#address, port: address?.port ?? 0 };
      say(`metrics are at http://${metricsAddressText(found)}/metrics`);
    }
  }

  async #answer({ method, url }: IncomingMessage, response: ServerResponse): Promise<void> {
    const registry = this.#registry;
    if (method !== 'GET' && method !== 'HEAD') {
      response.writeHead(405, { Allow: 'GET, HEAD' }).end();
    } else if (url?.split('?', 1)[0] !== '/metrics') {
      response.writeHead(404, { 'Content-Type': 'text/plain' }).end('see /metrics\n');
    } else if (registry === undefined) {
      response.writeHead(503, { 'Content-Type': 'text/plain' }).end('not mounted yet\n');
    } else {
      const text = await registry.metrics();
      response.writeHead(200, { 'Content-Type': registry.contentType }).end(text);
    }
  }

  /** Whoever is being answered is cut off. Never throws. */
  close(): void {
    this.#registry?.clear();
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

function problemText(error: unknown, { kind }: MetricsAddress): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  switch (code) {
    case 'EADDRINUSE':
      return 'somebody else serves there; take another address';
    case 'EACCES':
      return kind === 'tcp'
        ? `${errorText(error)}; ports below 1024 are for root`
        : errorText(error);
    case 'EADDRNOTAVAIL':
      return 'that address is none of this machine';
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'there is no such host';
    default:
      return errorText(error);
  }
}

/** Takes away a socket that a process which was killed has left, and nothing else. @throws Error */
async function checkSocket(path: string, mountpoint: string): Promise<void> {
  // Links may lead there. One that is the last name is no socket, and none is made over it.
  const real = join(await realpath(dirname(path)), basename(path));
  if (real === mountpoint || real.startsWith(join(mountpoint, '/'))) {
    throw new Error('the mount would hide it');
  }
  // What is longer is cut off by Node, and would be somewhere else.
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
    throw new Error(`a socket path has at most ${MAX_SOCKET_PATH} bytes, and it has more: ${path}`);
  }
  const entry = lstatSync(path, { throwIfNoEntry: false });
  if (entry === undefined) return;
  if (!entry.isSocket()) throw new Error('it exists and is no socket');
  if (await isDeserted(path)) await rm(path, { force: true });
}

function isDeserted(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}
