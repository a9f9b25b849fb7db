/** The arguments of the command, as what they ask for. */

import { CommanderError } from 'commander';
import type { Command } from 'commander';
import { MountOptionError, fuseOptionsHelp, parseFuseOptions } from '../fuse/mount-options.js';
import type { FuseOptions } from '../fuse/mount-options.js';
import { UsageError } from './errors.js';
import type { MetricsAddress } from './metrics-address.js';
import { parseMode } from './modes.js';
import type { Source } from './modes.js';
import {
  ALIASES,
  EXAMPLES,
  FIRST_READY_FD,
  FORMS,
  documentedOptions,
  makeProgram,
  patienceOf,
} from './options.js';
import type { Cache, Options, Patience, Shell } from './options.js';
import { splitArguments } from './split-arguments.js';
import type { UmountCall } from './umount-helper.js';
import { unmountCommandOf } from './unmount-command.js';
import type { UnmountCommand } from './unmount-command.js';

export interface MountCommand {
  readonly kind: 'mount';
  /** As the user wrote it. */
  readonly mountpoint: string;
  readonly source: Source;
  readonly readOnly: boolean;
  readonly cache: Cache;
  /** How many at the most, where the server allows several. */
  readonly connections: number;
  readonly fuse: FuseOptions;
  readonly pidfile: string | undefined;
  /** Go into the background once it is mounted. */
  readonly daemon: boolean;
  /** Where a daemon tells what happens; undefined: in the system's log. */
  readonly log: string | undefined;
  /** Told once it is mounted. */
  readonly readyFd: number | undefined;
  /** Milliseconds. */
  readonly connectTimeout: number;
  readonly patience: Patience;
  /** A captive server that ends is started again. */
  readonly restartServer: boolean;
  /** Show the partitions as well. */
  readonly partitions: boolean;
  /** Show this one in place of the disk. */
  readonly partition: number | undefined;
  /** Show this range in place of the disk, in bytes; without a size, to its end. */
  readonly window: { readonly offset: bigint; readonly size: bigint | undefined } | undefined;
  /** Punched holes are trimmed, whatever reads there then. */
  readonly trim: boolean;
  readonly verbose: boolean;
  /** A live line on a terminal, and a summary at the end. */
  readonly stats: boolean;
  /** Where Prometheus finds us. */
  readonly metrics: MetricsAddress | undefined;
}

export interface StatusCommand {
  readonly kind: 'status';
  /** As the user wrote it; all of them where there is none. */
  readonly mountpoint: string | undefined;
  readonly json: boolean;
}

export type CommandLine =
  | MountCommand
  | StatusCommand
  | UnmountCommand
  | UmountCall
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'version' }
  | { readonly kind: 'completion'; readonly shell: Shell };

export const USAGE = `usage: tsnbdfuse ${FORMS}
       tsnbdfuse --help`;

/** The command whose scripts run here when we have its name. */
const PREDECESSOR = 'nbdfuse';

/**
 * @param args without those of the interpreter
 * @param calledAs as `nbdfuse` a write is at the server when it returns, which its scripts may count on
 * @throws UsageError
 */
export function parseCommandLine(args: readonly string[], calledAs = 'tsnbdfuse'): CommandLine {
  const program = makeProgram();
  const { ours, mode } = splitArguments(args, program, ALIASES);
  try {
    program.parse([...ours], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === 'commander.helpDisplayed') {
      return { kind: 'help', text: `${program.helpInformation()}${EXAMPLES}\n` };
    }
    throw UsageError.from(error);
  }
  const options = program.opts<Options>();
  const text = asksForText(options, program);
  if (text !== undefined) return { kind: 'help', text };
  if (options.version === true) return { kind: 'version' };
  if (options.completion !== undefined) return { kind: 'completion', shell: options.completion };
  if (options.status === true) return statusCommand(options, program, mode?.word);
  if (options.json === true) throw new UsageError('--json is for --status');
  const unmount = unmountCommandOf(program, mode);
  if (unmount !== undefined) return unmount;

  const fuse = fuseOptions(options.o ?? []);
  const { mountpoint, source } = destination(program.args, mode, options);
  const restartServer = options.restartServer === true;
  return {
    kind: 'mount',
    mountpoint,
    source,
    readOnly: options.readonly === true || fuse.readOnly,
    cache: options.cache ?? (calledAs === PREDECESSOR ? 'writethrough' : 'writeback'),
    connections: options.connections,
    fuse,
    pidfile: options.pidfile,
    ...background(options, source),
    connectTimeout: options.connectTimeout * 1000,
    patience: patienceOf(options, canReconnect(source, options)),
    restartServer,
    ...choice(options),
    trim: options.trim === true,
    verbose: options.verbose === true || options.debug === true || fuse.debug,
    stats: options.stats === true,
    metrics: options.metrics,
  };
}

