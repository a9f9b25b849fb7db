/**
 * A server that we start, that serves nobody else, and that we end: by systemd's socket activation
 * (sd_listen_fds(3)), over a socket in a directory that nobody else can enter.
 */

import { fileURLToPath } from 'node:url';
import { delimiter } from 'node:path';
import { checkResult } from '../errno.js';
import { native } from '../native.js';
import { traceMain } from '../trace.js';
import { TOO_LATE, within } from '../deadline.js';
import { CommandError } from './errors.js';
import { exitText } from './exit.js';
import type { Exit } from './exit.js';
import { findProgram } from '../find-program.js';
import { Guardian } from './guardian.js';
import { PrivateDirectory } from './private-directory.js';
import { groupAlive, groupGone, signalGroup } from './process-group.js';
import { spawnDetached } from './spawn.js';
import type { Spawned } from './spawn.js';

/** The package's own programs, so that `tsnbdkit` is found wherever it is installed. */
const OWN_PROGRAMS = fileURLToPath(new URL('../../../bin', import.meta.url));

const DEFAULT_PATH = '/usr/local/bin:/usr/bin:/bin';
const BACKLOG = 64;

/**
 * Milliseconds in which a server may end by itself once its last client has left, as qemu-nbd does:
 * a signal in the middle of that would only add noise.
 */
const END_BY_ITSELF = 100;
/** Milliseconds from SIGTERM to SIGKILL: a server may have much to write. */
const END_DEADLINE = 10_000;
/** Milliseconds after SIGKILL. A process that does not go even then hangs in the kernel. */
const KILL_DEADLINE = 2_000;

// LISTEN_PID has to be the id of the very process that is to listen, which Node cannot know before it
// exists: a shell sets it, and becomes the server by exec. No word of the user is parsed by it.
// Descriptor 3 is the socket, 4 leads to the guardian.
const BECOME_SERVER = `echo $$ >&4
exec 4>&-
LISTEN_PID=$$
export LISTEN_PID
exec "$@"`;

/** Where Debian has the servers that are asked for most. */
const PACKAGES: ReadonlyMap<string, string> = new Map([
  ['qemu-nbd', 'qemu-utils'],
  ['nbdkit', 'nbdkit'],
]);

export interface CaptiveOptions {
  /**
   * Pass the server's standard output on too, and not its standard error alone. Servers say nothing
   * there; a program that is no server may say gigabytes.
   */
  readonly showOutput: boolean;
  readonly env?: NodeJS.ProcessEnv;
  /** Milliseconds from SIGTERM to SIGKILL, when it is to end. */
  readonly endDeadline?: number;
}

export class CaptiveServer {
  /** As the user wrote it. */
  readonly name: string;
  readonly exited: Promise<Exit>;
  readonly #directory: PrivateDirectory;
  readonly #guardian: Guardian;
  readonly #group: number;
  readonly #endDeadline: number;
  #exit: Exit | undefined;
  #stopped: Promise<string | undefined> | undefined;

  private constructor(
    name: string,
    directory: PrivateDirectory,
    guardian: Guardian,
    child: Spawned,
    group: number,
    endDeadline: number,
  ) {
    this.name = name;
    this.#directory = directory;
    this.#guardian = guardian;
    this.#group = group;
    this.#endDeadline = endDeadline;
    this.exited = child.exited.then((exit) => {
      this.#exit = exit;
      traceMain('server %s %s', name, exitText(exit));
      if (!groupAlive(group)) {
        // The number of a group without a process may be given to another one.
        void guardian.release();
        directory.remove();
      }
      return exit;
    });
  }

