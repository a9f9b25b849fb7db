/** What a command is started in, looked at before anything else: without it, all that follows fails oddly. */

import { readFileSync } from 'node:fs';
import { CommandError } from './errors.js';

/** Loading our own files takes some thirty at once, of which Node says that they are not there. */
const FEWEST_DESCRIPTORS = 64;

/** @throws CommandError @param limits of this process, for tests */
export function checkSurroundings(limits = '/proc/self/limits'): void {
  try {
    // Names are taken from there, and the server is started there.
    process.cwd();
  } catch (error) {
    throw new CommandError('the current directory does not exist any more; change to another one', {
      cause: error,
    });
  }
  const most = openFilesAllowed(limits);
  if (most < FEWEST_DESCRIPTORS) {
    throw new CommandError(
      `too many open files: only ${most} are allowed; allow more with: ulimit -n 1024`,
    );
  }
}

/** How many descriptors this process may have. @throws CommandError */
export function openFilesAllowed(limits = '/proc/self/limits'): number {
  const most = /^Max open files +(\d+)/m.exec(readLimits(limits))?.[1];
  return most === undefined ? Number.POSITIVE_INFINITY : Number(most);
}

/** There is more that is looked at in there: which mounts there are, and who holds a file. */
function readLimits(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new CommandError('there is no /proc here; mount it with: mount -t proc proc /proc', {
      cause: error,
    });
  }
}
