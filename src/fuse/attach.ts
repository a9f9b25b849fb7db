/** Making and ending a mount: by system calls as root, by the set-user-id fusermount3 as anybody else. */

import { execa } from 'execa';
import { checkResult, errno, errnoText } from '../errno.js';
import { native } from '../native.js';
import { Survivor } from '../survivor.js';
import { traceMain } from '../trace.js';
import { findHelper } from './available.js';
import { MountError } from './errors.js';
import { MS_RDONLY, flagBits } from './mount-options.js';
import type { FuseOptions } from './mount-options.js';
import { shellWord } from './mountpoint.js';

/** Shown in /proc/mounts as the type `fuse.tsnbdfuse`, by which we know our own mounts. */
const SUBTYPE = 'tsnbdfuse';

/** umount2(2). */
const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

/** Milliseconds for fusermount3 to do its work. */
const HELPER_DEADLINE = 30_000;

/**
 * Where it works: not where we were started, which may be the very directory that is mounted on. A
 * child is on its way there before it is another program, and for as long we wait for it: it would be
 * for ever, as the way leads into the mount, and who has to answer there is us.
 */
const HELPER_DIRECTORY = '/';

export interface AttachOptions {
  readonly readOnly: boolean;
  /** What is mounted on and shown is a directory, and not a file. */
  readonly isDirectory: boolean;
  /** Shown in /proc/mounts, unless the options of FUSE have a name of their own. */
  readonly source: string;
  readonly fuse: FuseOptions;
}

export interface Attachment {
  /** Of /dev/fuse, close-on-exec and non-blocking; owned by whoever gets it. */
  readonly fd: number;
  /** Comes after the mount is gone: who waits for that to unmount it is told. Never rejects. */
  release(): Promise<void>;
}

const isRoot = (): boolean => process.geteuid?.() === 0;

/**
 * Mounts a FUSE file system whose root is a regular file or a directory.
 * @param path absolute
 * @throws MountError
 */
export async function attach(path: string, options: AttachOptions): Promise<Attachment> {
  // fusermount3 has such a process as well, but that of libfuse before 3.16 looks at the mount as root, who
  // is not let in without allow_other, and does nothing.
  const unmounter = options.fuse.autoUnmount ? Survivor.start({ mountpoint: path }) : undefined;
  const release = (): Promise<void> => unmounter?.release() ?? Promise.resolve();
  try {
    const bySystemCall = isRoot() ? attachBySystemCall(path, options) : undefined;
    return { fd: bySystemCall ?? (await attachByHelper(path, options)), release };
  } catch (error) {
    await release();
    throw error;
  }
}

/** The options that go to the kernel as words, by either way. */
function kernelOptions({ fuse }: AttachOptions): string[] {
  return [
    ...(fuse.allowOther || fuse.allowRoot ? ['allow_other'] : []),
    ...(fuse.defaultPermissions ? ['default_permissions'] : []),
    ...(fuse.maxRead === undefined ? [] : [`max_read=${fuse.maxRead}`]),
  ];
}

/** @returns undefined if this root may not mount, as in a container, where the helper may still do */
function attachBySystemCall(path: string, options: AttachOptions): number | undefined {
  const fd = native.openFuse();
  if (fd < 0) throw new MountError(deviceProblem(-fd));
  const { fuse } = options;
  const flags = flagBits(fuse.flags) | (options.readOnly ? MS_RDONLY : 0);
  const data = [
    `fd=${fd}`,
    `rootmode=${options.isDirectory ? '40000' : '100000'}`,
    `user_id=${process.getuid?.() ?? 0}`,
    `group_id=${process.getgid?.() ?? 0}`,
    ...kernelOptions(options),
  ].join(',');
  const source = fuse.fsname ?? options.source;
  let result = native.mount(source, path, `fuse.${fuse.subtype ?? SUBTYPE}`, flags, data);
  // Without subtypes in the kernel.
  if (result === -errno.ENODEV) result = native.mount(source, path, 'fuse', flags, data);
  if (result >= 0) return fd;
  native.close(fd);
  if (result === -errno.EPERM) {
    traceMain('mount(2) is not permitted; trying fusermount3');
    return undefined;
  }
  throw new MountError(`cannot mount on ${path}: ${errnoText(-result)}`);
}

function deviceProblem(code: number): string {
  const permitted = code !== errno.EACCES && code !== errno.EPERM;
  const advice = permitted ? '' : '; in a container, give it the device: --device /dev/fuse';
  return `cannot open /dev/fuse: ${errnoText(code)}${advice}`;
}

/** The argument of -o: a comma ends an option, and a backslash guards it. */
function helperOptions(options: AttachOptions): string {
  const { fuse, readOnly, source } = options;
  return [
    `fsname=${fuse.fsname ?? source}`,
    `subtype=${fuse.subtype ?? SUBTYPE}`,
    ...kernelOptions(options),
    ...fuse.flags,
    ...(readOnly ? ['ro'] : []),
  ]
    .map((option) => option.replace(/[\\,]/g, String.raw`\$&`))
    .join(',');
}

/** fusermount3 passes the descriptor over a socket that it finds by the variable _FUSE_COMMFD. */
async function attachByHelper(path: string, options: AttachOptions): Promise<number> {
  const helper = await findHelper();
  const pair = new Int32Array(2);
  checkResult(native.socketpair(pair), 'socketpair');
  const [ours, theirs] = [pair[0] ?? -1, pair[1] ?? -1];
  let theirsOpen = true;
  try {
    const child = execa(helper, ['-o', helperOptions(options), '--', path], {
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
 * Ends a mount. Off the event loop, which goes on to answer what the kernel still writes.
 * @param path absolute
 * @param lazy detaches it at once, also while it is in use
 * @returns 0 or a negated errno: -EBUSY while a file is open
 */
export async function detach(path: string, lazy: boolean): Promise<number> {
  if (isRoot()) {
    const result = await native.umount(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0));
    if (result !== -errno.EPERM) return result;
  }
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
