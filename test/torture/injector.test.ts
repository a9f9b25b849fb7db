/** The second hand does what its plan says, when it says so, and undoes it. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Injector } from './injector.js';
import { makePlan } from './plan.js';
import type { Plan, PlannedFault, PowerCut } from './plan.js';
import type { Files } from './servers.js';
import type { Victim } from './victim.js';

class NotedVictim implements Victim {
  readonly files: Files;
  readonly log: string[] = [];
  failing: string | undefined;

  constructor(folder: string) {
    const at = (name: string): string => join(folder, name);
    this.files = {
      image: at('image'),
      socket: at('socket'),
      pidfile: at('pid'),
      config: at('config'),
      errors: at('errors'),
    };
  }

  #note(what: string): Promise<void> {
    this.log.push(what);
    return what === this.failing ? Promise.reject(new Error(`no ${what}`)) : Promise.resolve();
  }

  kill = (): Promise<void> => this.#note('kill');
  start = (): Promise<void> => this.#note('start');
  stall = (): Promise<void> => this.#note('stall');
  resume = (): Promise<void> => this.#note('resume');
  powerCut = ({ kept, when }: PowerCut): Promise<number> =>
    this.#note(`cut ${kept} ${when}`).then(() => 5);
  stop = (): Promise<void> => this.#note('stop');
}

describe('an injector', () => {
  let folder: string;
  let victim: NotedVictim;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-injector-'));
    victim = new NotedVictim(folder);
  });
  afterEach(() => rm(folder, { recursive: true }));

  const planOf = (faults: readonly PlannedFault[]): Plan => ({
    ...makePlan(1, 'nbdkit', 'kill', 100),
    delay: 0,
    faults,
  });
  const steps = (injector: Injector, count: number): void => {
    for (let i = 0; i < count; i++) injector.step();
  };

  it('does each fault after its steps, one after the other', async () => {
    const injector = new Injector(
      planOf([
        { at: 2, fault: { kind: 'kill', down: 0, again: [0] } },
        { at: 2, fault: { kind: 'stall', lasts: 0 } },
        { at: 3, fault: { kind: 'power', down: 0, kept: 0.5, when: 'flushed' } },
        { at: 9, fault: { kind: 'stall', lasts: 0 } },
      ]),
      victim,
      undefined,
    );
    steps(injector, 1);
    await new Promise(setImmediate);
    assert.deepEqual(victim.log, []);
    steps(injector, 2);
    await injector.finish();
    const kill = ['kill', 'start'];
    assert.deepEqual(victim.log, [...kill, ...kill, 'stall', 'resume', 'cut 0.5 flushed', 'start']);
    assert.deepEqual(injector.counts, {
      kill: 2,
      power: 1,
      cut: 0,
      stall: 1,
      errors: 0,
      delay: 0,
    });
    assert.equal(injector.lostSectors, 5);
  });

  it('begins nothing any more when it is to finish', async () => {
    const fault = { kind: 'stall', lasts: 0 } as const;
    const injector = new Injector(planOf([{ at: 5, fault }]), victim, undefined);
    steps(injector, 4);
    await injector.finish();
    steps(injector, 4);
    await injector.finish();
    assert.deepEqual(victim.log, []);
  });

  it('ends errors after their steps, or at the end', async () => {
    const fault = { kind: 'errors', steps: 3 } as const;
    const plan = planOf([
      { at: 1, fault },
      { at: 8, fault },
    ]);
    const injector = new Injector(plan, victim, undefined);
    const there = (): boolean => existsSync(victim.files.errors);
    steps(injector, 1);
    await new Promise(setImmediate);
    assert.equal(there(), true);
    steps(injector, 2);
    assert.equal(there(), true);
    steps(injector, 1);
    assert.equal(there(), false);
    steps(injector, 4);
    await new Promise(setImmediate);
    assert.equal(there(), true);
    await injector.finish();
    assert.equal(there(), false);
  });

  it('tells of a fault that could not be undone, and does no other', async () => {
    victim.failing = 'start';
    const injector = new Injector(
      planOf([
        { at: 1, fault: { kind: 'kill', down: 0, again: [] } },
        { at: 2, fault: { kind: 'stall', lasts: 0 } },
      ]),
      victim,
      undefined,
    );
    steps(injector, 2);
    await assert.rejects(injector.finish(), /no start/);
    assert.deepEqual(victim.log, ['kill', 'start']);
  });
});
