/** What a command is started in, looked at before anything else: without it, all that follows fails oddly. */

import { readFileSync } from 'node:fs';
import { CommandError } from './errors.js';

/** Loading our own files takes some thirty at once, of which Node says that they are not there. */
const FEWEST_DESCRIPTORS = 64;

/** @throws CommandError */
export function checkSurroundings(): void {
  try {
    // Names are taken from there, and the server is started there.
    process.cwd();
  } catch (error) {
    throw new CommandError('the current directory does not exist any more; change to another one', {
      cause: error,
    });
  }
  const most = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  if (most !== undefined && Number(most) < FEWEST_DESCRIPTORS) {
    throw new CommandError(
      `too many open files: only ${most} are allowed; allow more with: ulimit -n 1024`,
    );
  }
}
