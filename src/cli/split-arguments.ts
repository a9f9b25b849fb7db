/**
 * Finds where our own arguments end and those of a mode begin, and brings the options before it into the
 * form that the option parser knows: getopt_long(3), which scripts for nbdfuse count on, takes names that
 * are cut short, and two names for one option.
 */

import type { Command, Option } from 'commander';
import { UsageError } from './errors.js';
import { isMode } from './modes.js';

export interface Split {
  /** Options and words before the mode. */
  readonly ours: readonly string[];
  /** The word that selects the mode, and those behind it. */
  readonly mode: { readonly word: string; readonly words: readonly string[] } | undefined;
}

/**
 * @param aliases second names of long options
 * @throws UsageError
 */
export function splitArguments(
  args: readonly string[],
  program: Command,
  aliases: ReadonlyMap<string, string>,
): Split {
  const ours: string[] = [];
  let words = 0;
  let literal = false;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? '';
    // After -- the first word is the mountpoint, whatever it looks like.
    if (isMode(arg) && (words > 0 || !literal)) {
      return { ours, mode: { word: arg, words: args.slice(i + 1) } };
    }
    if (literal || !/^-./.test(arg)) {
      words++;
      ours.push(arg);
    } else if (arg === '--') {
      literal = true;
      ours.push(arg);
    } else {
      const option = arg.startsWith('--') ? longOption(arg, program, aliases) : arg;
      ours.push(option);
      if (takesNextWord(option, program.options) && i + 1 < args.length) {
        // Also one that looks like an option or a mode.
        ours.push(args[++i] ?? '');
      }
    }
  }
  return { ours, mode: undefined };
}

/** The option by its one full name, with its value if that is glued to it. */
function longOption(arg: string, program: Command, aliases: ReadonlyMap<string, string>): string {
  const [name = ''] = arg.split('=', 1);
  const names = [...longNames(program), ...aliases.keys()];
  const value = arg.slice(name.length);
  if (value !== '' && isMode(name)) {
    throw new UsageError(`${name} takes its words apart: ${name} ${value.slice(1)}`);
  }
  const known = names.includes(name) ? [name] : meantBy(name, names);
  const meant = new Set(known.map((one) => aliases.get(one) ?? one));
  if (meant.size > 1) {
    throw new UsageError(`${name} can be ${[...new Set(known)].sort().join(' or ')}`);
  }
  const [full] = meant;
  // What is not known at all is the option parser's to tell, which finds names that are similar.
  return full === undefined ? arg : full + value;
}

/** What nbdfuse has not is not in the way of its short forms: `--read` is --readonly. */
const YIELDING: ReadonlySet<string> = new Set(['--ready-fd']);

function meantBy(name: string, names: readonly string[]): string[] {
  const all = names.filter((one) => one.startsWith(name));
  const first = all.filter((one) => !YIELDING.has(one));
  return first.length > 0 ? first : all;
}

function longNames(program: Command): string[] {
  const help = program.createHelp().visibleOptions(program);
  return [...program.options, ...help].flatMap(({ long }) =>
    typeof long === 'string' ? [long] : [],
  );
}

function takesNextWord(arg: string, options: readonly Option[]): boolean {
  if (arg.startsWith('--')) {
    return options.some(({ long, required }) => required && long === arg);
  }
  for (let i = 1; i < arg.length; i++) {
    const short = `-${arg[i] ?? ''}`;
    // What follows it in the same word is its value.
    if (options.some((one) => one.required && one.short === short)) return i === arg.length - 1;
  }
  return false;
}
