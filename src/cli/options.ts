/** The options of the command: their names, their values, and the help that tells of them. */

import { Command, InvalidArgumentError, Option } from 'commander';
import { memoryLimit } from '../fuse/memory-limit.js';
import { FORMAT_ALIASES, FORMAT_NAMES } from '../images/format-names.js';
import { SizeError, parseSize } from '../sizes.js';
import { parseMetricsAddress } from './metrics-address.js';
import type { MetricsAddress } from './metrics-address.js';

export const CACHES = ['writeback', 'writethrough', 'none'] as const;
export type Cache = (typeof CACHES)[number];

export const FORMS = `[options] MOUNTPOINT [ CMD ARGS... ]
       tsnbdfuse [options] MOUNTPOINT IMAGE | URI
       tsnbdfuse [options] MOUNTPOINT --command CMD ARGS... | --fd N |
                 --tcp HOST PORT | --unix SOCKET | --vsock CID PORT
       tsnbdfuse --status [MOUNTPOINT] [--json]
       tsnbdfuse --unmount [--lazy] [--timeout SECONDS] MOUNTPOINT`;

export const EXAMPLES = `
Examples:
  touch disk.raw
  tsnbdfuse disk.raw disk.qcow2 &
  tsnbdfuse disk.raw [ tsnbdkit memory 1G ] &
  tsnbdfuse disk.raw nbd://server.example/export &
  tsnbdfuse -u disk.raw

More options, all URIs, and recipes: man tsnbdfuse, man tsnbdfuse-recipes`;

/** Second names, as nbdfuse has them. */
export const ALIASES: ReadonlyMap<string, string> = new Map([
  ['--pid-file', '--pidfile'],
  ['--read-only', '--readonly'],
]);

/** Seconds; long enough for a server that opens its image over a network. */
const DEFAULT_CONNECT_TIMEOUT = 10;
/** The longest that a timer of Node takes is 2^31 - 1 ms. */
const MAX_CONNECT_TIMEOUT = 2_000_000;

/** More than a few help only a server that serves each with a thread of its own. */
const DEFAULT_CONNECTIONS = 4;
const MAX_CONNECTIONS = 1024;

function parseSeconds(text: string): number {
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(seconds > 0 && seconds <= MAX_CONNECT_TIMEOUT)) {
    throw new InvalidArgumentError(
      `It is a number of seconds, over 0 and up to ${MAX_CONNECT_TIMEOUT}.`,
    );
  }
  return seconds;
}

/** Seconds; see ARCHITECTURE.md, "When the server is lost". */
export const DEFAULT_TIMEOUT = 30;
const DEFAULT_RECONNECT = 60;
const DEFAULT_UNFLUSHED = 64 * 1024 * 1024;
/** Of the memory of our group of processes: all else of ours, and those who write, need the rest. */
const UNFLUSHED_PART = 16;
/** In bytes: less would be one flush after the other. The most is what the process may well have. */
const MIN_UNFLUSHED = 1024n * 1024n;
const MAX_UNFLUSHED = 16n * 1024n * 1024n * 1024n;

/** 0 is never. */
function parsePatience(text: string): number {
  if (/^0+(\.0+)?$/.test(text)) return 0;
  try {
    return parseSeconds(text);
  } catch {
    throw new InvalidArgumentError(
      `It is a number of seconds, up to ${MAX_CONNECT_TIMEOUT}, or 0 for ever.`,
    );
  }
}

function parseReconnect(text: string): number | 'forever' {
  if (text === 'forever') return text;
  try {
    return parsePatience(text);
  } catch {
    throw new InvalidArgumentError('It is a number of seconds, 0 for not at all, or "forever".');
  }
}

function parseUnflushedLimit(text: string): number {
  const bytes = parseBytes(text);
  if (bytes < MIN_UNFLUSHED || bytes > MAX_UNFLUSHED) {
    throw new InvalidArgumentError('It is a size from 1M to 16G.');
  }
  return Number(bytes);
}

function parseConnections(text: string): number {
  const connections = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(connections >= 1 && connections <= MAX_CONNECTIONS)) {
    throw new InvalidArgumentError(`It is a number from 1 to ${MAX_CONNECTIONS}.`);
  }
  return connections;
}

/** Those before are the standard streams, where other things are said. */
export const FIRST_READY_FD = 3;

function parseReadyFd(text: string): number {
  const fd = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(fd >= FIRST_READY_FD && fd <= 0x7fffffff)) {
    throw new InvalidArgumentError(`It is a file descriptor from ${FIRST_READY_FD} on.`);
  }
  return fd;
}

