/** Where the disk comes from: a captive server, or a server that somebody else runs. */

import type { ConnectOptions, NbdDisk, RecoverySettings } from '../nbd/nbd-disk.js';
import { HandshakeError } from '../nbd/errors.js';
import type { Target } from '../nbd/export.js';
import type { CaptiveProcess } from './captive-process.js';
import { TOO_LATE, within } from '../deadline.js';
import { CommandError } from './errors.js';
import { exitText } from './exit.js';
import { say } from './messages.js';
import type { Exit } from './exit.js';
import type { Patience } from './options.js';

/** Milliseconds in which the end of a connection and the end of its server belong together. */
const SAME_EVENT = 500;

/** Milliseconds for a captive server to end that did not answer, or could not be connected to. */
const LOST_SERVER_END = 3_000;

export interface Origin {
  /** For messages: `server qemu-nbd`, or the URI. */
  readonly name: string;
  /** For /proc/mounts. */
  readonly mountSource: string;
  /** Nobody else can reach the disk. */
  readonly exclusive: boolean;
  /** All files that the server opens, as absolute paths without links; undefined where that is not known. */
  readonly files?: readonly string[];
  /** @throws HandshakeError; CommandError */
  connect(): Promise<NbdDisk>;
  /** A sentence about the loss of the disk, without a full stop. */
  explainLoss(reason: string): Promise<string>;
  /**
   * Comes after the disk is closed.
   * @returns a sentence about what went wrong, or undefined
   */
  close(urgency: Urgency): Promise<string | undefined>;
}

/**
 * How much time a captive server gets to end: as much as it may need, little as it did not answer, or none.
 */
export type Urgency = 'in its time' | 'soon' | 'at once';

/** How the server is connected to. */
export interface Connecting {
  /** Milliseconds, for each connection. */
  readonly deadline: number;
  /** How many connections are made where the server allows several. */
  readonly connections: number;
  readonly patience: Patience;
}

