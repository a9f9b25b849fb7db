/** Another program in our place, under our process id: execve(2), which Node does not have. */

import { checkResult } from '../errno.js';
import { native } from '../native.js';

/**
 * Before anything of ours has to be cleared away.
 * @param words of the shell, its name among them
 * @param descriptors that it gets beside the standard streams
 * @throws ErrnoError; does not return otherwise
 */
export function becomeShell(
  words: readonly string[],
  descriptors: readonly number[],
  env: NodeJS.ProcessEnv,
): never {
  for (const fd of [0, 1, 2, ...descriptors]) {
    // Node has made them close-on-exec. What is not open is told by whoever needs it.
    native.setCloseOnExec(fd, false);
    // Node may have made them non-blocking, and they may be those of a shell.
    if (fd <= 2) native.setNonblocking(fd, false);
  }
  const environment = Object.entries(env).map(([name, value = '']) => `${name}=${value}`);
  checkResult(native.execve('/bin/sh', [...words], environment), '/bin/sh');
  throw new Error('execve has returned');
}
