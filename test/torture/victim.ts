/** The server of a round: started, killed, stalled, robbed of its power, and started again in the same place. */

import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { within } from '../../src/deadline.js';
import { until } from '../support/mounts.js';
import type { Running, Workplace } from '../support/mounts.js';
import type { Network } from './network.js';
import type { Plan, PowerCut } from './plan.js';
import { SERVERS, checkImage, prepareServer, uriOf, writeConfig } from './servers.js';
import type { Files, ServerSpec } from './servers.js';

/** Milliseconds; the longest timer there is. */
const FOR_EVER = 2 ** 31 - 1;
/** Milliseconds that it gets to end by itself. */
const STOP_PATIENCE = 10_000;

/** What faults are done to. */
export interface Victim {
  readonly files: Files;
  /** At once. Resolves when nothing of it is left. */
  kill(): Promise<void>;
  /** After it was killed. Resolves when it serves. */
  start(): Promise<void>;
  /** It answers nothing and does not end, until it is resumed. */
  stall(): Promise<void>;
  resume(): Promise<void>;
  /** @returns how many sectors lost what was written last */
  powerCut(how: PowerCut): Promise<number>;
  /** As a user would, and so that all is in the image that has to be. May be called twice. */
  stop(): Promise<void>;
}

/** @param name 0 is none, to look who is there @returns whether there was anybody to get it */
export function signal(pid: number, name: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, name);
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether a process group has a member that lives. A server may have a process for each client, which goes on
 * without the first one.
 */
function isThere(group: number): boolean {
  return readdirSync('/proc').some((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      // Behind the name of the program: its state, its parent, its group (proc(5)).
      const [state, , itsGroup] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(itsGroup) === group && state !== 'Z';
    } catch {
      return false;
    }
  });
}

export class ServerVictim implements Victim {
  readonly files: Files;
  readonly uri: string;
  readonly #place: Workplace;
  readonly #plan: Plan;
  readonly #spec: ServerSpec;
  readonly #network: Network | undefined;
  /** How it ended when nobody had asked for that. */
  readonly crashes: string[] = [];
  #running: Running | undefined;
  /** The process group; 0 while it is not running. */
  #group = 0;
  /** It is to run: when it ends, it has crashed. */
  #isWanted = false;
  /** After a crash it is started again. */
  #revival: Promise<void> = Promise.resolve();

  private constructor(place: Workplace, plan: Plan, files: Files, network: Network | undefined) {
    this.#place = place;
    this.#plan = plan;
    this.#spec = SERVERS[plan.server];
    this.#network = network;
    this.files = files;
    this.uri = uriOf(this.#spec, files, network?.address);
  }

  static async start(place: Workplace, plan: Plan, network?: Network): Promise<ServerVictim> {
    const files = await prepareServer(place, SERVERS[plan.server]);
    const victim = new ServerVictim(place, plan, files, network);
    await writeConfig(victim.#spec, files, network?.address);
    await victim.start();
    return victim;
  }

  async start(): Promise<void> {
    const { socket, pidfile } = this.files;
    for (const path of [socket, pidfile]) rmSync(path, { force: true });
    const command = [
      ...(this.#network?.enter ?? []),
      ...this.#spec.command(this.files, this.#plan, this.#network?.address),
    ];
    const [program = '', ...args] = command;
    const running = this.#place.start(program, args, {
      deadline: FOR_EVER,
      detached: true,
      talk: true,
    });
    this.#running = running;
    const isDaemon = this.#spec.daemon === true;
    await until('the server serves', () => {
      if (running.hasEnded && !isDaemon) {
        throw new Error(`${command.join(' ')} ended: ${running.stderr}`);
      }
      return this.#readPid() > 0 && (this.#network !== undefined || existsSync(socket));
    });
    this.#group = isDaemon ? this.#readPid() : running.pid;
    this.#isWanted = true;
    if (!isDaemon && this.#spec.isOurs !== true) {
      this.#revival = running.ended.then(() => this.#revive(running));
      // Told to the next who wants something of it.
      this.#revival.catch(() => undefined);
    }
  }

  /**
   * Starts a server again that has crashed, as whoever supervises it would: nbdkit 1.32 aborts now and then when
   * a connection is reset while it answers (connections.c, "Assertion `sock >= 0' failed").
   */
  async #revive(crashed: Running): Promise<void> {
    if (!this.#isWanted || crashed !== this.#running) return;
    this.crashes.push(await this.state());
    await this.#killed();
    await this.start();
  }

  /** Nothing is done to it while it is started again. @throws Error that it could not be */
  async #settled(): Promise<void> {
    if (this.#running?.hasEnded === true) await this.#revival;
  }

  /** 0 when there is none yet. */
  #readPid(): number {
    try {
      return Number(readFileSync(this.files.pidfile, 'utf8'));
    } catch {
      return 0;
    }
  }

  /** For a report: whether it runs, or how it ended, and what it said. */
  async state(): Promise<string> {
    const running = this.#running;
    if (running === undefined) return 'was not started';
    if (!running.hasEnded) return `runs; it said:\n${running.stderr}`;
    const { status, signal: killer } = await running.ended;
    return `ended with ${killer ?? status}; it said:\n${running.stderr}`;
  }

  async kill(): Promise<void> {
    await this.#settled();
    this.#isWanted = false;
    this.#signal('SIGKILL');
    await this.#killed();
  }

  /** @throws Error that there is no server any more, to which nothing would have been done */
  #signal(name: NodeJS.Signals): void {
    if (this.#group === 0 || !signal(-this.#group, name)) {
      throw new Error(`the server had ended by itself: ${this.#running?.stderr ?? ''}`);
    }
  }

  async #killed(): Promise<void> {
    signal(-this.#group, 'SIGKILL');
    await this.#gone(this.#group);
    this.#group = 0;
    await checkImage(this.#place, this.#spec, this.files);
  }

  async #gone(group: number): Promise<void> {
    await until('the server is gone', () => group === 0 || !isThere(group));
    if (this.#spec.daemon !== true) await this.#running?.ended;
  }

  async stall(): Promise<void> {
    await this.#settled();
    this.#signal('SIGSTOP');
  }

  resume(): Promise<void> {
    signal(-this.#group, 'SIGCONT');
    return Promise.resolve();
  }

  async powerCut({ kept, when }: PowerCut): Promise<number> {
    const running = this.#running;
    this.#isWanted = false;
    running?.tell(`cut ${kept} ${when}\n`);
    await this.#gone(this.#group);
    this.#group = 0;
    const [, lost] = running?.stdout.trim().split(' ') ?? [];
    if (lost === undefined)
      throw new Error(`the server did not lose its power: ${running?.stderr ?? ''}`);
    return Number(lost);
  }

  async stop(): Promise<void> {
    await this.#settled();
    this.#isWanted = false;
    if (this.#group === 0) return;
    if (this.#spec.forgets !== true) {
      signal(-this.#group, 'SIGTERM');
      // One whose clients stay may not end: a mount that has failed.
      await within(this.#gone(this.#group), STOP_PATIENCE);
    }
    await this.#killed();
  }
}
