/**
 * What `tsnbdkit` can serve. A new plugin is one row here and one file beside this one, which is
 * loaded only where it is asked for.
 *
 * A filter, where there will be one, takes a Disk and gives a Disk; it goes between `open` here and
 * `serve`, and neither of them learns of it.
 */

import type { Disk } from '../../disk/disk.js';

/** The disk cannot be had as it was asked for. The message is for the user. */
export class PluginError extends Error {
  /** Tells the kind of error. */
  override readonly name = 'PluginError';
}

export interface PluginOptions {
  readonly readOnly: boolean;
}

export interface Plugin {
  readonly name: string;
  /** What its argument is called in the help: `SIZE`. */
  readonly argument: string;
  /** A line of help. */
  readonly help: string;
  /** @throws PluginError; SizeError; ErrnoError */
  readonly open: (argument: string, options: PluginOptions) => Promise<Disk>;
}

export const plugins: readonly Plugin[] = [
  {
    name: 'memory',
    argument: 'SIZE',
    help: 'a disk in memory, gone when the server ends',
    open: async (size, options) => (await import('./memory.js')).openMemory(size, options),
  },
  {
    name: 'file',
    argument: 'PATH',
    help: 'a regular file or a block device',
    open: async (path, options) => (await import('./file.js')).openFile(path, options),
  },
];
