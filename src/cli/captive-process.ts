/**
 * The process of a server that we start, that serves nobody else, and that we end: its life from the
 * start to the end, however it gets its connection.
 */

import { fstatSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Address } from '../nbd/export.js';
import { traceMain } from '../trace.js';
import { TOO_LATE, within } from '../deadline.js';
import { CommandError } from './errors.js';
import { exitText } from './exit.js';
import type { Exit } from './exit.js';
import { findProgram } from '../find-program.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { Survivor } from '../survivor.js';
import { endProcesses, processesHolding } from './holders.js';
import { groupAlive, groupGone, signalGroup } from './process-group.js';
import { ServerWords } from './server-words.js';
import { spawnDetached } from './spawn.js';
import type { SpawnOptions, Spawned } from './spawn.js';

/** The package's own programs, so that `tsnbdkit` is found wherever it is installed. */
const OWN_PROGRAMS = join(PACKAGE_ROOT, 'bin');

const DEFAULT_PATH = '/usr/local/bin:/usr/bin:/bin';

/**
 * Milliseconds in which a server may end by itself once its last client has left, as qemu-nbd does:
 * a signal in the middle of that would only add noise.
 */
const END_BY_ITSELF = 100;
/** Milliseconds from SIGTERM to SIGKILL: a server may have much to write. */
const END_DEADLINE = 10_000;
/** Milliseconds after SIGKILL. A process that does not go even then hangs in the kernel. */
const KILL_DEADLINE = 2_000;

/** Where Debian has the servers that are asked for most. */
const PACKAGES: ReadonlyMap<string, string> = new Map([
  ['qemu-nbd', 'qemu-utils'],
  ['nbdkit', 'nbdkit'],
]);

export type CaptiveCommand = readonly [string, ...string[]];

export interface CaptiveOptions {
  /**
   * Pass the server's standard output on too, and not its standard error alone. Servers say nothing
   * there; a program that is no server may say gigabytes.
   */
  readonly showOutput: boolean;
  /** Keep what it says on its standard error, as `words`, and do not let it say that to the user. */
  readonly keepWords?: boolean;
  readonly env?: NodeJS.ProcessEnv;
  /** Milliseconds from SIGTERM to SIGKILL, when it is to end. */
  readonly endDeadline?: number;
}

/** How the server gets its connection. */
export interface Link {
  /** The server's end. */
  readonly fd: number;
  readonly input: SpawnOptions['input'];
  readonly output: SpawnOptions['output'];
  /** Its descriptors from 3 on; the line to the guardian comes behind them. */
  readonly descriptors: readonly number[];
  /**
   * What a shell runs that has the command in its arguments: it writes its group to the guardian, and
   * becomes the server by exec. No word of the user is parsed by it.
   */
  readonly script: string;
  /** Variables to be set, or taken away. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Removed at the end, whatever the end is. */
  readonly directory: string | undefined;
  /** Frees what is ours of it; may be called twice. */
  readonly release: () => void;
}

/** What a subclass is made of. */
export interface Launched {
  readonly name: string;
  readonly link: Link;
  readonly guardian: Survivor;
  readonly child: Spawned;
  readonly group: number;
  /** By which its end of the link is seen in /proc. */
  readonly socket: string;
  readonly endDeadline: number;
}

/** @throws CommandError */
export async function checkCommand(command: CaptiveCommand, env: NodeJS.ProcessEnv): Promise<void> {
  const [name] = command;
  const lookup = await findProgram(name, searchPath(env));
  if (lookup.found) return;
  const debian = PACKAGES.get(name);
  const advice = debian === undefined ? '' : `; on Debian: apt install ${debian}`;
  throw new CommandError(`server command ${name} ${lookup.reason}${advice}`, {
    failure: 'unreachable',
  });
}

const searchPath = (env: NodeJS.ProcessEnv): string =>
  [OWN_PROGRAMS, env['PATH'] ?? DEFAULT_PATH].join(delimiter);

/**
 * Starts the process. Where that fails, what is ours of the link is the caller's to free.
 * @throws CommandError
 */
export async function launch(
  command: CaptiveCommand,
  options: CaptiveOptions,
  link: Link,
): Promise<Launched> {
  const [name] = command;
  const inherited = options.env ?? process.env;
  const env: NodeJS.ProcessEnv = { ...inherited, PATH: searchPath(inherited) };
  for (const [variable, value] of Object.entries(link.env)) {
    if (value === undefined) Reflect.deleteProperty(env, variable);
    else env[variable] = value;
  }
  // The whole group, for the sake of wrapper scripts: PR_SET_PDEATHSIG would reach one process only, and
  // not survive all of what a wrapper may do.
  const guardian = Survivor.start({ directory: link.directory });
  try {
    const child = spawnDetached('/bin/sh', ['-c', link.script, 'sh', ...command], {
      input: link.input,
      output: link.output,
      error: options.keepWords === true ? 'pipe' : 'inherit',
      descriptors: [...link.descriptors, guardian.fd],
      env,
    });
    if (child.pid === undefined) {
      const { failure } = await child.exited;
      throw new CommandError(`server ${name} could not be started: ${failure ?? 'unknown error'}`, {
        failure: 'unreachable',
      });
    }
    traceMain('server %s is process %d', name, child.pid);
    return {
      name,
      link,
      guardian,
      child,
      group: child.pid,
      socket: `socket:[${fstatSync(link.fd).ino}]`,
      endDeadline: options.endDeadline ?? END_DEADLINE,
    };
  } catch (error) {
    await guardian.release();
    throw error;
  }
}

