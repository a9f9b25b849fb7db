/** The second hand: does the faults of a plan, each when so many steps have been made, one after the other. */

import { rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultCounts } from './figures.js';
import type { Network } from './network.js';
import type { Fault, Plan, PlannedFault } from './plan.js';
import type { Victim } from './victim.js';

export class Injector {
  /** What was done, for a report: `kill after 17 steps`. */
  readonly done: string[] = [];
  readonly counts: FaultCounts = { kill: 0, power: 0, cut: 0, stall: 0, errors: 0, delay: 0 };
  /** Sectors of which a power cut took what was written last. */
  lostSectors = 0;
  /** Errors that programs got, where they are to get some. */
  refusals = 0;
  steps = 0;
  readonly #victim: Victim;
  readonly #network: Network | undefined;
  readonly #waiting: PlannedFault[];
  #work: Promise<void> = Promise.resolve();
  #problem: unknown;
  #errorsUntil = 0;
  #isOver = false;

  constructor(plan: Plan, victim: Victim, network: Network | undefined) {
    this.#victim = victim;
    this.#network = network;
    this.#waiting = [...plan.faults];
    if (plan.delay > 0) this.counts.delay = 1;
  }

  /** One more step was made. */
  step(): void {
    this.steps++;
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (next.at > this.steps || this.#isOver) break;
      this.#waiting.shift();
      const { fault } = next;
      this.#work = this.#work.then(() => this.#do(fault));
    }
    if (this.#errorsUntil > 0 && this.steps >= this.#errorsUntil) this.#endErrors();
  }

  /** Whether a fault is being done. */
  get isBusy(): Promise<boolean> {
    return Promise.race([this.#work.then(() => false), sleep(1, true)]);
  }

  /** How many faults have not been begun. */
  get left(): number {
    return this.#waiting.length;
  }

  /** Waits until all that was begun is over. @throws Error that a fault could not be done, or undone */
  async finish(): Promise<void> {
    this.#isOver = true;
    this.#endErrors();
    await this.#work;
    this.#endErrors();
    if (this.#problem !== undefined) throw this.#problem as Error;
  }

  async #do(fault: Fault): Promise<void> {
    // What could not be undone is no ground for more.
    if (this.#problem !== undefined) return;
    this.done.push(`${JSON.stringify(fault)} after ${this.steps} steps`);
    try {
      await this.#inject(fault);
    } catch (error) {
      this.#problem = error;
    }
  }

  async #inject(fault: Fault): Promise<void> {
    this.counts[fault.kind]++;
    switch (fault.kind) {
      case 'kill':
        await this.#restart(fault.down);
        for (const pause of fault.again) {
          await sleep(pause);
          this.counts.kill++;
          await this.#restart(fault.down);
        }
        return;
      case 'power':
        this.lostSectors += await this.#victim.powerCut(fault);
        await sleep(fault.down);
        await this.#victim.start();
        return;
      case 'stall':
        await this.#victim.stall();
        await sleep(fault.lasts);
        await this.#victim.resume();
        return;
      case 'cut':
        await this.#network?.cut(fault.how);
        await sleep(fault.lasts);
        if (fault.kills) {
          this.counts.kill++;
          await this.#restart(0);
        }
        await this.#network?.restore(fault.how);
        return;
      case 'errors':
        this.#errorsUntil = this.steps + fault.steps;
        writeFileSync(this.#victim.files.errors, '');
        return;
    }
  }

  async #restart(down: number): Promise<void> {
    await this.#victim.kill();
    await sleep(down);
    await this.#victim.start();
  }

  #endErrors(): void {
    this.#errorsUntil = 0;
    rmSync(this.#victim.files.errors, { force: true });
  }
}
