/** A look at what may be dead or hang, by a process of its own, which can be left behind. */

import { TOO_LATE, within } from '../deadline.js';
import type { User } from './mountpoint.js';

/** Milliseconds. What is dead answers at once, and what hangs is not waited for. */
const LOOK_DEADLINE = 2_000;

/**
 * @param words of stat(1)
 * @param user who looks, where it is root that asks
 * @returns what it says on its standard error, which ends with the error where there is one; undefined where
 *   there is no answer
 */
export async function lookAside(
  words: readonly string[],
  user?: User,
): Promise<string | undefined> {
  // It takes long to load, and is seldom needed.
  const { execa } = await import('execa');
  const look = execa('stat', words, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { LC_ALL: 'C' },
    cwd: '/',
    reject: false,
    ...user,
  });
  const result = await within(look, LOOK_DEADLINE);
  if (result !== TOO_LATE) return result.stderr;
  look.kill('SIGKILL');
  look.stderr.destroy();
  look.unref();
  return undefined;
}