function parsePartition(text: string): number {
  const partition = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(partition >= 1)) {
    throw new InvalidArgumentError('It is a number from 1 on, as fdisk shows it.');
  }
  return partition;
}

function parseBytes(text: string): bigint {
  try {
    return parseSize(text);
  } catch (error) {
    if (error instanceof SizeError) throw new InvalidArgumentError(`${error.message}.`);
    throw error;
  }
}

function parseFormat(text: string): string {
  const name: string = FORMAT_ALIASES.get(text) ?? text;
  if (FORMAT_NAMES.some((one) => one === name)) return name;
  throw new InvalidArgumentError(`The formats are ${FORMAT_NAMES.join(', ')}.`);
}

function parseWindowSize(text: string): bigint {
  const size = parseBytes(text);
  if (size === 0n) throw new InvalidArgumentError('It is a size over 0.');
  return size;
}

export interface Patience {
  /** Milliseconds for each request, or undefined for any time. */
  readonly timeout: number | undefined;
  /** Milliseconds for which a lost server is waited for, or undefined where it is not. */
  readonly reconnect: number | undefined;
  /** It is tried after that, too. */
  readonly forever: boolean;
  /** Bytes that are kept because no flush has covered them. */
  readonly unflushedLimit: number;
}

/** Where there is little memory for all of our group of processes, no more than a part of it. */
function defaultUnflushed(): number {
  const part = Math.floor(memoryLimit() / UNFLUSHED_PART);
  return Math.max(Number(MIN_UNFLUSHED), Math.min(DEFAULT_UNFLUSHED, part));
}

/** @param reconnects the server can be reached again */
export function patienceOf(options: Options, reconnects: boolean): Patience {
  const { timeout, reconnect = DEFAULT_RECONNECT, unflushedLimit } = options;
  const forever = reconnect === 'forever';
  const seconds = forever ? DEFAULT_RECONNECT : reconnect;
  return {
    timeout: timeout === 0 ? undefined : timeout * 1000,
    reconnect: reconnects && seconds > 0 ? seconds * 1000 : undefined,
    forever,
    unflushedLimit: unflushedLimit ?? defaultUnflushed(),
  };
}

export interface Options {
  readonly readonly?: true;
  readonly cache?: Cache;
  readonly connections: number;
  readonly o?: readonly string[];
  readonly pidfile?: string;
  readonly daemon?: true;
  readonly log?: string;
  readonly readyFd?: number;
  readonly connectTimeout: number;
  readonly timeout: number;
  readonly reconnect?: number | 'forever';
  readonly unflushedLimit?: number;
  readonly restartServer?: true;
  readonly format?: string;
  readonly backing?: true;
  readonly partitions?: true;
  readonly partition?: number;
  readonly offset?: bigint;
  readonly size?: bigint;
  readonly trim?: true;
  readonly unmount?: true;
  readonly lazy?: true;
  readonly verbose?: true;
  readonly debug?: true;
  readonly stats?: true;
  readonly metrics?: MetricsAddress;
  readonly status?: true;
  readonly json?: true;
  readonly version?: true;
  readonly fuseHelp?: true;
  readonly completion?: Shell;
  readonly longOptions?: true;
  readonly shortOptions?: true;
}

/** The parts of the help. What is seldom needed is hidden from it, and told by the manual. */
const SHOWN = 'What is shown:';
const USE = 'How it is used:';
const FAILURES = 'When the server fails:';
const STATUS = 'How it does:';
const MESSAGES = 'Messages and help:';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** Of nbdfuse, for scripts that complete its options. */
const INTERNAL = ['--long-options', '--short-options'];

/** All that the manual tells of. */
export function documentedOptions(program: Command): Option[] {
  const { options } = program;
  const help = program.createHelp().visibleOptions(program);
  return [...new Set([...options, ...help])].filter(({ long }) => !INTERNAL.includes(long ?? ''));
}

/** In one line of the help, with what it can be, or what it is by itself. */
function described({
  description,
  argChoices,
  defaultValue,
  defaultValueDescription,
}: Option): string {
  if (argChoices !== undefined) return `${description}: ${argChoices.join(', ')}`;
  const itself = defaultValueDescription ?? (defaultValue as number | undefined);
  return itself === undefined ? description : `${description} (default: ${itself})`;
}

