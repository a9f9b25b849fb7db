/** Making and ending a mount: by system calls as root, by the set-user-id fusermount3 as anybody else. */

import { errno, errnoText } from '../errno.js';
import { native } from '../native.js';
import { Survivor } from '../survivor.js';
import { traceMain } from '../trace.js';
import { MountError } from './errors.js';
import { MS_RDONLY, flagBits } from './mount-options.js';
import type { FuseOptions } from './mount-options.js';

/** Shown in /proc/mounts as the type `fuse.tsnbdfuse`, by which we know our own mounts. */
const SUBTYPE = 'tsnbdfuse';

/** umount2(2). */
const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

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

async function attachByHelper(path: string, options: AttachOptions): Promise<number> {
  // Loaded by those who need it.
  const { mountByHelper } = await import('./fusermount.js');
  return mountByHelper(path, helperOptions(options));
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
  const { unmountByHelper } = await import('./fusermount.js');
  return unmountByHelper(path, lazy);
}
