/** Serves one disk to many clients. */

import { BufferPool } from '../buffer-pool.js';
import { flushDisk } from '../disk/promises.js';
import type { Disk } from '../disk/disk.js';
import { native } from '../native.js';
import { traceServer } from '../trace.js';
import { converse } from '../transport/dialogue.js';
import { FdTransport } from '../transport/fd-transport.js';
import type { Transport } from '../transport/transport.js';
import { Connection } from './connection.js';
import { handshake } from './handshake.js';
import type { Listener } from './listen.js';
import { SharedMemory } from './shared-memory.js';
import type { SharedMemoryOptions } from './shared-memory.js';

const MAX_CONNECTIONS = 64;
/** Milliseconds. */
const HANDSHAKE_DEADLINE = 10_000;
/**
 * The same once half of the places are taken: those who do nothing but take them are not to keep the
 * others out for long.
 */
const CROWDED_HANDSHAKE_DEADLINE = 3_000;
/** Milliseconds that clients get to take their last replies when the server ends. */
const CLOSE_DEADLINE = 5_000;
/** Kept for payloads to come, of all clients together. */
const KEPT_BYTES = 64 * 1024 * 1024;

export interface ServeOptions {
  /** The default export, the empty name, always leads to the disk; so does this one. */
  readonly exportName?: string;
  /** Further clients wait until one leaves. */
  readonly maxConnections?: number;
  /** Milliseconds that a client may take for its handshake. */
  readonly handshakeDeadline?: number;
  /** For the payloads of all clients. */
  readonly memory?: SharedMemoryOptions;
  /** Told when a listener can accept no more clients, and will never again. */
  readonly failed?: (error: Error) => void;
}

export interface Server {
  /** How many clients are connected, those in their handshake included. */
  readonly connections: number;
  /**
   * Accepts no further client, answers what is in flight, closes the connections and flushes the
   * disk, which stays open. May be called twice.
   * @throws ErrnoError of the flush
   */
  close(): Promise<void>;
}

/** @param listeners owned from now on */
export function serve(
  disk: Disk,
  listeners: readonly Listener[],
  options: ServeOptions = {},
): Server {
  return new DiskServer(disk, listeners, options);
}

interface Client {
  readonly transport: Transport;
  /** Ends its handshake. */
  readonly unwanted: AbortController;
  /** Undefined during the handshake. */
  connection: Connection | undefined;
  /** Never rejects. */
  gone: Promise<void>;
}

class DiskServer implements Server {
  readonly #disk: Disk;
  readonly #listeners: readonly Listener[];
  readonly #options: ServeOptions;
  readonly #pool = new BufferPool(KEPT_BYTES);
  readonly #memory: SharedMemory;
  readonly #clients = new Set<Client>();
  readonly #most: number;
  #closed: Promise<void> | undefined;

  constructor(disk: Disk, listeners: readonly Listener[], options: ServeOptions) {
    this.#disk = disk;
    this.#listeners = listeners;
    this.#options = options;
    this.#memory = new SharedMemory(options.memory);
    this.#most = options.maxConnections ?? MAX_CONNECTIONS;
    for (const listener of listeners) {
      listener.start({
        accepted: (fd) => this.#accepted(fd),
        failed: (error) => this.#options.failed?.(error),
      });
    }
  }

  get connections(): number {
    return this.#clients.size;
  }

  #accepted(fd: number): void {
    if (this.#clients.size >= this.#most) {
      // Another listener was quicker within this turn.
      native.close(fd);
      return;
    }
    const client: Client = {
      transport: new FdTransport(fd),
      unwanted: new AbortController(),
      connection: undefined,
      gone: Promise.resolve(),
    };
    this.#clients.add(client);
    client.gone = this.#attend(client);
    if (this.#clients.size >= this.#most) {
      for (const listener of this.#listeners) listener.pause();
    }
  }

  /** From the first byte to the last one. */
  async #attend(client: Client): Promise<void> {
    const { transport, unwanted } = client;
    try {
      const offered = { name: this.#options.exportName ?? '', info: this.#disk.info };
      const dialogue = handshake(offered);
      const agreed = await converse(transport, dialogue, this.#deadline, unwanted.signal);
      if (agreed === undefined) {
        traceServer('client left after its handshake');
        transport.flush();
      } else if (this.#closed === undefined) {
        traceServer('client agreed on %o', agreed);
        client.connection = new Connection(transport, this.#disk, agreed, this.#pool, this.#memory);
        await client.connection.closed;
      }
    } catch (error) {
      transport.flush();
      traceServer('handshake ended: %s', error instanceof Error ? error.message : error);
    } finally {
      transport.close();
      this.#clients.delete(client);
      if (this.#closed === undefined) for (const listener of this.#listeners) listener.resume();
    }
  }

  /** For the handshake of the client that came last, in milliseconds. */
  get #deadline(): number {
    const { handshakeDeadline = HANDSHAKE_DEADLINE } = this.#options;
    if (2 * this.#clients.size <= this.#most) return handshakeDeadline;
    return Math.min(handshakeDeadline, CROWDED_HANDSHAKE_DEADLINE);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    const clients = [...this.#clients];
    for (const client of clients) {
      if (client.connection === undefined) client.unwanted.abort();
      else client.connection.shutdown();
    }
    const deadline = setTimeout(() => {
      for (const client of clients) client.connection?.abort();
    }, CLOSE_DEADLINE);
    await Promise.all(clients.map((client) => client.gone));
    clearTimeout(deadline);
    if (this.#disk.info.canFlush && !this.#disk.info.readOnly) await flushDisk(this.#disk);
  }
}
