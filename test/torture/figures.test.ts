/** The command line of the torture, and what it tells in the end. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CommanderError } from 'commander';
import { holdingsOf, roundText, runJson, runText } from './figures.js';
import type { FaultCounts, RoundFigures } from './figures.js';
import { parseOptions } from './options.js';

const MIB = 2 ** 20;
const NONE: FaultCounts = { kill: 0, power: 0, cut: 0, stall: 0, errors: 0, delay: 0 };

const round = (more: Partial<RoundFigures>): RoundFigures => ({
  server: 'nbdkit',
  fault: 'kill',
  seed: 5,
  operations: 100,
  faults: NONE,
  refusals: 0,
  lostSectors: 0,
  crashes: [],
  reconnects: 0,
  start: { memory: 50 * MIB, descriptors: 20 },
  end: { memory: 60 * MIB, descriptors: 19 },
  seconds: 1.25,
  ...more,
});

describe('figures', () => {
  const rounds = [
    round({ faults: { ...NONE, kill: 3, delay: 1 }, reconnects: 2 }),
    round({
      fault: 'power',
      server: 'power-cut',
      seed: 6,
      faults: { ...NONE, power: 4, kill: 1 },
      lostSectors: 7,
      crashes: ['ended with SIGABRT; it said:\nerror: x\nassertion failed\n'],
      reconnects: 5,
      end: { memory: 70 * MIB, descriptors: 20 },
    }),
  ];

  it('are told for each round', () => {
    assert.deepEqual(rounds.map(roundText), [
      'nbdkit kill, seed 5: 100 operations, kill 3, delay 1, 2 reconnects, memory 50 MiB to 60 MiB, descriptors 20 to 19, 1.3 s',
      'power-cut power, seed 6: 100 operations, kill 1, power 4, 7 sectors lost, the server crashed (assertion failed), 5 reconnects, memory 50 MiB to 70 MiB, descriptors 20 to 20, 1.3 s',
    ]);
  });

  it('are added up', () => {
    const failures = [{ seed: 7, command: 'again', problem: 'it differs' }];
    const text = runText({ seed: 5, rounds, failures });
    assert.match(text, /^2 rounds without a fault of ours, 1 with one; seeds from 5 on$/m);
    assert.match(text, /^faults injected: kill 4, power 4, delay 1$/m);
    assert.match(text, /^crashes of servers of others, by themselves: 1$/m);
    assert.match(text, /^reconnects that were told of: 7$/m);
    const told = JSON.parse(runJson({ seed: 5, rounds, failures })) as {
      totals: { operations: number; mostMemory: unknown };
      failures: unknown;
    };
    assert.equal(told.totals.operations, 200);
    assert.deepEqual(told.totals.mostMemory, { start: 50 * MIB, end: 70 * MIB });
    assert.deepEqual(told.failures, failures);
  });

  it('of a process are its memory and its descriptors', () => {
    const { memory, descriptors } = holdingsOf(process.pid);
    assert.ok(memory > MIB && descriptors >= 3);
  });
});

describe('the command line', () => {
  it('has a seed of its own and three minutes where nothing is said', () => {
    const { seed, minutes, steps, keepGoing } = parseOptions([], 17);
    assert.deepEqual([seed, minutes, steps, keepGoing], [17, 3, undefined, false]);
  });

  it('takes what it is given', () => {
    const words = ['--seed', '0', '--server', 'tsnbdkit', '--fault', 'cut', '--minutes', '0.5'];
    const { seed, server, fault, minutes } = parseOptions(words, 17);
    assert.deepEqual([seed, server, fault, minutes], [0, 'tsnbdkit', 'cut', 0.5]);
  });

  for (const words of [
    ['--seed', 'x'],
    ['--seed', '99999999999'],
    ['--minutes', '0'],
    ['--steps', '0'],
    ['--rounds', '-1'],
    ['--server', 'nobody'],
    ['--fault', 'none'],
  ]) {
    it(`refuses ${words.join(' ')}`, () => {
      assert.throws(() => parseOptions(words, 17), CommanderError);
    });
  }
});
