/**
 * The mount that a path of the user means: its mountpoint, or a file in it. Paths are resolved without a look into
 * a mount, which may be dead or hang: whatever looks there waits with it.
 */

import { lstat, readFile, readlink, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { errorText } from '../errno.js';
import { OWN_TYPE, mountText, parseMountinfo } from '../fuse/mountpoint.js';
import type { MountEntry } from '../fuse/mountpoint.js';
import { CommandError } from './errors.js';

/** As many as the kernel follows (path_resolution(7)). */
const MOST_LINKS = 40;

export interface FoundMount {
  readonly mount: MountEntry;
  /** The path that was meant: of the mountpoint, or of a file in it. Absolute, and without symbolic links. */
  readonly path: string;
  /** What has to be unmounted first: it is over the mount, or in it. */
  readonly obstacle: MountEntry | undefined;
}

/** Nothing is mounted there. */
export interface NoMount {
  readonly mount: undefined;
  /** As in FoundMount, as far as it exists. */
  readonly path: string;
}

/** @param isOurs whether a mount that is not of our type is ours all the same (`-o subtype=`) */
export type IsOurs = (mount: MountEntry) => boolean;

async function readMounts(): Promise<MountEntry[]> {
  return parseMountinfo(await readFile('/proc/self/mountinfo', 'utf8'));
}

/** Whether a mount is still in its place, or under another one. */
export async function isStillThere({ id, device, mountpoint }: MountEntry): Promise<boolean> {
  const mounts = await readMounts();
  return mounts.some(
    (mount) => mount.id === id && mount.device === device && mount.mountpoint === mountpoint,
  );
}

export const isOfOurType: IsOurs = ({ type }) => type === OWN_TYPE;

/**
 * @param shown as the user wrote it
 * @throws CommandError where it is no mount of ours, and cannot be one
 */
export async function findOwnMount(shown: string, isOurs: IsOurs): Promise<FoundMount | NoMount> {
  const mounts = await readMounts();
  let path = resolve(shown);
  for (let links = 0; links < MOST_LINKS; links++) {
    const found = mountAt(mounts, path, isOurs);
    if (found !== undefined) return found;
    refuseOther(mounts, path, shown);
    const parent = await realParent(mounts, path, shown);
    if (parent === undefined) return { mount: undefined, path };
    const real = join(parent, basename(path));
    const target = real === path ? await linkTarget(path) : real;
    if (target === undefined) return { mount: undefined, path };
    path = target;
  }
  throw new CommandError(`${shown} leads through too many symbolic links`, {
    failure: 'mountpoint',
  });
}

function mountAt(
  mounts: readonly MountEntry[],
  path: string,
  isOurs: IsOurs,
): FoundMount | undefined {
  const isHere = (at: string): MountEntry | undefined =>
    mounts.findLast((mount) => mount.mountpoint === at && isOurs(mount));
  // A file in a directory.
  const mount = isHere(path) ?? isHere(dirname(path));
  if (mount === undefined) return undefined;
  const at = mount.mountpoint;
  const top = mounts.findLast(({ mountpoint }) => mountpoint === at);
  const within = mounts.find(({ mountpoint }) => mountpoint.startsWith(join(at, '/')));
  return { mount, path, obstacle: top === mount ? within : top };
}

/** @throws CommandError where somebody else's mount is in that very place */
function refuseOther(mounts: readonly MountEntry[], path: string, shown: string): void {
  const other = mounts.findLast(({ mountpoint }) => mountpoint === path);
  if (other === undefined) return;
  throw new CommandError(
    `${shown} is a mount of another kind (${mountText(other)}), and not ours to end`,
    {
      failure: 'mountpoint',
    },
  );
}

/** @returns undefined where there is none; what lies in a mount of ours, deeper than its files, is none either */
async function realParent(
  mounts: readonly MountEntry[],
  path: string,
  shown: string,
): Promise<string | undefined> {
  const parent = dirname(path);
  const around = mounts.some(
    (mount) => isOfOurType(mount) && join(parent, '/').startsWith(join(mount.mountpoint, '/')),
  );
  if (around) return undefined;
  try {
    return await realpath(parent);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new CommandError(`the directory of ${shown} does not exist: ${parent}`, {
        cause: error,
        failure: 'mountpoint',
      });
    }
    throw cannotLook(shown, error);
  }
}

/** @returns undefined for what is no symbolic link, or is not there */
async function linkTarget(path: string): Promise<string | undefined> {
  const entry = await lstat(path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw cannotLook(path, error);
  });
  return entry?.isSymbolicLink() === true
    ? resolve(dirname(path), await readlink(path))
    : undefined;
}

const cannotLook = (shown: string, error: unknown): CommandError =>
  new CommandError(`cannot look at ${shown}: ${errorText(error)}`, {
    cause: error,
    failure: 'mountpoint',
  });
