/** What a shared object needs of the system that loads it, as readelf of binutils tells it. */

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Needs {
  /** As readelf names it. */
  readonly machine: string;
  /** The libraries that it is linked with. */
  readonly libraries: readonly string[];
  /** The symbols that have to be there, without their versions, sorted. */
  readonly symbols: readonly string[];
  /** The versions of symbols, as GLIBC_2.28. */
  readonly versions: ReadonlySet<string>;
}

export async function needsOf(file: string): Promise<Needs> {
  const words = ['--wide', '--file-header', '--dynamic', '--dyn-syms', file];
  // readelf speaks the language of the user.
  const { stdout } = await run('readelf', words, { env: { ...process.env, LC_ALL: 'C' } });
  const symbols = new Set<string>();
  const versions = new Set<string>();
  for (const [, bind, name = '', version] of stdout.matchAll(
    /\s(GLOBAL|WEAK)\s+DEFAULT\s+UND\s+([^\s@]+)(?:@+(\S+))?/g,
  )) {
    if (version !== undefined) versions.add(version);
    if (bind === 'GLOBAL') symbols.add(name);
  }
  return {
    machine: /^\s*Machine:\s*(.*)$/m.exec(stdout)?.[1]?.trim() ?? '',
    libraries: [...stdout.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name = '']) => name),
    symbols: [...symbols].sort(),
    versions,
  };
}