/** What has a meaning beside --status. */
const WITH_STATUS = new Set(['status', 'json']);

/** @throws UsageError for what has none */
function statusCommand(
  options: Options,
  program: Command,
  mode: string | undefined,
): StatusCommand {
  const [mountpoint, second] = program.args;
  const extra = second ?? mode;
  if (extra !== undefined) {
    throw new UsageError(`${extra}: --status takes one mountpoint, and starts nothing`);
  }
  if (mountpoint === '') throw new UsageError('the mountpoint is an empty word');
  const other = program.options.find((option) => {
    const name = option.attributeName();
    return program.getOptionValueSource(name) === 'cli' && !WITH_STATUS.has(name);
  });
  if (other !== undefined) {
    throw new UsageError(`${other.long ?? other.flags} has no meaning with --status`);
  }
  return { kind: 'status', mountpoint, json: options.json === true };
}

/** Other texts than the help. */
function asksForText(options: Options, program: Command): string | undefined {
  if (options.fuseHelp === true) return fuseOptionsHelp();
  const documented = documentedOptions(program);
  const list = (names: readonly (string | null | undefined)[]): string =>
    names.map((name) => (typeof name === 'string' ? `${name}\n` : '')).join('');
  if (options.longOptions === true) {
    return list([...documented.map(({ long }) => long), ...ALIASES.keys()]);
  }
  return options.shortOptions === true ? list(documented.map(({ short }) => short)) : undefined;
}

function fuseOptions(texts: readonly string[]): FuseOptions {
  try {
    return parseFuseOptions(texts, process.geteuid?.() === 0);
  } catch (error) {
    if (error instanceof MountOptionError) throw new UsageError(`-o ${error.message}`);
    throw error;
  }
}

/** Whether a server that is lost can be reached again. @throws UsageError for options that ask for more */
function canReconnect(source: Source, { reconnect, restartServer }: Options): boolean {
  // An image is in a file, and what we start for it finds it there again.
  if (source.kind === 'image') return reconnect !== 0;
  const isCaptive = source.kind === 'captive' || source.kind === 'command';
  if (restartServer === true && !isCaptive) {
    throw new UsageError('--restart-server is for a server that is started here: [ CMD ]');
  }
  if (isCaptive ? restartServer === true : source.kind !== 'fd') return true;
  if (reconnect === undefined || reconnect === 0) return false;
  throw new UsageError(
    isCaptive
      ? '--reconnect needs --restart-server, for a server that keeps its data'
      : '--reconnect: a socket that we inherit cannot be connected again',
  );
}

/** @throws UsageError for what cannot be together */
function background(
  { daemon, log, readyFd }: Options,
  source: Source,
): Pick<MountCommand, 'daemon' | 'log' | 'readyFd'> {
  if (log !== undefined && daemon !== true) {
    throw new UsageError('--log is for --daemon; in the foreground redirect standard error');
  }
  if (log === '') throw new UsageError('--log: the name of the file is an empty word');
  if (source.kind === 'fd') {
    if (source.fd === readyFd) throw new UsageError(`--fd and --ready-fd are both ${readyFd}`);
    if (daemon === true && source.fd < FIRST_READY_FD) {
      throw new UsageError(`--fd ${source.fd}: a daemon has no standard streams of its user`);
    }
  }
  return { daemon: daemon === true, log, readyFd };
}

