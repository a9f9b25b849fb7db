/** Which server meets which fault, round by round. */

import { seeded } from '../support/memory-disk.js';
import { COMBINATIONS, SERVER_NAMES } from './plan.js';
import type { FaultName, ServerName } from './plan.js';

export interface Combination {
  readonly server: ServerName;
  readonly fault: FaultName;
}

export interface ScheduledRound extends Combination {
  readonly seed: number;
}

/** @returns those that are asked for, in the order of their tables */
export function combinations(server?: ServerName, fault?: FaultName): Combination[] {
  return SERVER_NAMES.filter((name) => server === undefined || name === server).flatMap((name) =>
    COMBINATIONS[name]
      .filter((kind) => fault === undefined || kind === fault)
      .map((kind) => ({ server: name, fault: kind })),
  );
}

/** All of them once, in an order of the seed, and then again: a short run has some of each kind. */
export function* schedule(
  all: readonly Combination[],
  seed: number,
): Generator<ScheduledRound, void> {
  const random = seeded(seed);
  const order = all
    .map((combination) => ({ combination, key: random() }))
    .toSorted((a, b) => a.key - b.key)
    .map(({ combination }) => combination);
  for (let i = 0; order.length > 0; i++) {
    const combination = order[i % order.length];
    if (combination !== undefined) yield { ...combination, seed: seed + i };
  }
}