export abstract class CaptiveProcess {
  /** As the user wrote it. */
  readonly name: string;
  /** Undefined where it speaks for itself. */
  readonly words: ServerWords | undefined;
  readonly exited: Promise<Exit>;
  readonly #link: Link;
  readonly #guardian: Survivor;
  readonly #group: number;
  readonly #socket: string;
  readonly #endDeadline: number;
  #exit: Exit | undefined;
  #outlivedKill = false;
  #stopped: Promise<string | undefined> | undefined;

  constructor({ name, link, guardian, child, group, socket, endDeadline }: Launched) {
    this.name = name;
    this.words = child.errors === undefined ? undefined : new ServerWords(child.errors);
    this.#link = link;
    this.#guardian = guardian;
    this.#group = group;
    this.#socket = socket;
    this.#endDeadline = endDeadline;
    this.exited = child.exited.then((exit) => {
      this.#exit = exit;
      traceMain('server %s %s', name, exitText(exit));
      if (!groupAlive(group)) {
        // The number of a group without a process may be given to another one.
        void guardian.release();
        void this.#releaseDeserted();
      }
      return exit;
    });
  }

  /** How many connections it can take at the most. */
  abstract readonly mostConnections: number;

  /** Where to connect to, for a disk that is opened once. */
  abstract takeAddress(): Address;

  /** What a message says of its address, which the user never asked for, is put right. */
  abstract plainMessage(message: string): string;

  /** Undefined while it runs. */
  get exit(): Exit | undefined {
    return this.#exit;
  }

  /**
   * Ends it, with all the processes that it started, and removes its socket. Comes after the last
   * connection is closed. May be called twice; what the first call says counts.
   *
   * @param deadline milliseconds from SIGTERM to SIGKILL, where that is not CaptiveOptions.endDeadline
   * @returns a sentence about what went wrong with that, or undefined. How a server ended that was
   *   gone before is not told again.
   */
  stop(deadline = this.#endDeadline): Promise<string | undefined> {
    this.#stopped ??= this.#stop(deadline);
    return this.#stopped;
  }

  /** It was to be ended and could not be: it hangs in the kernel, and still has its image. */
  get isStuck(): boolean {
    return this.#outlivedKill && groupAlive(this.#group);
  }

  /** Ends it without giving it time. `stop` is to be called all the same. */
  kill(): void {
    if (this.#exit === undefined) signalGroup(this.#group, 'SIGKILL');
  }

  async #stop(deadline: number): Promise<string | undefined> {
    try {
      if (this.#exit === undefined) return await this.#end(deadline);
      return (await this.#endRest(deadline)) ?? (await this.#endStrays(deadline));
    } finally {
      await this.#guardian.release();
      this.#link.release();
    }
  }

  async #end(deadline: number): Promise<string | undefined> {
    const terminated = (await within(this.exited, END_BY_ITSELF)) === TOO_LATE;
    const problem = await this.#endRest(deadline);
    // Also one that was killed is to be reaped.
    const exit = await within(this.exited, KILL_DEADLINE);
    if (problem !== undefined) return problem;
    if (exit === TOO_LATE) return `server ${this.name} is gone without an exit status`;
    if (exit.status === 0) return undefined;
    if (terminated && (exit.signal === 'SIGTERM' || exit.status === 128 + 15)) return undefined;
    return `server ${this.name} ${exitText(exit)} when it ended; what was written may be incomplete`;
  }

  /** Ends what there is of the group, which may be without its leader. */
  async #endRest(deadline: number): Promise<string | undefined> {
    if (!groupAlive(this.#group)) return undefined;
    signalGroup(this.#group, 'SIGTERM');
    // One that somebody has stopped would not hear of it.
    signalGroup(this.#group, 'SIGCONT');
    traceMain('server %s was sent SIGTERM', this.name);
    if (await groupGone(this.#group, deadline)) return undefined;
    signalGroup(this.#group, 'SIGKILL');
    const gone = await groupGone(this.#group, KILL_DEADLINE);
    this.#outlivedKill = !gone;
    return gone
      ? `server ${this.name} did not end within ${deadline / 1000} s and was killed`
      : `server ${this.name} cannot be killed: process group ${this.#group} is still there`;
  }

  /** Whether the command has ended and left a server behind, in the background: it has what we gave it. */
  async livesOn(): Promise<boolean> {
    return (await processesHolding(this.#socket)).length > 0;
  }

  async #releaseDeserted(): Promise<void> {
    if (!(await this.livesOn())) this.#link.release();
  }

  /** Ends a server that went into the background, out of its group. */
  async #endStrays(deadline: number): Promise<string | undefined> {
    const strays = await processesHolding(this.#socket);
    if (strays.length === 0) return undefined;
    traceMain('server %s left behind: %o', this.name, strays);
    const left = await endProcesses(strays, deadline, KILL_DEADLINE);
    return left.length === 0
      ? undefined
      : `server ${this.name} went into the background and cannot be killed: process ${left.join(', ')}`;
  }
}
