/** The mount that is to be ended, and what is in the way of that. */

import { dirname, join } from 'node:path';
import { errorText } from '../errno.js';
import type { FoundSocket } from '../control/socket-name.js';
import { mountText, readMounts } from '../fuse/mountpoint.js';
import type { MountEntry } from '../fuse/mountpoint.js';
import { CommandError } from './errors.js';
import { locateMount, ownMounts } from './locate-mount.js';

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

/** Whether a mount is still in its place, or under another one. */
export async function isStillThere({ id, device, mountpoint }: MountEntry): Promise<boolean> {
  const mounts = await readMounts();
  return mounts.some(
    (mount) => mount.id === id && mount.device === device && mount.mountpoint === mountpoint,
  );
}

/**
 * @param shown as the user wrote it
 * @throws CommandError where it is no mount of ours, and cannot be one
 */
export async function findOwnMount(
  shown: string,
  sockets: readonly FoundSocket[],
): Promise<FoundMount | NoMount> {
  const mounts = await readMounts();
  const { path, mount, rest, problem } = await locateMount(
    shown,
    ownMounts(mounts, sockets),
    mounts,
  );
  if (mount !== undefined) {
    const meant = join(path, ...rest);
    // There are files in a mount of ours, and no directories.
    return rest.length > 1
      ? { mount: undefined, path: meant }
      : { mount, path: meant, obstacle: obstacleOf(mount, mounts) };
  }
  refuseOther(mounts, path, shown);
  if (problem !== undefined) checkProblem(problem, rest, path, shown);
  return { mount: undefined, path };
}

function obstacleOf(mount: MountEntry, mounts: readonly MountEntry[]): MountEntry | undefined {
  const at = mount.mountpoint;
  const top = mounts.findLast(({ mountpoint }) => mountpoint === at);
  const within = mounts.find(({ mountpoint }) => mountpoint.startsWith(join(at, '/')));
  return top === mount ? within : top;
}

/** @throws CommandError where somebody else's mount is in that very place */
function refuseOther(mounts: readonly MountEntry[], path: string, shown: string): void {
  const other = mounts.findLast(({ mountpoint }) => mountpoint === path);
  if (other === undefined) return;
  throw new CommandError(
    `${shown} is a mount of another kind (${mountText(other)}), and not ours to end`,
    { failure: 'mountpoint' },
  );
}

/** That the last name is not there is none: it may have been in a mount that is gone. @throws CommandError */
function checkProblem(
  problem: unknown,
  rest: readonly string[],
  path: string,
  shown: string,
): void {
  const isMissing = (problem as NodeJS.ErrnoException).code === 'ENOENT';
  if (isMissing && rest.length === 0) return;
  throw new CommandError(
    isMissing
      ? `the directory of ${shown} does not exist: ${dirname(path)}`
      : `cannot look at ${shown}: ${errorText(problem)}`,
    { cause: problem, failure: 'mountpoint' },
  );
}
