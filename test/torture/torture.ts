/** npm run torture: rounds of use and faults until the time is over; CONTRIBUTING.md says more. */

import { existsSync, writeFileSync } from 'node:fs';
import { CommanderError } from 'commander';
import { requires } from '../support/requires.js';
import { roundText, runJson, runText } from './figures.js';
import type { Failure, RoundFigures } from './figures.js';
import { NETWORK_NEEDS } from './network.js';
import { parseOptions } from './options.js';
import type { Options } from './options.js';
import { makePlan } from './plan.js';
import { runRound } from './round.js';
import { combinations, schedule } from './schedule.js';
import type { Combination } from './schedule.js';
import { SERVERS } from './servers.js';

/** Steps of a round: short ones have many servers soon, long ones show what grows. */
const FEWEST_STEPS = 300;
const MOST_STEPS = 6000;
const STEPS_PER_MINUTE = 100;

const MEMORY = '/dev/shm';

const say = (line: string): void => console.error(line);

/** Why it is left out; undefined if it can be done. @throws Error in CI, where nothing may be */
function obstacle({ server, fault }: Combination): string | undefined {
  const { programs } = SERVERS[server];
  const needs = makePlan(0, server, fault, 1).network ? NETWORK_NEEDS : { programs: [] };
  return requires({
    ...needs,
    fuse: true,
    programs: ['python3', ...programs, ...needs.programs],
  }).skip;
}

function possible(options: Options): Combination[] {
  const leftOut = new Map<string, string[]>();
  const left = combinations(options.server, options.fault).filter((combination) => {
    const why = obstacle(combination);
    if (why === undefined) return true;
    const name = `${combination.server} ${combination.fault}`;
    leftOut.set(why, [...(leftOut.get(why) ?? []), name]);
    return false;
  });
  for (const [why, names] of leftOut) say(`left out, as ${why}: ${names.join(', ')}`);
  return left;
}

/** @returns whether all went well */
async function torture(options: Options, interrupted: AbortSignal): Promise<boolean> {
  const { minutes, seed, rounds: most } = options;
  const steps =
    options.steps ??
    Math.min(MOST_STEPS, Math.max(FEWEST_STEPS, Math.round(minutes * STEPS_PER_MINUTE)));
  const all = possible(options);
  if (all.length === 0 && combinations(options.server, options.fault).length === 0) {
    throw new Error(`${options.server ?? ''} cannot have ${options.fault ?? ''}`);
  }
  if (all.length === 0 && (options.server ?? options.fault) !== undefined) {
    throw new Error('nothing of what was asked for can be done on this machine');
  }
  say(`seed ${seed}, ${steps} steps a round`);

  const end = performance.now() + minutes * 60_000;
  const rounds: RoundFigures[] = [];
  const failures: Failure[] = [];
  for (const next of schedule(all, seed)) {
    if (rounds.length + failures.length >= most || performance.now() > end) break;
    if (failures.length > 0 && !options.keepGoing) break;
    const command = `npm run torture -- --server ${next.server} --fault ${next.fault} --seed ${next.seed} --steps ${steps} --rounds 1`;
    try {
      const figures = await runRound(
        makePlan(next.seed, next.server, next.fault, steps),
        interrupted,
      );
      rounds.push(figures);
      say(roundText(figures));
    } catch (error) {
      if (interrupted.aborted) break;
      const problem = error instanceof Error ? error.message : String(error);
      failures.push({ seed: next.seed, command, problem });
      say(`FAILED: ${next.server} ${next.fault}, seed ${next.seed}\n${problem}\nagain: ${command}`);
    }
  }
  const figures = { seed, rounds, failures };
  console.log(runText(figures));
  if (options.json !== undefined) writeFileSync(options.json, runJson(figures));
  interrupted.throwIfAborted();
  return failures.length === 0;
}

/** Given when a signal asks us to end, which we do in good order. */
function interruption(): AbortSignal {
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => interrupted.abort(new Error(`ended by ${signal}`)));
  }
  return interrupted.signal;
}

try {
  const anySeed = Math.floor(Math.random() * 1_000_000);
  const options = parseOptions(process.argv.slice(2), anySeed);
  // Nothing here waits for a medium: it is servers that die, and not the machine.
  if (existsSync(MEMORY)) process.env['TMPDIR'] ??= MEMORY;
  process.exitCode = (await torture(options, interruption())) ? 0 : 1;
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    say(`torture: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
// What a round that failed was waiting for is of no interest any more.
process.exit();
