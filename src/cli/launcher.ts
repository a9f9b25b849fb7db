/**
 * From a command that is asked for a daemon to the launcher that starts one. Node cannot fork, and a daemon has to be
 * another process than the one that its caller waits for: the shell in bin/ is that one. It has seen to it already
 * where `--daemon` is the first word, so that this costs a start of Node only where it is not.
 */

import { realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { checkResult } from '../errno.js';
import { native } from '../native.js';
import { PACKAGE_ROOT } from '../package-root.js';

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
  for (const fd of [0, 1, 2, ...descriptors]) {
    // Node has made them close-on-exec. What is not open is told by whoever needs it.
    native.setCloseOnExec(fd, false);
    // Node may have made them non-blocking, and they may be those of a shell.
    if (fd <= 2) native.setNonblocking(fd, false);
  }
  const environment = Object.entries(process.env).map(([name, value = '']) => `${name}=${value}`);
  const begin = forMount ? [join(BIN, HELPER)] : [launcher(process.argv[1]), '--daemon'];
  const words = ['sh', ...begin, ...args];
  checkResult(native.execve('/bin/sh', words, environment), '/bin/sh');
  throw new Error('execve has returned');
}
