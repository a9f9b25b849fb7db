/** What a shell can complete of our commands, as their definitions have it. */

import type { Command, Option } from 'commander';
import { fuseOptionWords } from '../../fuse/mount-options.js';
import { FORMAT_NAMES } from '../../images/format-names.js';
import { plugins } from '../../server/plugins/index.js';
import { modeForms } from '../modes.js';
import { ALIASES, documentedOptions, makeProgram } from '../options.js';
import { makeKitProgram } from '../tsnbdkit-options.js';

/** What stands behind an option, or behind the word of a mode. */
export type Value =
  | { readonly kind: 'files' | 'hosts' | 'command' }
  | { readonly kind: 'words'; readonly words: readonly string[] }
  /** Several of them, with commas between; behind one that ends with = something follows. */
  | { readonly kind: 'list'; readonly words: readonly string[] }
  /** Nothing that could be listed. */
  | { readonly kind: 'text'; readonly name: string };

export interface CompletedOption {
  /** Short and long ones, dashes and all. */
  readonly names: readonly string[];
  readonly help: string;
  readonly value: Value | undefined;
}

export interface CompletedMode {
  readonly word: string;
  readonly values: readonly Value[];
}

/** Placeholders, in lower case, that stand for the name of a file. */
const FILES = ['file', 'socket', 'path', 'dir', 'directory'];

function valueCalled(name: string): Value {
  if (FILES.includes(name)) return { kind: 'files' };
  if (name === 'host') return { kind: 'hosts' };
  return name === 'cmd' ? { kind: 'command' } : { kind: 'text', name };
}

/** Of options whose definitions do not tell it. */
const VALUES: ReadonlyMap<string, Value> = new Map([
  ['-o', { kind: 'list', words: fuseOptionWords() }],
  ['--format', { kind: 'words', words: FORMAT_NAMES }],
  // Of what it can be, a path is what a shell knows.
  ['--metrics', { kind: 'files' }],
]);

function valueOf({ flags, argChoices, long, short }: Option): Value | undefined {
  const [, name] = /<(.+)>/.exec(flags) ?? [];
  if (name === undefined) return undefined;
  if (argChoices !== undefined) return { kind: 'words', words: argChoices };
  return VALUES.get(long ?? short ?? '') ?? valueCalled(name);
}

function optionsOf(program: Command, aliases: ReadonlyMap<string, string>): CompletedOption[] {
  return documentedOptions(program).map((option) => {
    const own = [option.short, option.long].filter((name) => typeof name === 'string');
    const others = [...aliases].filter(([, name]) => name === option.long).map(([alias]) => alias);
    return { names: [...own, ...others], help: option.description, value: valueOf(option) };
  });
}

export const tsnbdfuseOptions = (): CompletedOption[] => optionsOf(makeProgram(), ALIASES);
export const tsnbdkitOptions = (): CompletedOption[] => optionsOf(makeKitProgram(), new Map());

/** Without the brackets, which are written otherwise. */
export function modes(): CompletedMode[] {
  return modeForms()
    .map((form) => form.toLowerCase().split(' '))
    .filter(([word]) => word !== '[')
    .map(([word = '', ...names]) => {
      const command = names.includes('cmd');
      return { word, values: command ? [valueCalled('cmd')] : names.map(valueCalled) };
    });
}

/** How a URI begins. */
export const SCHEMES: readonly string[] = [
  ...['nbd://', 'nbd+unix:///', 'nbd+vsock://', 'nbd+ssh://'],
  ...['nbds://', 'nbds+unix:///', 'nbds+vsock://', 'nbds+ssh://'],
];

/** The plugins of tsnbdkit, and whether their argument is the name of a file. */
export const pluginArguments = (): { readonly name: string; readonly file: boolean }[] =>
  plugins.map(({ name, argument }) => ({ name, file: FILES.includes(argument.toLowerCase()) }));
