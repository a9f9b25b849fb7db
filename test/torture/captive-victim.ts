/** A server that tsnbdfuse has started, and starts again when it is killed. */

import { until } from '../support/mounts.js';
import type { Workplace } from '../support/mounts.js';
import { hasEnded } from '../support/real-servers.js';
import type { Plan } from './plan.js';
import { SERVERS, prepareServer } from './servers.js';
import type { Files } from './servers.js';
import { signal } from './victim.js';
import type { Victim } from './victim.js';

export class CaptiveVictim implements Victim {
  readonly files: Files;
  /** Of the server, for the command line. */
  readonly command: readonly string[];
  readonly #place: Workplace;
  #stalled: number | undefined;

  private constructor(place: Workplace, plan: Plan, files: Files) {
    this.#place = place;
    this.files = files;
    this.command = SERVERS[plan.server].command(files, plan, undefined);
  }

  static async prepare(place: Workplace, plan: Plan): Promise<CaptiveVictim> {
    return new CaptiveVictim(place, plan, await prepareServer(place, SERVERS[plan.server]));
  }

  async #pid(): Promise<number | undefined> {
    const processes = [...(await this.#place.processes())];
    const [program = ''] = this.command;
    return processes.find(([pid, line]) => line.startsWith(program) && !hasEnded(pid))?.[0];
  }

  /** Where it has just been given up there is none until it is started again. */
  async #signal(name: NodeJS.Signals): Promise<number> {
    let pid: number | undefined;
    await until('there is a server', async () => {
      pid = await this.#pid();
      return pid !== undefined && signal(pid, name);
    });
    return pid ?? 0;
  }

  async kill(): Promise<void> {
    const pid = await this.#signal('SIGKILL');
    await until('the server is gone', () => hasEnded(pid));
  }

  async start(): Promise<void> {
    await until('the server was started again', async () => (await this.#pid()) !== undefined);
  }

  async stall(): Promise<void> {
    this.#stalled = await this.#signal('SIGSTOP');
  }

  /** Another one may have been started in its place meanwhile. */
  resume(): Promise<void> {
    if (this.#stalled !== undefined) signal(this.#stalled, 'SIGCONT');
    this.#stalled = undefined;
    return Promise.resolve();
  }

  powerCut(): Promise<number> {
    return Promise.reject(new Error('its power cannot be cut'));
  }

  /** It ends with the mount. */
  stop(): Promise<void> {
    return Promise.resolve();
  }
}
