/** The command line of the bench. */

import { Command, InvalidArgumentError } from 'commander';

export interface Options {
  readonly quick: boolean;
  /** A regular expression; only jobs whose names it matches. */
  readonly only?: string;
  readonly rounds?: number;
  readonly list: boolean;
  readonly growth: boolean;
  /** The folder for results. */
  readonly output: string;
  /** A folder with tsnbdfuse and tsnbdkit, in place of the package as it is installed. */
  readonly commands?: string;
}

function count(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('It is a number from 1 on.');
  return Number(text);
}

function pattern(text: string): string {
  try {
    new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
  return text;
}

/** @throws CommanderError for one that cannot be understood */
export function parseOptions(args: readonly string[], defaultOutput: string): Options {
  return new Command('npm run bench --')
    .description('Measures tsnbdfuse beside nbdfuse and others; bench/README.md says how.')
    .option('--quick', 'shorter runs, fewer rounds, fewer servers', false)
    .option(
      '--only <pattern>',
      'only the jobs whose names match, of those with other servers too',
      pattern,
    )
    .option('--rounds <n>', 'alternating rounds', count)
    .option('--list', 'name the jobs and their goals, and measure nothing', false)
    .option('--growth', 'how cost grows: with depth, size, connections, mounts', false)
    .option('--output <folder>', 'where results.json and chart.svg go', defaultOutput)
    .option('--commands <folder>', 'measure the tsnbdfuse in there, and not the package')
    .exitOverride()
    .parse(args, { from: 'user' })
    .opts<Options>();
}