  /**
   * Returns once the server is started, when it may not listen to its socket yet: a connection made
   * before it does waits in the backlog.
   *
   * @throws CommandError
   */
  static async start(
    command: readonly [string, ...string[]],
    options: CaptiveOptions,
  ): Promise<CaptiveServer> {
    const [name] = command;
    const env: NodeJS.ProcessEnv = { ...(options.env ?? process.env) };
    const path = [OWN_PROGRAMS, env['PATH'] ?? DEFAULT_PATH].join(delimiter);
    const lookup = await findProgram(name, path);
    if (!lookup.found) {
      const debian = PACKAGES.get(name);
      const advice = debian === undefined ? '' : `; on Debian: apt install ${debian}`;
      throw new CommandError(`server command ${name} ${lookup.reason}${advice}`);
    }
    Object.assign(env, { PATH: path, LISTEN_FDS: '1', LISTEN_FDNAMES: 'unknown' });
    delete env['LISTEN_PID'];

    const directory = await PrivateDirectory.create(options.env);
    let guardian: Guardian | undefined;
    let listener = -1;
    try {
      const { socketPath } = directory;
      listener = checkResult(native.unixListen(socketPath, BACKLOG), `listen on ${socketPath}`);
      // As systemd passes it: a server may wait in accept(2) without having polled before.
      checkResult(native.setNonblocking(listener, false), 'fcntl');
      guardian = Guardian.start(directory.path);
      const child = spawnDetached('/bin/sh', ['-c', BECOME_SERVER, 'sh', ...command], {
        output: options.showOutput ? 'inherit' : 'ignore',
        error: 'inherit',
        descriptors: [listener, guardian.fd],
        env,
      });
      if (child.pid === undefined) {
        const { failure } = await child.exited;
        throw new CommandError(
          `server ${name} could not be started: ${failure ?? 'unknown error'}`,
        );
      }
      traceMain('server %s is process %d, its socket %s', name, child.pid, socketPath);
      const endDeadline = options.endDeadline ?? END_DEADLINE;
      return new CaptiveServer(name, directory, guardian, child, child.pid, endDeadline);
    } catch (error) {
      await guardian?.release();
      directory.remove();
      throw error;
    } finally {
      // While we hold it, too, a connection to a server that has died would wait for ever.
      if (listener >= 0) native.close(listener);
    }
  }

  get socketPath(): string {
    return this.#directory.socketPath;
  }

  /** Undefined while it runs. */
  get exit(): Exit | undefined {
    return this.#exit;
  }

  /**
   * Ends it, with all the processes that it started, and removes its socket. Comes after the last
   * connection is closed. May be called twice.
   *
   * @returns a sentence about what went wrong with that, or undefined. How a server ended that was
   *   gone before is not told again.
   */
  stop(): Promise<string | undefined> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  /** Ends it without giving it time. `stop` is to be called all the same. */
  kill(): void {
    if (this.#exit === undefined) signalGroup(this.#group, 'SIGKILL');
  }

  async #stop(): Promise<string | undefined> {
    try {
      return this.#exit === undefined ? await this.#end() : await this.#endRest();
    } finally {
      await this.#guardian.release();
      this.#directory.remove();
    }
  }

  async #end(): Promise<string | undefined> {
    const terminated = (await within(this.exited, END_BY_ITSELF)) === TOO_LATE;
    const problem = await this.#endRest();
    // Also one that was killed is to be reaped.
    const exit = await within(this.exited, KILL_DEADLINE);
    if (problem !== undefined) return problem;
    if (exit === TOO_LATE) return `server ${this.name} is gone without an exit status`;
    if (exit.status === 0) return undefined;
    if (terminated && (exit.signal === 'SIGTERM' || exit.status === 128 + 15)) return undefined;
    return `server ${this.name} ${exitText(exit)} when it ended; what was written may be incomplete`;
  }

  /** Ends what there is of the group, which may be without its leader. */
  async #endRest(): Promise<string | undefined> {
    if (!groupAlive(this.#group)) return undefined;
    signalGroup(this.#group, 'SIGTERM');
    traceMain('server %s was sent SIGTERM', this.name);
    if (await groupGone(this.#group, this.#endDeadline)) return undefined;
    signalGroup(this.#group, 'SIGKILL');
    const gone = await groupGone(this.#group, KILL_DEADLINE);
    return gone
      ? `server ${this.name} did not end within ${this.#endDeadline / 1000} s and was killed`
      : `server ${this.name} cannot be killed: process group ${this.#group} is still there`;
  }
}
