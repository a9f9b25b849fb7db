/** Looks a command up as a shell does. */

import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';

export type Lookup =
  | { readonly found: true; readonly path: string }
  /** `reason` is the end of a sentence about the command. */
  | { readonly found: false; readonly reason: string };

/** Undefined where it can be executed. */
async function obstacle(path: string): Promise<string | undefined> {
  try {
    const entry = await stat(path);
    if (!entry.isFile()) return entry.isDirectory() ? 'is a directory' : 'is not a regular file';
    await access(path, constants.X_OK);
    return undefined;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return 'does not exist';
    if (code === 'EACCES') return 'is not executable';
    return `cannot be looked at (${String(code)})`;
  }
}

/**
 * @param command a name that is searched in `path`, or with a slash the file itself
 * @param path folders as $PATH has them
 */
export async function findProgram(command: string, path: string): Promise<Lookup> {
  if (command.includes('/')) {
    const reason = await obstacle(command);
    return reason === undefined
      ? { found: true, path: resolve(command) }
      : { found: false, reason };
  }
  // An empty entry means the current folder (environ(7)).
  const candidates = path.split(delimiter).map((folder) => join(folder || '.', command));
  const obstacles = await Promise.all(candidates.map(obstacle));
  let almost: string | undefined;
  for (const [i, candidate] of candidates.entries()) {
    const reason = obstacles[i];
    if (reason === undefined) return { found: true, path: resolve(candidate) };
    if (reason === 'is not executable') almost ??= candidate;
  }
  return {
    found: false,
    reason:
      almost === undefined ? 'was not found in PATH' : `was found as ${almost}, not executable`,
  };
}
