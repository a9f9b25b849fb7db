/** Asks the mounts that run how they do, and tells of those that do not answer what can be known without them. */

import pLimit from 'p-limit';
import { askStatus } from '../control/ask-status.js';
import type { Answer } from '../control/ask-status.js';
import { listSockets } from '../control/socket-name.js';
import type { FoundSocket } from '../control/socket-name.js';
import { isDead } from '../fuse/dead-mount.js';
import { ownerOf, readMounts, userText } from '../fuse/mountpoint.js';
import type { MountEntry } from '../fuse/mountpoint.js';
import { publicUri } from '../nbd/public-uri.js';
import { silentStatus } from '../observe/mount-status.js';
import type { MountStatus } from '../observe/mount-status.js';
import { CommandError } from './errors.js';
import { locateMount, ownMounts } from './locate-mount.js';

/** How many are asked at once; each has a descriptor, and those that hang take as long as all the others. */
const AT_ONCE = 32;

const ourUser = (): number => process.geteuid?.() ?? 0;

/** Whether a mount is this user's to hear of, also where nobody answers. */
function isForUs(mount: MountEntry): boolean {
  return ourUser() === 0 || ownerOf(mount).uid === ourUser();
}

/** @param owner of the processes */
async function askAll(sockets: readonly FoundSocket[], owner: number): Promise<Answer[]> {
  const limit = pLimit(AT_ONCE);
  return Promise.all(sockets.map(({ name }) => limit(askStatus, name, owner)));
}

const statusesIn = (answers: readonly Answer[]): MountStatus[] =>
  answers.flatMap((answer) => (answer.kind === 'status' ? [answer.status] : []));

/** What is known of a mount whose process says nothing. */
async function silent(mount: MountEntry, answers: readonly Answer[]): Promise<MountStatus> {
  const { mountpoint, source } = mount;
  const server = source === '' ? null : publicUri(source);
  const hung = answers.find((answer) => answer.kind === 'silent');
  if (hung !== undefined) return silentStatus(mountpoint, hung.pid, 'no-answer', server);
  const wasKilled = await isDead(mount).catch(() => false);
  return silentStatus(mountpoint, null, wasKilled ? 'stale' : 'no-answer', server);
}

/** Which mount it is, the kernel tells: another user could name any place, and have root take it for mounted. */
function toldBy(mount: MountEntry, status: MountStatus): MountStatus {
  const { mountpoint } = mount;
  if (ownerOf(mount).uid === ourUser() || status.mountpoint === mountpoint) return status;
  return { ...status, mountpoint, file: null };
}

/** Of several where the process of an earlier mount with the number of this one is about to end. */
async function statusesOf(
  mount: MountEntry,
  sockets: readonly FoundSocket[],
): Promise<MountStatus[]> {
  const own = sockets.filter(({ device }) => device === mount.device);
  const answers = await askAll(own, ownerOf(mount).uid);
  const statuses = statusesIn(answers).map((status) => toldBy(mount, status));
  return statuses.length > 0 ? statuses : [await silent(mount, answers)];
}

/**
 * Of mounts that are out of sight, detached or in another place than ours (mount_namespaces(7)), as long as their
 * process has something to do. Ours alone: of what others tell, nothing could be seen to be true.
 * @param inSight all of ours that are
 */
async function hiddenStatuses(
  inSight: readonly MountEntry[],
  sockets: readonly FoundSocket[],
): Promise<MountStatus[]> {
  const devices = new Set(inSight.map(({ device }) => device));
  const hidden = sockets.filter(({ device }) => !devices.has(device));
  return statusesIn(await askAll(hidden, ourUser()));
}

/** All mounts that this user may hear of, by mountpoint. */
export async function askMounts(): Promise<MountStatus[]> {
  const sockets = await listSockets();
  const mounts = ownMounts(await readMounts(), sockets);
  // The same mount may be seen in other places as well (mount --bind).
  const single = mounts.filter(
    (mount, i) => mounts.findIndex(({ device }) => device === mount.device) === i,
  );
  const limit = pLimit(AT_ONCE);
  const statuses = await Promise.all([
    hiddenStatuses(mounts, sockets),
    ...single.filter(isForUs).map((mount) => limit(statusesOf, mount, sockets)),
  ]);
  return statuses.flat().sort((a, b) => (a.mountpoint < b.mountpoint ? -1 : 1));
}

/**
 * The mount that a path is about. One that is out of sight answers as long as its process has something to do.
 * @param shown a mountpoint, or a file in one, as the user wrote it
 * @returns undefined where there is none
 * @throws CommandError for somebody else's
 */
export async function askMount(shown: string): Promise<MountStatus | undefined> {
  const sockets = await listSockets();
  const all = await readMounts();
  const own = ownMounts(all, sockets);
  const { path, mount } = await locateMount(shown, own, all);
  if (mount !== undefined) {
    if (!isForUs(mount)) {
      throw new CommandError(
        `${shown} is the mount of ${userText(ownerOf(mount).uid)}, who alone can ask for its status, or root`,
      );
    }
    const found = await statusesOf(mount, sockets);
    return found.find(({ state }) => state !== 'ending') ?? found[0];
  }
  const hidden = await hiddenStatuses(own, sockets);
  return hidden.find(({ mountpoint, file }) => mountpoint === path || file === path);
}
