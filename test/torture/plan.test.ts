/** Seeds, plans and the order of rounds: what is seen once can be seen again. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { COMBINATIONS, FAULT_NAMES, SERVER_NAMES, makePlan } from './plan.js';
import { combinations, schedule } from './schedule.js';
import type { Combination, ScheduledRound as Round } from './schedule.js';

const STEPS = 600;

describe('a plan', () => {
  it('is the same for the same seed, and another for another', () => {
    for (const { server, fault } of combinations()) {
      const plan = makePlan(7, server, fault, STEPS);
      assert.deepEqual(makePlan(7, server, fault, STEPS), plan);
      assert.notDeepEqual(makePlan(8, server, fault, STEPS), { ...plan, seed: 8 });
    }
  });

  it('has faults of its kind, in order, all over the round', () => {
    for (const { server, fault } of combinations()) {
      for (let seed = 0; seed < 20; seed++) {
        const { faults, delay } = makePlan(seed, server, fault, STEPS);
        if (fault === 'delay') {
          assert.deepEqual([faults.length, delay > 0], [0, true]);
          continue;
        }
        const steps = faults.map(({ at }) => at);
        assert.deepEqual(
          steps,
          steps.toSorted((a, b) => a - b),
        );
        assert.equal(faults.length, 10);
        assert.ok((steps.at(-1) ?? STEPS) < STEPS && (steps.at(-1) ?? 0) >= 0.9 * STEPS);
        const kinds = new Set<string>(faults.map((planned) => planned.fault.kind));
        const allowed: readonly string[] =
          fault === 'mixed' ? COMBINATIONS[server].filter((kind) => kind !== 'errors') : [fault];
        for (const kind of kinds) assert.ok(allowed.includes(kind), `${kind} in ${fault}`);
      }
    }
  });
});

/** It goes on for ever. */
function take(all: readonly Combination[], seed: number, count: number): Round[] {
  const rounds = schedule(all, seed);
  return Array.from({ length: count }, () => {
    const { value } = rounds.next();
    assert.ok(value);
    return value;
  });
}

describe('a schedule', () => {
  it('has each combination once before any comes again, and seeds that count on', () => {
    const all = combinations();
    const first = take(all, 42, 2 * all.length);
    const name = ({ server, fault }: (typeof all)[number]): string => `${server} ${fault}`;
    for (const half of [first.slice(0, all.length), first.slice(all.length)]) {
      assert.deepEqual(half.map(name).toSorted(), all.map(name).toSorted());
    }
    assert.deepEqual(
      first.map(({ seed }) => seed),
      first.map((_, i) => 42 + i),
    );
  });

  it('of one combination is made of that alone', () => {
    const all = combinations('qemu-qcow2', 'kill');
    assert.deepEqual(all, [{ server: 'qemu-qcow2', fault: 'kill' }]);
    assert.deepEqual(
      take(all, 3, 3).map(({ server, seed }) => `${server} ${seed}`),
      ['qemu-qcow2 3', 'qemu-qcow2 4', 'qemu-qcow2 5'],
    );
  });

  it('knows every server and every fault', () => {
    for (const server of SERVER_NAMES) assert.notEqual(combinations(server).length, 0);
    for (const fault of FAULT_NAMES) assert.notEqual(combinations(undefined, fault).length, 0);
    assert.deepEqual(combinations('captive', 'power'), []);
    assert.deepEqual([...schedule([], 1)], []);
  });
});
