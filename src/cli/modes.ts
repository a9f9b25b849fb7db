/** What the words behind the mountpoint say: where the disk comes from. */

import { MAX_VSOCK } from '../nbd/constants.js';
import type { SocketAddress, Target } from '../nbd/export.js';
import { UsageError } from './errors.js';

type Words = readonly [string, ...string[]];

/** What is shown as a file. */
export type Source =
  /** The command of a captive server and its arguments; it gets a listening socket. */
  | { readonly kind: 'captive'; readonly command: Words }
  /** The same for a server that speaks NBD on its standard input and output. */
  | { readonly kind: 'command'; readonly command: Words }
  /** Not yet parsed. */
  | { readonly kind: 'uri'; readonly uri: string }
  /** A disk image, whose server we choose. Not yet looked at. */
  | {
      readonly kind: 'image';
      readonly path: string;
      /** As `--format` has it. */
      readonly format: string | undefined;
      /** The files that the image names may be opened as well. */
      readonly backing: boolean;
    }
  /** A connected socket that we inherited. */
  | { readonly kind: 'fd'; readonly fd: number }
  | {
      readonly kind: 'address';
      readonly address: Exclude<Target['address'], SocketAddress>;
    };

interface Mode {
  /** How it is written. */
  readonly form: string;
  /** How many words it takes, where it is not all of them. */
  readonly words?: number;
  /** @param word the one that selects it */
  readonly source: (words: readonly string[], word: string) => Source;
}

const ACTIVATION: Mode = {
  form: '--socket-activation CMD ARGS...',
  source: (words, word) => ({ kind: 'captive', command: command(words, word) }),
};
const COMMAND: Mode = {
  form: '--command CMD ARGS...',
  source: (words, word) => ({ kind: 'command', command: command(words, word) }),
};

/** By the word that selects the mode, and ends the options. The brackets are another way to write one. */
const MODES: ReadonlyMap<string, Mode> = new Map<string, Mode>([
  ['[', { form: '[ CMD ARGS... ]', source: (words) => bracketed(words) }],
  ['--socket-activation', ACTIVATION],
  ['--systemd-socket-activation', ACTIVATION],
  ['--command', COMMAND],
  ['--cmd', COMMAND],
  ['--uri', { form: '--uri URI', words: 1, source: ([uri = '']) => ({ kind: 'uri', uri }) }],
  [
    '--fd',
    {
      form: '--fd N',
      words: 1,
      source: ([fd = '']) => ({ kind: 'fd', fd: number(fd, 0, 0x7fffffff, 'a file descriptor') }),
    },
  ],
  [
    '--tcp',
    {
      form: '--tcp HOST PORT',
      words: 2,
      source: ([host = '', port = '']) => ({
        kind: 'address',
        address: { kind: 'tcp', host, port: number(port, 1, 65535, 'a port') },
      }),
    },
  ],
  [
    '--unix',
    {
      form: '--unix SOCKET',
      words: 1,
      source: ([path = '']) => ({ kind: 'address', address: { kind: 'unix', path } }),
    },
  ],
  [
    '--vsock',
    {
      form: '--vsock CID PORT',
      words: 2,
      source: ([cid = '', port = '']) => ({
        kind: 'address',
        address: {
          kind: 'vsock',
          cid: number(cid, 0, MAX_VSOCK, 'a context id'),
          port: number(port, 0, MAX_VSOCK, 'a port'),
        },
      }),
    },
  ],
]);

/** The forms of all modes, for who lists them: the word that selects it, and a word for each that follows. */
export const modeForms = (): readonly string[] =>
  [...MODES].map(([word, { form }]) => form.replace(/^\S+/, word));

export const isMode = (word: string): boolean => MODES.has(word);

/**
 * @param word for which `isMode` holds
 * @param words all that follow it
 * @throws UsageError
 */
export function parseMode(word: string, words: readonly string[]): Source {
  const mode = MODES.get(word);
  if (mode === undefined) throw new Error(`${word} is not a mode`);
  if (mode.words !== undefined) {
    if (words.length < mode.words) {
      throw new UsageError(`${word} needs more words behind it: ${mode.form}`);
    }
    if (words.slice(0, mode.words).includes('')) {
      throw new UsageError(`${word} has an empty word behind it: ${mode.form}`);
    }
    const extra = words[mode.words];
    if (extra !== undefined) {
      throw new UsageError(
        `${extra}: nothing can follow ${mode.form}${extra.startsWith('-') ? '; options go before it' : ''}`,
      );
    }
  }
  return mode.source(words, word);
}

function number(text: string, least: number, most: number, what: string): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) {
    throw new UsageError(`${text} is not ${what}: it is a number from ${least} to ${most}`);
  }
  return value;
}

function command([first, ...rest]: readonly string[], word: string): Words {
  if (first === undefined) throw new UsageError(`there is no command behind ${word}`);
  if (first === '') throw new UsageError(`the command behind ${word} is an empty word`);
  return [first, ...rest];
}

/** The command between brackets is not ours to parse: dashes, further brackets and all. */
function bracketed(words: readonly string[]): Source {
  const last = words.at(-1) ?? '';
  if (last !== ']') {
    if (words.includes(']')) {
      throw new UsageError(`${last} stands after the ]; options go before the [`);
    }
    throw new UsageError(
      last.endsWith(']')
        ? `[ without ]: put a space before the ] in ${last}`
        : '[ without ]: the last argument must be a ] by itself',
    );
  }
  const [first, ...rest] = words.slice(0, -1);
  if (first === undefined) throw new UsageError('there is no command between [ and ]');
  if (first === '') throw new UsageError('the command between [ and ] is an empty word');
  return { kind: 'captive', command: [first, ...rest] };
}
