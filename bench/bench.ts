/** npm run bench: measures, prints tables, writes results.json and chart.svg; see README.md. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CommanderError } from 'commander';
import { drawChart } from './chart.js';
import { measureGrowth } from './growth.js';
import { chooseJobs, JOBS, title } from './jobs.js';
import { describeMachine, machineText } from './machine.js';
import { parseOptions } from './options.js';
import type { Options } from './options.js';
import { installProduct } from './product.js';
import { isGood, makeReport, reportJson, reportText } from './report.js';
import { Rounds } from './rounds.js';
import { QUICK, USUAL } from './setting.js';
import type { Setting } from './setting.js';
import { table } from './table.js';
import { Workshop } from './workshop.js';

/** Seen from dist/bench/, where the compiled file is. */
const LATEST = fileURLToPath(new URL('../../bench/latest', import.meta.url));

const say = (line: string): void => console.error(line);

function list(options: Options): void {
  const rows = chooseJobs(JOBS, options.quick, options.only).map((job) => [
    title(job),
    Object.entries(job.goals)
      .map(([goal, wanted]) => `${goal} ${String(wanted)}`)
      .join(', '),
  ]);
  console.log(table(['job', 'goals'], rows));
}

/** Returns whether all is as it should be. */
async function measure(options: Options, setting: Setting): Promise<boolean> {
  const machine = await describeMachine(setting.commands);
  if (options.growth) {
    console.log(`${machineText(machine)}\n`);
    console.log(await measureGrowth(setting, say));
    return true;
  }
  const jobs = chooseJobs(JOBS, options.quick, options.only);
  if (jobs.length === 0) throw new Error(`no job matches ${options.only ?? ''}`);
  const results = await new Rounds(setting, say).run(jobs);
  const report = makeReport(results, {
    when: new Date().toISOString(),
    quick: options.quick,
    rounds: setting.pace.rounds,
    machine,
  });
  console.log(reportText(report));
  mkdirSync(options.output, { recursive: true });
  writeFileSync(join(options.output, 'results.json'), reportJson(report));
  writeFileSync(join(options.output, 'chart.svg'), drawChart(report));
  say(`\nwritten: results.json and chart.svg in ${options.output}`);
  return isGood(report);
}

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2), LATEST);
  if (options.list) {
    list(options);
    return;
  }
  if (process.getuid?.() !== 0)
    throw new Error('it makes loop devices and other users: run it as root');
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => interrupted.abort(new Error(`ended by ${signal}`)));
  }
  const workshop = new Workshop(interrupted.signal);
  const pace = options.quick ? QUICK : USUAL;
  let good: boolean;
  try {
    const commands = options.commands ?? (await installProduct(workshop));
    const rounds = options.rounds ?? pace.rounds;
    const roundsOfPatience = Math.min(rounds, pace.roundsOfPatience);
    good = await measure(options, {
      workshop,
      commands,
      pace: { ...pace, rounds, roundsOfPatience },
    });
  } finally {
    const left = await workshop.close();
    for (const problem of left) say(problem);
    if (left.length > 0) process.exitCode = 1;
  }
  if (!good) process.exitCode = 1;
}

try {
  await main();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    say(`bench: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
