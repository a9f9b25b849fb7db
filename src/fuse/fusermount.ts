/** Mounting and unmounting by the set-user-id fusermount3: a file of its own, as loading execa takes time. */

import { execa } from 'execa';
import { checkResult, errno } from '../errno.js';
import { native } from '../native.js';
import { traceMain } from '../trace.js';
import { findHelper } from './available.js';
import { MountError } from './errors.js';
import { shellWord } from './mountpoint.js';

/** Milliseconds for fusermount3 to do its work. */
const HELPER_DEADLINE = 30_000;

/**
 * Where it works: not where we were started, which may be the very directory that is mounted on. A
 * child is on its way there before it is another program, and for as long we wait for it: it would be
 * for ever, as the way leads into the mount, and who has to answer there is us.
 */
const HELPER_DIRECTORY = '/';

/**
 * fusermount3 passes the descriptor over a socket that it finds by the variable _FUSE_COMMFD.
 * @param path absolute
 * @param options of its -o
 * @returns the descriptor of /dev/fuse, close-on-exec and non-blocking
 * @throws MountError
 */
export async function mountByHelper(path: string, options: string): Promise<number> {
  const helper = await findHelper();
  const pair = new Int32Array(2);
  checkResult(native.socketpair(pair), 'socketpair');
  const [ours, theirs] = [pair[0] ?? -1, pair[1] ?? -1];
  let theirsOpen = true;
  try {
    const child = execa(helper, ['-o', options, '--', path], {
      // execa's types know of descriptors to 9 only; any number does.
      stdio: ['ignore', 'ignore', 'pipe', theirs as 9],
      env: { _FUSE_COMMFD: '3' },
      cwd: HELPER_DIRECTORY,
      timeout: HELPER_DEADLINE,
      reject: false,
    });
    // Ours would keep the socket open after the helper has gone.
    native.close(theirs);
    theirsOpen = false;
    const fd = await native.receiveDescriptor(ours);
    const result = await child;
    if (fd < 0) throw new MountError(helperProblem(path, result.stderr));
    native.setNonblocking(fd, true);
    return fd;
  } finally {
    if (theirsOpen) native.close(theirs);
    native.close(ours);
  }
}

/** What fusermount3 says, as what to do about it. */
function helperProblem(path: string, stderr: string): string {
  const said = (stderr.trim().split('\n').at(-1) ?? '').replace(/^fusermount3: /, '');
  if (said.includes('user_allow_other')) {
    return "-o allow_other and allow_root are root's to permit: ask for the line user_allow_other in /etc/fuse.conf";
  }
  if (/permission denied/i.test(said) && /fuse device|\/dev\/fuse/.test(said)) {
    return 'cannot open /dev/fuse: permission denied; it must be readable and writable by everybody (mode 0666)';
  }
  if (/permission denied/i.test(said)) {
    // That the file can be written was looked at before.
    return `fusermount3 may not mount on the file ${path} (${said}): an AppArmor profile may allow it directories only; show the disk in a directory of yours instead: tsnbdfuse DIRECTORY/disk.raw ...`;
  }
  return `cannot mount on ${path}: ${said === '' ? 'fusermount3 failed' : said}`;
}

/**
 * @param path absolute
 * @param lazy detaches it at once, also while it is in use
 * @returns 0 or a negated errno: -EBUSY while a file is open
 */
export async function unmountByHelper(path: string, lazy: boolean): Promise<number> {
  const helper = await findHelper().catch(() => undefined);
  if (helper === undefined) return -errno.ENOENT;
  const result = await execa(helper, [lazy ? '-uz' : '-u', '--', path], {
    stdin: 'ignore',
    cwd: HELPER_DIRECTORY,
    timeout: HELPER_DEADLINE,
    reject: false,
  });
  if (result.exitCode === 0) return 0;
  if (result.timedOut) return -errno.ETIMEDOUT;
  traceMain('%s -u %s: %s', helper, shellWord(path), result.stderr);
  if (/busy/i.test(result.stderr)) return -errno.EBUSY;
  // It looks for the mount in the table, as whoever was faster leaves none.
  return /not found|not mounted|invalid argument/i.test(result.stderr)
    ? -errno.EINVAL
    : -errno.EPERM;
}
