/**
 * Mounts that a tsnbdfuse which was killed has left behind. Whatever is done in one fails (ENOTCONN), and to
 * the kernel it is as much a mount as any other: who takes it away must be sure that it is ours, and dead.
 */

import { traceMain } from '../trace.js';
import { detach } from './attach.js';
import { lookAside } from './look-aside.js';
import { OWN_TYPE, findMount, ownerOf } from './mountpoint.js';
import type { ClearDead, MountEntry, User } from './mountpoint.js';

/** One of the same user, or of root for root: what belongs to others is theirs to take away. */
function isOurs(mount: MountEntry): boolean {
  return mount.type === OWN_TYPE && ownerOf(mount).uid === (process.getuid?.() ?? 0);
}

/** @param stderr of stat(1), which ends with the error; the path that stands before it may say anything */
export function tellsOfDeath(stderr: string): boolean {
  return stderr.trimEnd().endsWith('not connected');
}

/** Who is sure to be let into a mount; undefined where we are that ourselves, or cannot be. */
function visitorOf(mount: MountEntry): User | undefined {
  const owner = ownerOf(mount);
  return process.geteuid?.() === 0 && owner.uid !== 0 ? owner : undefined;
}

/**
 * statfs(2) changes nothing in a mount that lives, and is never answered from what the kernel remembers, but for
 * those who are not let in.
 */
export async function isDead(mount: MountEntry): Promise<boolean> {
  const said = await lookAside(['-f', '--', mount.mountpoint], visitorOf(mount));
  return said !== undefined && tellsOfDeath(said);
}

/**
 * Takes a mount away that is ours and that nobody serves.
 * @param tell told in one line that it was there
 */
export function deadMountsCleared(tell: (line: string) => void): ClearDead {
  return async (mount, shown) => {
    const { id, mountpoint } = mount;
    if (!isOurs(mount) || !(await isDead(mount))) return false;
    // Somebody may have been faster, and have mounted there by now.
    if (findMount(mountpoint)?.id !== id) return true;
    const result = await detach(mountpoint, true);
    traceMain('detaching the dead mount on %s: %d', mountpoint, result);
    if (result < 0) return false;
    tell(`${shown} was still the mount of a tsnbdfuse that was killed; it was taken away`);
    return true;
  };
}
