/** The arguments of the command, as what they ask for. */

import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { UsageError } from './errors.js';

export const CACHES = ['writeback', 'writethrough', 'none'] as const;
export type Cache = (typeof CACHES)[number];

/** What is shown as a file. */
export type Source =
  /** The command of a captive server and its arguments, at least one word. */
  | { readonly kind: 'captive'; readonly command: readonly [string, ...string[]] }
  /** Not yet parsed. */
  | { readonly kind: 'uri'; readonly uri: string };

export interface MountCommand {
  readonly kind: 'mount';
  /** As the user wrote it. */
  readonly mountpoint: string;
  readonly source: Source;
  readonly readOnly: boolean;
  readonly cache: Cache;
  readonly trim: boolean;
  readonly pidfile: string | undefined;
  /** Milliseconds. */
  readonly connectTimeout: number;
  readonly verbose: boolean;
}

export type CommandLine =
  MountCommand | { readonly kind: 'help'; readonly text: string } | { readonly kind: 'version' };

export const USAGE = `usage: tsnbdfuse [options] MOUNTPOINT [ CMD ARGS... ]
       tsnbdfuse [options] MOUNTPOINT URI
       tsnbdfuse --help`;

const EXAMPLES = `
Examples:
  touch disk.raw
  tsnbdfuse disk.raw [ tsnbdkit memory 1G ] &
  tsnbdfuse disk.raw [ qemu-nbd -f qcow2 disk.qcow2 ] &
  tsnbdfuse disk.raw nbd://server.example/export &
  fusermount3 -u disk.raw`;

/** Seconds; long enough for a server that opens its image over a network. */
const DEFAULT_CONNECT_TIMEOUT = 10;
/** The longest that a timer of Node takes is 2^31 - 1 ms. */
const MAX_CONNECT_TIMEOUT = 2_000_000;

function parseSeconds(text: string): number {
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(seconds > 0 && seconds <= MAX_CONNECT_TIMEOUT)) {
    throw new InvalidArgumentError(`It is a number of seconds, over 0.`);
  }
  return seconds;
}

interface Options {
  readonly readonly?: true;
  readonly cache: Cache;
  readonly trim?: true;
  readonly pidfile?: string;
  readonly connectTimeout: number;
  readonly verbose?: true;
  readonly debug?: true;
  readonly version?: true;
}

function makeProgram(): Command {
  return (
    new Command('tsnbdfuse')
      .usage('[options] MOUNTPOINT [ CMD ARGS... ]\n       tsnbdfuse [options] MOUNTPOINT URI')
      .description('Show an NBD export, or the disk of a captive NBD server, as a local file.')
      .argument('[words...]')
      .option('-r, --readonly', 'refuse writes')
      .addOption(
        new Option('--cache <mode>', 'use of the page cache by writes')
          .choices(CACHES)
          .default('writeback'),
      )
      .option('--trim', 'make holes with TRIM; their content is undefined')
      .option('-P, --pidfile <file>', 'write the process id there once mounted')
      .option(
        '--connect-timeout <seconds>',
        'how long the server may take',
        parseSeconds,
        DEFAULT_CONNECT_TIMEOUT,
      )
      .option('-v, --verbose', 'trace each request, as DEBUG=tsnbdfuse:* does')
      .option('-d, --debug', 'the same as -v')
      .option('-V, --version', 'print the version')
      .helpOption('--help', 'print this help')
      .addHelpText('after', EXAMPLES)
      // The default puts the words into the usage line a second time, and lists them.
      .configureHelp({ helpWidth: 80, visibleArguments: () => [] })
      .configureOutput({ writeOut: () => undefined, writeErr: () => undefined })
      .exitOverride()
  );
}

/** Splits off the command of a captive server, which is not ours to parse: dashes, brackets and all. */
function splitAtBracket(args: readonly string[]): { ours: readonly string[]; server?: string[] } {
  const open = args.indexOf('[');
  if (open < 0) {
    if (args.includes(']')) throw new UsageError('] without a [ before it');
    const glued = args.find((arg) => arg.startsWith('[') && !arg.endsWith(']'));
    if (glued !== undefined) {
      throw new UsageError(`${glued}: put a space after the [, and one before the ]`);
    }
    return { ours: args };
  }
  const server = args.slice(open + 1, -1);
  if (args.length - 1 === open || args.at(-1) !== ']') {
    const last = args.at(-1) ?? '';
    if (args.includes(']', open)) {
      throw new UsageError(`${last} stands after the ]; options go before the [`);
    }
    throw new UsageError(
      last.endsWith(']') && last.length > 1
        ? `[ without ]: put a space before the ] in ${last}`
        : '[ without ]: the last argument must be a ] by itself',
    );
  }
  if (server.length === 0) throw new UsageError('there is no command between [ and ]');
  if (server[0] === '') throw new UsageError('the command between [ and ] is an empty word');
  return { ours: args.slice(0, open), server };
}

/**
 * @param args without those of the interpreter
 * @throws UsageError
 */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const { ours, server } = splitAtBracket(args);
  const program = makeProgram();
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
  if (options.version === true) return { kind: 'version' };

  const [mountpoint, uri, ...rest] = program.args;
  return {
    kind: 'mount',
    ...destination(mountpoint, uri, rest, server),
    readOnly: options.readonly === true,
    cache: options.cache,
    trim: options.trim === true,
    pidfile: options.pidfile,
    connectTimeout: options.connectTimeout * 1000,
    verbose: options.verbose === true || options.debug === true,
  };
}

const SCHEME = /^[a-z][a-z0-9+.-]*:/i;

/** What the words that are not options say. */
function destination(
  mountpoint: string | undefined,
  uri: string | undefined,
  rest: readonly string[],
  server: readonly string[] | undefined,
): { mountpoint: string; source: Source } {
  if (mountpoint === undefined) {
    throw new UsageError('the mountpoint is missing: which file shall show the disk?');
  }
  if (mountpoint === '') throw new UsageError('the mountpoint is an empty word');
  const extra = rest[0];
  if (server !== undefined) {
    if (uri !== undefined) {
      throw new UsageError(
        SCHEME.test(uri)
          ? `both a URI (${uri}) and [ CMD ] are given; only one can be shown`
          : `${uri}: only one mountpoint can stand before the [`,
      );
    }
    const [command = '', ...words] = server;
    return { mountpoint, source: { kind: 'captive', command: [command, ...words] } };
  }
  if (uri === undefined) {
    throw new UsageError(
      SCHEME.test(mountpoint)
        ? `the mountpoint is missing: it stands before the URI ${mountpoint}`
        : `what shall ${mountpoint} show? Neither [ CMD ARGS... ] nor a URI follows it`,
    );
  }
  if (!SCHEME.test(uri)) {
    throw new UsageError(
      SCHEME.test(mountpoint)
        ? `the mountpoint ${uri} goes before the URI ${mountpoint}`
        : `${uri} is neither a URI nor a command in brackets, as [ ${uri} ]`,
    );
  }
  if (extra !== undefined) throw new UsageError(`${extra}: nothing can follow the URI`);
  return { mountpoint, source: { kind: 'uri', uri } };
}