/** @param name of the server, for messages */
function recoveryOf(
  { patience }: Connecting,
  name: string,
  retarget?: RecoverySettings['retarget'],
): Pick<ConnectOptions, 'timeout' | 'recovery'> {
  const { timeout, reconnect, forever, unflushedLimit } = patience;
  const recovery: RecoverySettings | undefined =
    reconnect === undefined
      ? undefined
      : {
          patience: reconnect,
          forever,
          unflushedLimit,
          retarget,
          report: (line) => say(`${name}: ${line}`),
        };
  return { timeout, recovery };
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
    const { deadline, connections } = this.#connecting;
    const recovery = recoveryOf(this.#connecting, this.name);
    const options = { deadline, connections, signal, warn: say, ...recovery };
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

/** What is known of a captive server beside its command. */
export interface AboutServer {
  readonly mountSource: string;
  readonly files: readonly string[];
  /** Why it ended before it served the disk: a whole sentence. */
  readonly explainEnd: (words: string, exit: Exit) => string;
  /** Shows what it says while it serves. */
  readonly passOn: (text: string) => void;
  /** Comes after its end. */
  readonly release: () => Promise<void> | undefined;
}

export class CaptiveOrigin implements Origin {
  readonly exclusive = true;
  readonly name: string;
  /** Not the arguments of the server: they may hold a password, and everybody can read this. */
  readonly mountSource: string;
  readonly files?: readonly string[];
  readonly #about: AboutServer | undefined;
  #server: CaptiveProcess;
  readonly #options: Connecting;
  readonly #start: () => Promise<CaptiveProcess>;
  /** The server that was started again, on its way. */
  #restarting: Promise<CaptiveProcess> | undefined;
  #isClosed = false;
  #connecting: Promise<unknown> = Promise.resolve();

  /** @param start starts the server once more, where it is to be restarted */
  constructor(
    server: CaptiveProcess,
    options: Connecting,
    start: () => Promise<CaptiveProcess>,
    about?: AboutServer,
  ) {
    this.#server = server;
    this.#options = options;
    this.#start = start;
    this.name = `server ${server.name}`;
    this.mountSource = about?.mountSource ?? server.name;
    this.#about = about;
    if (about !== undefined) this.files = about.files;
  }

  async connect(): Promise<NbdDisk> {
    const { connectDisk } = await import('../nbd/nbd-disk.js');
    const { exit } = this.#server;
    if (exit !== undefined && !(await this.#livesOn(exit))) throw await this.#endedEarly(exit);
    const address = this.#server.takeAddress();
    const connecting = connectDisk(
      { address, exportName: '' },
      {
        deadline: this.#options.deadline,
        connections: Math.min(this.#options.connections, this.#server.mostConnections),
        ...recoveryOf(this.#options, this.name, (failed) => this.#again(failed)),
      },
    );
    // The end of the server ends the wait.
    const ended = this.#server.exited.then(async (exit): Promise<NbdDisk> => {
      if (await this.#livesOn(exit)) return connecting;
      throw await this.#endedEarly(exit);
    });
    try {
      const disk = await Promise.race([connecting, ended]);
      this.#letSpeak();
      return disk;
    } catch (error) {
      // Whoever came in late is not wanted any more.
      this.#connecting = connecting.then(
        (disk) => disk.close(),
        () => undefined,
      );
      if (error instanceof CommandError) throw error;
      const exit = wasRefused(error) ? TOO_LATE : await within(this.#server.exited, SAME_EVENT);
      if (exit !== TOO_LATE) throw await this.#endedEarly(exit, error);
      this.#letSpeak();
      const message = error instanceof Error ? error.message : String(error);
      throw new CommandError(`${this.name}: ${this.#server.plainMessage(message)}`, {
        cause: error,
        failure: error instanceof HandshakeError ? error.failure : 'unreachable',
      });
    } finally {
      ended.catch(() => undefined);
    }
  }

  /**
   * Where the server is now: one that has ended is started again, and so is one that cannot be connected to.
   * @param failed how many attempts to connect again have failed
   * @throws CommandError
   */
  async #again(failed: number): Promise<Target> {
    const { exit, mostConnections } = this.#server;
    const isThere = exit === undefined || (await this.#livesOn(exit));
    if (!isThere || failed > 0 || mostConnections === 1) await this.#restart();
    return { address: this.#server.takeAddress(), exportName: '' };
  }

  async #restart(): Promise<void> {
    this.#restarting ??= this.#replaceServer();
    try {
      await this.#restarting;
    } finally {
      this.#restarting = undefined;
    }
  }

  async #replaceServer(): Promise<CaptiveProcess> {
    // Never two of them at one image.
    await this.#server.stop(LOST_SERVER_END);
    if (this.#server.isStuck) {
      throw new CommandError(`${this.name} cannot be killed, and may still write`);
    }
    if (this.#isClosed) throw new CommandError(`${this.name} is not wanted any more`);
    const server = await this.#start();
    this.#server = server;
    this.#letSpeak();
    return server;
  }

  /** One that goes into the background, as qemu-nbd --fork does, may still answer. */
  async #livesOn(exit: Exit): Promise<boolean> {
    return exit.status === 0 && (await this.#server.livesOn());
  }

  #letSpeak(): void {
    if (this.#about !== undefined) this.#server.words?.passOn(this.#about.passOn);
  }

  async #endedEarly(exit: Exit, cause?: unknown): Promise<CommandError> {
    const words = await this.#server.words?.last();
    const why =
      this.#about === undefined || words === undefined
        ? `${this.name} ${exitText(exit)} before it served the disk`
        : this.#about.explainEnd(words, exit);
    return new CommandError(why, { cause, failure: 'unreachable' });
  }

  async explainLoss(reason: string): Promise<string> {
    const exit = await within(this.#server.exited, SAME_EVENT);
    // One in the background has ended long ago, and well. Of one that was started again it is no matter how.
    const isFinal = this.#options.patience.reconnect === undefined;
    const known = isFinal && exit !== TOO_LATE && exit.status !== 0;
    return known ? `${this.name} ${exitText(exit)}` : `${this.name}: ${reason}`;
  }

  async close(urgency: Urgency): Promise<string | undefined> {
    this.#isClosed = true;
    if (urgency === 'at once') this.#server.kill();
    await this.#restarting?.catch(() => undefined);
    if (urgency === 'at once') this.#server.kill();
    const problem = await this.#server.stop(urgency === 'soon' ? LOST_SERVER_END : undefined);
    // Without its server, a connection attempt ends at once.
    await this.#connecting;
    await this.#about?.release();
    return problem;
  }
}
