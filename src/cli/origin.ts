/** Where the disk comes from: a captive server, or a server that somebody else runs. */

import type { NbdDisk } from '../nbd/nbd-disk.js';
import type { Target } from '../nbd/export.js';
import type { CaptiveServer } from './captive-server.js';
import { TOO_LATE, within } from '../deadline.js';
import { CommandError } from './errors.js';
import { exitText } from './exit.js';
import type { Exit } from './exit.js';

/**
 * How many connections are made where the server allows several. More than a few help only a server
 * that serves each with a thread of its own.
 */
const CONNECTIONS = 4;

/** Milliseconds in which the end of a connection and the end of its server belong together. */
const SAME_EVENT = 500;

export interface Origin {
  /** For messages: `server qemu-nbd`, or the URI. */
  readonly name: string;
  /** For /proc/mounts. */
  readonly mountSource: string;
  /** Nobody else can reach the disk. */
  readonly exclusive: boolean;
  /** @throws HandshakeError; CommandError */
  connect(): Promise<NbdDisk>;
  /** A sentence about the loss of the disk, without a full stop. */
  explainLoss(reason: string): Promise<string>;
  /**
   * Comes after the disk is closed.
   * @param atOnce a captive server gets no time to end by itself
   * @returns a sentence about what went wrong, or undefined
   */
  close(atOnce: boolean): Promise<string | undefined>;
}

export class UriOrigin implements Origin {
  readonly exclusive = false;
  readonly name: string;
  readonly mountSource: string;
  readonly #target: Target;
  readonly #deadline: number;
  readonly #unwanted = new AbortController();

  /** @param deadline milliseconds */
  constructor(uri: string, target: Target, deadline: number) {
    this.name = uri;
    this.mountSource = uri;
    this.#target = target;
    this.#deadline = deadline;
  }

  async connect(): Promise<NbdDisk> {
    const { connectDisk } = await import('../nbd/nbd-disk.js');
    return connectDisk(this.#target, {
      deadline: this.#deadline,
      // Each would be a login of its own, and may ask for a password.
      connections: this.#target.address.kind === 'ssh' ? 1 : CONNECTIONS,
      signal: this.#unwanted.signal,
    });
  }

  explainLoss(reason: string): Promise<string> {
    return Promise.resolve(`${this.name}: ${reason}`);
  }

  close(): Promise<undefined> {
    this.#unwanted.abort();
    return Promise.resolve(undefined);
  }
}

export class CaptiveOrigin implements Origin {
  readonly exclusive = true;
  readonly name: string;
  /** Not the arguments of the server: they may hold a password, and everybody can read this. */
  readonly mountSource: string;
  readonly #server: CaptiveServer;
  readonly #deadline: number;
  #connecting: Promise<unknown> = Promise.resolve();

  /** @param deadline milliseconds */
  constructor(server: CaptiveServer, deadline: number) {
    this.#server = server;
    this.#deadline = deadline;
    this.name = `server ${server.name}`;
    this.mountSource = server.name;
  }

  async connect(): Promise<NbdDisk> {
    const { connectDisk } = await import('../nbd/nbd-disk.js');
    const address = { kind: 'unix', path: this.#server.socketPath } as const;
    const connecting = connectDisk(
      { address, exportName: '' },
      { deadline: this.#deadline, connections: CONNECTIONS },
    );
    // The end of the server ends the wait, also where a process that it left behind holds the socket.
    const ended = this.#server.exited.then((exit): never => {
      throw this.#endedEarly(exit);
    });
    try {
      return await Promise.race([connecting, ended]);
    } catch (error) {
      // Whoever came in late is not wanted any more.
      this.#connecting = connecting.then(
        (disk) => disk.close(),
        () => undefined,
      );
      if (error instanceof CommandError) throw error;
      const exit = await within(this.#server.exited, SAME_EVENT);
      if (exit !== TOO_LATE) throw this.#endedEarly(exit, error);
      throw new CommandError(`${this.name}: ${this.#withoutSocket(error)}`, { cause: error });
    } finally {
      ended.catch(() => undefined);
    }
  }

  /** The path of a socket that the user never asked for says nothing to them. */
  #withoutSocket(error: unknown): string {
    const message = error instanceof Error ? error.message : String(error);
    const { socketPath } = this.#server;
    return message
      .replace(`NBD server at ${socketPath}: `, '')
      .replace(`cannot connect to ${socketPath}: `, 'cannot connect: ');
  }

  #endedEarly(exit: Exit, cause?: unknown): CommandError {
    return new CommandError(`${this.name} ${exitText(exit)} before it served the disk`, { cause });
  }

  async explainLoss(reason: string): Promise<string> {
    const exit = await within(this.#server.exited, SAME_EVENT);
    return exit === TOO_LATE ? `${this.name}: ${reason}` : `${this.name} ${exitText(exit)}`;
  }

  async close(atOnce: boolean): Promise<string | undefined> {
    if (atOnce) this.#server.kill();
    const problem = await this.#server.stop();
    // Without its server, a connection attempt ends at once.
    await this.#connecting;
    return problem;
  }
}