/** What of the disk is shown: one choice only. */
function choice(options: Options): Pick<MountCommand, 'partitions' | 'partition' | 'window'> {
  const { partition, offset, size } = options;
  const partitions = options.partitions === true;
  const window =
    offset === undefined && size === undefined ? undefined : { offset: offset ?? 0n, size };
  const given = [
    ...(partitions ? ['--partitions'] : []),
    ...(partition === undefined ? [] : ['--partition']),
    ...(window === undefined ? [] : [offset === undefined ? '--size' : '--offset']),
  ];
  if (given.length > 1) throw new UsageError(`${given.join(' and ')} cannot be used together`);
  return { partitions, partition, window };
}

const SCHEME = /^[a-z][a-z0-9+.-]*:/i;

interface Destination {
  readonly mountpoint: string;
  readonly source: Source;
}

/** What the words that are not options say. */
function destination(
  words: readonly string[],
  mode: { readonly word: string; readonly words: readonly string[] } | undefined,
  options: Options,
): Destination {
  if (mode === undefined) checkBrackets(words);
  // First of all: its mistakes are better told than what follows from them.
  const source = mode === undefined ? undefined : parseMode(mode.word, mode.words);
  const [mountpoint, second, third] = words;
  if (mountpoint === undefined) {
    const where = mode === undefined ? '' : ` It goes before ${mode.word}`;
    throw new UsageError(`the mountpoint is missing: which file shall show the disk?${where}`);
  }
  if (mountpoint === '') throw new UsageError('the mountpoint is an empty word');
  if (mode !== undefined && source !== undefined) {
    const what = mode.word === '[' ? '[ CMD ]' : mode.word;
    if (second !== undefined) {
      throw new UsageError(
        SCHEME.test(second)
          ? `both a URI (${second}) and ${what} are given; only one can be shown`
          : `${second}: only one mountpoint can stand before ${mode.word === '[' ? 'the [' : what}`,
      );
    }
    refuseImageOptions(options);
    return { mountpoint, source };
  }
  return { mountpoint, source: sourceOf(mountpoint, second, third, options) };
}

function checkBrackets(words: readonly string[]): void {
  if (words.includes(']')) throw new UsageError('] without a [ before it');
  const glued = words.find((word) => word.startsWith('[') && !word.endsWith(']'));
  if (glued === undefined) return;
  throw new UsageError(`${glued}: put a space after the [, and one before the ]`);
}

/** @throws UsageError if the second word is neither a URI nor what may be the name of an image */
function sourceOf(
  mountpoint: string,
  word: string | undefined,
  extra: string | undefined,
  options: Options,
): Source {
  if (word === undefined) {
    throw new UsageError(
      SCHEME.test(mountpoint)
        ? `the mountpoint is missing: it stands before the URI ${mountpoint}`
        : `what shall ${mountpoint} show? Neither an image nor a URI nor [ CMD ARGS... ] follows it`,
    );
  }
  const isUri = SCHEME.test(word);
  if (!isUri && SCHEME.test(mountpoint)) {
    throw new UsageError(`the mountpoint ${word} goes before the URI ${mountpoint}`);
  }
  if (extra !== undefined) {
    throw new UsageError(
      isUri
        ? `${extra}: nothing can follow the URI`
        : `${extra}: nothing can follow the image ${word}; the words of a command stand in brackets, as [ ${word} ${extra} ]`,
    );
  }
  if (isUri) {
    refuseImageOptions(options);
    return { kind: 'uri', uri: word };
  }
  if (word === '') throw new UsageError('the name of the image is an empty word');
  const { format, backing } = options;
  return { kind: 'image', path: word, format, backing: backing === true };
}

/** @throws UsageError for what says something of an image, where there is none */
function refuseImageOptions({ format, backing }: Options): void {
  const option = format !== undefined ? '--format' : backing === true ? '--backing' : undefined;
  if (option === undefined) return;
  throw new UsageError(`${option} is for a disk image that follows the mountpoint by its name`);
}
