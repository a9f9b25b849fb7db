/** A server that takes connections and says nothing. */

import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export class SilentServer {
  readonly #server: Server;
  readonly #folder: string;
  readonly #sockets = new Set<Socket>();
  /** Settles when the first client has come. */
  readonly connected: Promise<void>;
  /** Settles when the first client has gone. */
  readonly left: Promise<void>;

  private constructor(server: Server, folder: string) {
    this.#server = server;
    this.#folder = folder;
    const first = once(server, 'connection') as Promise<[Socket]>;
    this.connected = first.then(() => undefined);
    this.left = first.then(async ([socket]) => {
      await once(socket, 'close');
    });
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.resume();
    });
  }

  static async start(): Promise<SilentServer> {
    const folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
    const server = new SilentServer(createServer(), folder);
    server.#server.listen(join(folder, 's'));
    await once(server.#server, 'listening');
    return server;
  }

  get uri(): string {
    return `nbd+unix:///?socket=${join(this.#folder, 's')}`;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
    await rm(this.#folder, { recursive: true });
  }
}
