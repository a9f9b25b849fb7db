/** `npm run fuzz`: everything that reads what somebody else wrote, fed with what nobody should write. */

import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { LOOK_INTERVAL } from '../../src/fuse/interrupts.js';
import { saveFinding } from './findings.js';
import { fuzz } from './runner.js';
import type { Tally } from './runner.js';
import { targets } from './targets.js';
import { Watchdog } from './watchdog.js';

const USAGE = `usage: npm run fuzz -- [--minutes N] [--seed S] [--target NAME]
targets: ${targets.map(({ name }) => name).join(', ')}`;

/** Inputs between two looks at the clock. */
const CASES = 200;
/** Rounds after which the first figure of memory is taken: what is loaded and kept once is loaded then. */
const WARM_UP = 3;
/** Bytes by which the memory in use may be over that figure in the end. */
const MOST_GROWTH = 24 * 1024 * 1024;

const MIB = 1024 * 1024;

/** What is in use when all garbage is collected, in bytes. */
async function memoryInUse(): Promise<number> {
  if (globalThis.gc === undefined) throw new Error('start it with node --expose-gc');
  // The timer that looks for who is being killed holds on to its protocol.
  await delay(2 * LOOK_INTERVAL);
  globalThis.gc();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '1' },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
      target: { type: 'string' },
      help: { type: 'boolean' },
    },
  });
  const chosen = targets.filter(
    ({ name }) => values.target === undefined || values.target === name,
  );
  const minutes = Number(values.minutes);
  const first = Number(values.seed);
  if (values.help === true || chosen.length === 0 || !(minutes > 0) || !Number.isInteger(first)) {
    say(USAGE);
    return values.help === true ? 0 : 2;
  }
  say(`seed ${first}`);
  const tallies = new Map<string, Tally>(chosen.map(({ name }) => [name, { cases: 0, frames: 0 }]));
  const watchdog = new Watchdog();
  const end = performance.now() + minutes * 60_000;
  let before = 0;
  let found = 0;
  for (let round = 0; round <= WARM_UP || performance.now() < end; round++) {
    if (round === WARM_UP) before = await memoryInUse();
    // One round is one seed of each target, so that a run of another length repeats its beginning.
    const seed = first + round;
    for (const target of chosen) {
      const tally = tallies.get(target.name);
      if (tally === undefined) continue;
      watchdog.watch(`--target ${target.name} --seed ${seed}`);
      const beat = (): void => watchdog.beat();
      const finding = await fuzz(target, { seed, cases: CASES, tally, beat });
      if (finding === undefined) continue;
      found++;
      say(`${target.name}, seed ${seed}: ${finding.why}\nkept as ${saveFinding(finding)}`);
    }
  }
  const after = await memoryInUse();
  await watchdog.stop();
  for (const [name, { cases, frames }] of tallies) {
    say(
      `${name.padEnd(20)} ${String(cases).padStart(9)} cases ${String(frames).padStart(10)} frames`,
    );
  }
  const sum = (of: keyof Tally): number =>
    [...tallies.values()].reduce((total, tally) => total + tally[of], 0);
  say(
    `${'all'.padEnd(20)} ${String(sum('cases')).padStart(9)} cases ${String(sum('frames')).padStart(10)} frames`,
  );
  const grown = after - before;
  say(
    `memory in use: ${(before / MIB).toFixed(1)} MiB, ${(after / MIB).toFixed(1)} MiB at the end`,
  );
  say(`findings: ${found}`);
  if (grown > MOST_GROWTH) say('it has grown, which it may not');
  return found === 0 && grown <= MOST_GROWTH ? 0 : 1;
}

process.exitCode = await main();
