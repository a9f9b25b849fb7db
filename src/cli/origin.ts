/** Where the disk comes from: a captive server, or a server that somebody else runs. */

import type { NbdDisk } from '../nbd/nbd-disk.js';
import type { Target } from '../nbd/export.js';
import type { CaptiveProcess } from './captive-process.js';
import { TOO_LATE, within } from '../deadline.js';
import { CommandError } from './errors.js';
import { exitText } from './exit.js';
import { say } from './messages.js';
import type { Exit } from './exit.js';

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

/** How the server is connected to. */
export interface Connecting {
  /** Milliseconds, for each connection. */
  readonly deadline: number;
  /** How many connections are made where the server allows several. */
  readonly connections: number;
}

/** A server that was there before us, and stays. */
export class ServerOrigin implements Origin {
  readonly exclusive = false;
  readonly name: string;
  readonly mountSource: string;
  readonly #target: Target;
  readonly #connecting: Connecting;
  readonly #unwanted = new AbortController();

  /** @param name what the user called it, for messages and for /proc/mounts */
  constructor(name: string, target: Target, connecting: Connecting) {
    this.name = name;
    this.mountSource = name;
    this.#target = target;
    this.#connecting = connecting;
  }

  async connect(): Promise<NbdDisk> {
    const { connectDisk } = await import('../nbd/nbd-disk.js');
    const { signal } = this.#unwanted;
    const options = { ...this.#connecting, signal, warn: say };
    // Each would be a login of its own, and may ask for a password.
    const single = this.#target.address.kind === 'ssh';
    return connectDisk(this.#target, single ? { ...options, connections: 1 } : options);
  }

  explainLoss(reason: string): Promise<string> {
    return Promise.resolve(`${this.name}: ${reason}`);
  }

  close(): Promise<undefined> {
    this.#unwanted.abort();
    return Promise.resolve(undefined);
  }
}

/** Whether it is us who hung up, so that an end of the server would be no more than what follows. */
function wasRefused(error: unknown): boolean {
  const name = error instanceof Error && error.cause instanceof Error ? error.cause.name : '';
  return ['DeadlineError', 'HandshakeError', 'ProtocolError'].includes(name);
}

export class CaptiveOrigin implements Origin {
  readonly exclusive = true;
  readonly name: string;
  /** Not the arguments of the server: they may hold a password, and everybody can read this. */
  readonly mountSource: string;
  readonly #server: CaptiveProcess;
  readonly #options: Connecting;
  #connecting: Promise<unknown> = Promise.resolve();

  constructor(server: CaptiveProcess, options: Connecting) {
    this.#server = server;
    this.#options = options;
    this.name = `server ${server.name}`;
    this.mountSource = server.name;
  }

  async connect(): Promise<NbdDisk> {
    const { connectDisk } = await import('../nbd/nbd-disk.js');
    const { exit } = this.#server;
    if (exit !== undefined && !(await this.#livesOn(exit))) throw this.#endedEarly(exit);
    const address = this.#server.takeAddress();
    const connecting = connectDisk(
      { address, exportName: '' },
      {
        deadline: this.#options.deadline,
        connections: Math.min(this.#options.connections, this.#server.mostConnections),
      },
    );
    // The end of the server ends the wait.
    const ended = this.#server.exited.then(async (exit): Promise<NbdDisk> => {
      if (await this.#livesOn(exit)) return connecting;
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
      const exit = wasRefused(error) ? TOO_LATE : await within(this.#server.exited, SAME_EVENT);
      if (exit !== TOO_LATE) throw this.#endedEarly(exit, error);
      const message = error instanceof Error ? error.message : String(error);
      throw new CommandError(`${this.name}: ${this.#server.plainMessage(message)}`, {
        cause: error,
      });
    } finally {
      ended.catch(() => undefined);
    }
  }

  /** One that goes into the background, as qemu-nbd --fork does, may still answer. */
  async #livesOn(exit: Exit): Promise<boolean> {
    return exit.status === 0 && (await this.#server.livesOn());
  }

  #endedEarly(exit: Exit, cause?: unknown): CommandError {
    return new CommandError(`${this.name} ${exitText(exit)} before it served the disk`, { cause });
  }

  async explainLoss(reason: string): Promise<string> {
    const exit = await within(this.#server.exited, SAME_EVENT);
    // One in the background has ended long ago, and well.
    const known = exit !== TOO_LATE && exit.status !== 0;
    return known ? `${this.name} ${exitText(exit)}` : `${this.name}: ${reason}`;
  }

  async close(atOnce: boolean): Promise<string | undefined> {
    if (atOnce) this.#server.kill();
    const problem = await this.#server.stop();
    // Without its server, a connection attempt ends at once.
    await this.#connecting;
    return problem;
  }
}
