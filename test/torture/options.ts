/** The command line of the torture. */

import { Command, InvalidArgumentError, Option } from 'commander';
import { FAULT_NAMES, SERVER_NAMES } from './plan.js';
import type { FaultName, ServerName } from './plan.js';

export interface Options {
  /** No round is begun after that. */
  readonly minutes: number;
  /** Of the first round; each further one has the next. */
  readonly seed: number;
  readonly server?: ServerName;
  readonly fault?: FaultName;
  /** At most. */
  readonly rounds: number;
  /** Of each round. */
  readonly steps?: number;
  readonly keepGoing: boolean;
  /** A file for the figures. */
  readonly json?: string;
}

const MOST = 2 ** 31 - 1;

function wholeNumber(text: string): number {
  const number = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(number <= MOST)) throw new InvalidArgumentError(`It is a number from 0 to ${MOST}.`);
  return number;
}

function count(text: string): number {
  const number = wholeNumber(text);
  if (number === 0) throw new InvalidArgumentError('It is a number from 1 on.');
  return number;
}

function time(text: string): number {
  const minutes = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(minutes > 0)) throw new InvalidArgumentError('It is a number of minutes, over 0.');
  return minutes;
}

/** @throws CommanderError for one that cannot be understood */
export function parseOptions(args: readonly string[], anySeed: number): Options {
  return new Command('npm run torture --')
    .description('Uses mounts in every way while their servers die, stall and lie, and compares.')
    .option('--minutes <n>', 'begin no round after that', time, 3)
    .option(
      '--seed <n>',
      'of the first round; if not given, another each time',
      wholeNumber,
      anySeed,
    )
    .addOption(new Option('--server <name>', 'only this one').choices(SERVER_NAMES))
    .addOption(new Option('--fault <name>', 'only this one').choices(FAULT_NAMES))
    .option('--rounds <n>', 'at most that many', count, MOST)
    .option('--steps <n>', 'of each round; more for longer runs if not given', count)
    .option('--keep-going', 'go on after a failure', false)
    .option('--json <file>', 'write the figures there')
    .configureHelp({ helpWidth: 80 })
    .exitOverride()
    .parse(args, { from: 'user' })
    .opts<Options>();
}
