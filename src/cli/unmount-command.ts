/** The command line of `--unmount`. */

import type { Command } from 'commander';
import { UsageError } from './errors.js';
import type { Options } from './options.js';

export interface UnmountCommand {
  readonly kind: 'unmount';
  /** As the user wrote it. */
  readonly mountpoint: string;
  /** Takes it out of sight at once, whoever has it open. */
  readonly isLazy: boolean;
  /** Milliseconds for which it may be busy, and without any progress; undefined for any time. */
  readonly patience: number | undefined;
  readonly verbose: boolean;
}

/** What can be given with it, as commander names them. */
const ALLOWED = new Set(['unmount', 'lazy', 'timeout', 'verbose', 'debug']);

/** @returns undefined where it is not asked for @throws UsageError */
export function unmountCommandOf(
  program: Command,
  mode: { readonly word: string } | undefined,
): UnmountCommand | undefined {
  const options = program.opts<Options>();
  if (options.unmount !== true) {
    if (options.lazy === true) throw new UsageError('-z is for an unmount: -u -z');
    return undefined;
  }
  for (const option of program.options) {
    const name = option.attributeName();
    if (program.getOptionValueSource(name) === 'cli' && !ALLOWED.has(name)) {
      throw new UsageError(
        `--unmount and ${option.long ?? option.short ?? name} cannot be used together`,
      );
    }
  }
  if (mode !== undefined) {
    throw new UsageError(`${mode.word}: --unmount takes a mountpoint and nothing else`);
  }
  const [mountpoint, extra] = program.args;
  if (mountpoint === undefined) {
    throw new UsageError('the mountpoint is missing: what shall be unmounted?');
  }
  if (mountpoint === '') throw new UsageError('the mountpoint is an empty word');
  if (extra !== undefined) throw new UsageError(`${extra}: --unmount takes one mountpoint`);
  return {
    kind: 'unmount',
    mountpoint,
    isLazy: options.lazy === true,
    patience: options.timeout === 0 ? undefined : options.timeout * 1000,
    verbose: options.verbose === true || options.debug === true,
  };
}
