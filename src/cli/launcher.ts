/**
 * From a command that is asked for a daemon to the launcher that starts one. Node cannot fork, and a daemon has to be
 * another process than the one that its caller waits for: the shell in bin/ is that one. It has seen to it already
 * where `--daemon` is the first word, so that this costs a start of Node only where it is not.
 */

import { realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PACKAGE_ROOT } from '../package-root.js';
import { becomeShell } from './become.js';

const BIN = join(PACKAGE_ROOT, 'bin');

/** By the name that we were called by, which may be a link and means something. */
function launcher(calledAs: string | undefined): string {
  try {
    if (calledAs !== undefined && dirname(realpathSync(calledAs)) === realpathSync(BIN)) {
      return calledAs;
    }
  } catch {
    // It was called by a name that leads nowhere any more.
  }
  return join(BIN, 'tsnbdfuse');
}

/** The launcher that starts a daemon, whatever its words are; see mount-helper.ts. */
const HELPER = 'mount.fuse.tsnbdfuse';

/**
 * Becomes the launcher, which starts anew with the same words.
 * @param args without those of the interpreter
 * @param forMount they are those of mount(8)
 * @param descriptors that are for the daemon
 * @throws ErrnoError; does not return otherwise
 */
export function becomeLauncher(
  args: readonly string[],
  forMount: boolean,
  descriptors: readonly number[],
): never {
  const begin = forMount ? [join(BIN, HELPER)] : [launcher(process.argv[1]), '--daemon'];
  becomeShell(['sh', ...begin, ...args], descriptors, process.env);
}
