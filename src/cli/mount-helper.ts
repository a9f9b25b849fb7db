/**
 * As mount(8) calls us: `mount.fuse.tsnbdfuse SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`, by which a
 * line of fstab(5) becomes a mount. It is brought into the form of our own command line, as a daemon.
 *
 * Where there is no such helper, the one of libfuse calls `tsnbdfuse SOURCE DIR -o OPTIONS`, and expects the same.
 */

import { lstatSync } from 'node:fs';
import { MountOptionError, parseFuseOptions, splitOptions } from '../fuse/mount-options.js';
import { parseCommandLine } from './command-line.js';
import type { CommandLine } from './command-line.js';
import { CommandError, UsageError } from './errors.js';

const HELPER = 'mount.fuse.tsnbdfuse';

/** Of our own options those that a line of fstab may have: with a value, and without. */
const WITH_VALUE: readonly string[] = [
  'cache',
  'connections',
  'timeout',
  'reconnect',
  'connect-timeout',
  'unflushed-limit',
  'partition',
  'offset',
  'size',
  'format',
  'metrics',
  'pidfile',
  'log',
];
const WITHOUT_VALUE: readonly string[] = ['trim', 'partitions', 'backing'];

const valued = (names: readonly string[]): string => names.map((name) => `${name}=`).join(', ');
/** As many of them as fit a line of the help. */
const ONE_LINE = 6;

const HELP = `usage: ${HELPER} SOURCE DIR [-sfnv] [-o OPTION,...] [-t TYPE]

Called by mount(8) for the type fuse.tsnbdfuse. SOURCE is a URI or an image; DIR is a
directory, in which the disk is the file nbd, or a file. Options beside those of "tsnbdfuse
--fuse-help", each as the option of tsnbdfuse of that name:
  ${valued(WITH_VALUE.slice(0, ONE_LINE))},
  ${valued(WITH_VALUE.slice(ONE_LINE))},
  ${WITHOUT_VALUE.join(', ')}
`;

/** A form that nobody would type by a mistake: a URI first, a whole path, and options behind. */
function isCallOfLibfuse([
  source = '',
  directory = '',
  option,
  ,
  ...rest
]: readonly string[]): boolean {
  return (
    /^nbds?(\+[a-z]+)?:/i.test(source) &&
    directory.startsWith('/') &&
    option === '-o' &&
    rest.length === 0
  );
}

/** @param args without those of the interpreter */
export function isMountHelper(args: readonly string[], calledAs: string): boolean {
  return calledAs === HELPER || (calledAs === 'tsnbdfuse' && isCallOfLibfuse(args));
}

/** What mount(8) and umount(8) make of an exit status of ours: a mistake in the call, an interruption, a failure. */
export function helperStatus(status: number): number {
  if (status === 0) return 0;
  if (status === 2) return 1;
  return status > 128 ? 8 : 32;
}

interface HelperCall {
  readonly words: readonly string[];
  readonly options: readonly string[];
  readonly flags: ReadonlySet<string>;
}

/** getopt(3) as far as it is needed: flags in one word, words and options in any order. @throws UsageError */
function splitCall(args: readonly string[]): HelperCall {
  const words: string[] = [];
  const options: string[] = [];
  const flags = new Set<string>();
  const rest = [...args];
  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === '--help' || arg === '--version') {
      flags.add(arg === '--help' ? 'h' : 'V');
      continue;
    }
    if (!/^-./.test(arg)) {
      words.push(arg);
      continue;
    }
    for (let at = 1; at < arg.length; at++) {
      const flag = arg[at] ?? '';
      if ('sfnvwrhV'.includes(flag)) {
        flags.add(flag);
        continue;
      }
      if (!'oNt'.includes(flag)) throw new UsageError(`there is no option -${flag}`);
      const value = arg.slice(at + 1) || rest.shift();
      if (value === undefined) throw new UsageError(`-${flag} needs a word behind it`);
      if (flag === 'o') options.push(...splitOptions(value));
      if (flag === 'N') {
        throw new UsageError(
          '-N: another mount namespace cannot be had; enter it first with: nsenter --mount=FILE mount ...',
        );
      }
      break;
    }
  }
  if (flags.has('r')) options.push('ro');
  return { words, options, flags };
}

/** A word of -o, so that it is one word again when it is split. */
const guarded = (option: string): string => option.replaceAll(/[\\,]/g, '\\$&');

/** As one of our own options, or undefined. @throws UsageError */
function ownOption(option: string): string | undefined {
  const equals = option.indexOf('=');
  // rclone and others take both spellings.
  const name = (equals < 0 ? option : option.slice(0, equals)).replaceAll('_', '-');
  if (WITH_VALUE.includes(name)) {
    if (equals < 0) throw new UsageError(`-o ${name} needs a value: ${name}=...`);
    return `--${name}=${option.slice(equals + 1)}`;
  }
  if (!WITHOUT_VALUE.includes(name)) return undefined;
  if (equals >= 0) throw new UsageError(`-o ${name} takes no value`);
  return `--${name}`;
}

function isKnown(option: string): boolean {
  try {
    parseFuseOptions([guarded(option)], true);
    return true;
  } catch (error) {
    if (error instanceof MountOptionError) return false;
    throw error;
  }
}

/**
 * @param args without those of the interpreter
 * @throws UsageError; CommandError
 */
export function parseMountHelper(args: readonly string[]): CommandLine {
  const { words, options, flags } = splitCall(args);
  if (flags.has('h')) return { kind: 'help', text: HELP };
  if (flags.has('V')) return { kind: 'version' };
  const [source, directory, extra] = words;
  if (source === undefined || directory === undefined) {
    throw new UsageError(`${source === undefined ? 'SOURCE and DIR are' : 'DIR is'} missing`);
  }
  if (extra !== undefined) throw new UsageError(`${extra}: nothing can follow SOURCE and DIR`);
  if (options.includes('remount')) {
    throw new UsageError('-o remount: a mount cannot be changed; unmount it and mount it anew');
  }
  const line = ['--daemon'];
  for (const option of options) {
    const own = ownOption(option);
    if (own !== undefined) line.push(own);
    else if (!flags.has('s') || isKnown(option)) line.push('-o', guarded(option));
  }
  const command = parsed([...line, '--', directory, source]);
  // A name that is free would be a file in its directory, all of which the mount would hide.
  refuseMissing(directory);
  return flags.has('f') ? { kind: 'help', text: '' } : command;
}

/** @throws UsageError in the words of whoever wrote the line of fstab */
function parsed(line: readonly string[]): CommandLine {
  try {
    return parseCommandLine(line);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const invalid = /^option '(?:-\w, )?--([\w-]+)[^']*' argument '([^']*)' is invalid/;
    throw new UsageError(error.message.replace(invalid, '-o $1=$2 is invalid'), { cause: error });
  }
}

function refuseMissing(directory: string): void {
  try {
    lstatSync(directory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Anything else, as a mount that is dead, is looked at later.
    if (code !== 'ENOENT' && code !== 'ENOTDIR') return;
    throw new CommandError(`mount point ${directory} does not exist`, { cause: error });
  }
}