export function makeProgram(): Command {
  return (
    new Command('tsnbdfuse')
      .usage(FORMS)
      .description('Show an NBD export, or the disk of a captive NBD server, as a local file.')
      .argument('[words...]')
      .optionsGroup(SHOWN)
      .option('-r, --readonly', 'refuse writes')
      .optionsGroup(USE)
      .addOption(
        new Option('-C, --connections <n>', 'how many, if the server takes several')
          .argParser(parseConnections)
          .default(DEFAULT_CONNECTIONS),
      )
      .addOption(
        new Option('-o <options>', 'options of FUSE, see --fuse-help').argParser(
          (text: string, before: readonly string[] | undefined) => [...(before ?? []), text],
        ),
      )
      .addOption(
        new Option('--cache <mode>', 'how writes are cached')
          .choices(CACHES)
          // It depends on the name that we are called by.
          .default(undefined, 'writeback'),
      )
      .option('-P, --pidfile <file>', 'write the process id there once mounted')
      .option('--daemon', 'go into the background once mounted')
      .addOption(
        new Option('--log <file>', 'its messages then; to the system log if not given').hideHelp(),
      )
      .addOption(
        new Option('--ready-fd <n>', 'write a newline there once mounted')
          .argParser(parseReadyFd)
          .hideHelp(),
      )
      .optionsGroup(FAILURES)
      .addOption(
        new Option('--connect-timeout <seconds>', 'how long the server may take')
          .argParser(parseSeconds)
          .default(DEFAULT_CONNECT_TIMEOUT)
          .hideHelp(),
      )
      .option(
        '--timeout <seconds>',
        'how long a request may take; 0: for ever',
        parsePatience,
        DEFAULT_TIMEOUT,
      )
      .addOption(
        new Option('--reconnect <seconds>', 'how long it is waited for; 0, or forever')
          .argParser(parseReconnect)
          // Whether it was given matters.
          .default(undefined, String(DEFAULT_RECONNECT)),
      )
      .addOption(
        new Option('--unflushed-limit <bytes>', 'how much is kept to be sent again')
          .argParser(parseUnflushedLimit)
          .default(undefined, '64M')
          .hideHelp(),
      )
      .option('--restart-server', 'start CMD again if it ends; it must keep its data')
      .optionsGroup(SHOWN)
      .option('--format <format>', 'of IMAGE, as qcow2, where its name does not tell', parseFormat)
      .option('--backing', 'open the backing files that IMAGE names as well')
      .option('--partitions', 'show the partitions beside the disk')
      .option('--partition <n>', 'show this partition instead of the disk', parsePartition)
      .option('--offset <bytes>', 'show the disk from there on: 512, 10M, 1.5G', parseBytes)
      .option('--size <bytes>', 'show no more of it than that', parseWindowSize)
      .optionsGroup(USE)
      .addOption(new Option('--trim', 'trim where holes are punched').hideHelp())
      .optionsGroup(STATUS)
      .option('--stats', 'a live line on a terminal, and a summary at the end')
      .option('--metrics <address>', 'serve metrics: [HOST:]PORT, or a socket', parseMetricsAddress)
      .option('--status', 'show what is mounted, or MOUNTPOINT; also --json')
      .addOption(new Option('--json', 'with --status: for scripts').hideHelp())
      .optionsGroup(USE)
      .option('-u, --unmount', 'unmount MOUNTPOINT, and wait until all is safe')
      .addOption(new Option('-z, --lazy', 'with -u: detach it also while it is in use').hideHelp())
      .optionsGroup(MESSAGES)
      .option('-v, --verbose', 'trace each request, as DEBUG=tsnbdfuse:* does')
      .addOption(new Option('-d, --debug', 'the same as -v').hideHelp())
      .addOption(new Option('-s', 'accepted; there is one thread anyway').hideHelp())
      .option('-V, --version', 'print the version')
      .addOption(new Option('--fuse-help', 'print the options of -o').hideHelp())
      .addOption(
        new Option('--completion <shell>', 'print completions for a shell').choices(SHELLS),
      )
      // For the completion of shells, as nbdfuse has it.
      .addOption(new Option('--long-options').hideHelp())
      .addOption(new Option('--short-options').hideHelp())
      .helpOption('--help', 'print this help')
      .addHelpText('after', EXAMPLES)
      // The default puts the words into the usage line a second time, and lists them.
      .configureHelp({ helpWidth: 80, visibleArguments: () => [], optionDescription: described })
      .configureOutput({ writeOut: () => undefined, writeErr: () => undefined })
      .exitOverride()
  );
}
