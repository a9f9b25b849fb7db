/** Asks the mounts that run how they do, and tells of those that do not answer what can be known without them. */

import { dirname } from 'node:path';
import pLimit from 'p-limit';
import { askControl } from '../control/client.js';
import type { Answer } from '../control/client.js';
import { removeDeserted } from '../control/control-socket.js';
import { findControlFiles, isGone, mountHash } from '../control/places.js';
import type { ControlFile } from '../control/places.js';
import { isDead } from '../fuse/dead-mount.js';
import type { MountEntry } from '../fuse/mountpoint.js';
import { publicUri } from '../nbd/public-uri.js';
import { silentStatus } from '../observe/mount-status.js';
import type { MountStatus } from '../observe/mount-status.js';
import { locateMount, ownMounts } from './locate-mount.js';

/** How many are asked at once; each has a descriptor, and those that hang take as long as all the others. */
const AT_ONCE = 32;

interface Asked {
  readonly file: ControlFile;
  readonly answer: Answer;
}

async function askAll(files: readonly ControlFile[]): Promise<Asked[]> {
  const limit = pLimit(AT_ONCE);
  return Promise.all(
    files.map((file) => limit(async () => ({ file, answer: await askControl(file.path) }))),
  );
}

/** Clears away what processes that were killed have left. */
function clear(asked: readonly Asked[]): void {
  for (const { file, answer } of asked) {
    if (answer.kind === 'deserted' && file.isOurs) removeDeserted(file);
  }
}

/** Whether its mount is this user's to hear of, also where nobody answers. */
function isForUs({ options }: MountEntry): boolean {
  const uid = process.geteuid?.() ?? 0;
  return uid === 0 || options.includes(`user_id=${uid}`);
}

/** What is known of a mount whose process says nothing. */
async function silent(mount: MountEntry, asked: readonly Asked[]): Promise<MountStatus> {
  const { mountpoint, source } = mount;
  const hash = mountHash(mountpoint);
  const own = asked.filter(({ file }) => file.hash === hash);
  const hung = own.find(({ answer }) => answer.kind === 'silent');
  const pid = hung?.file.pid ?? null;
  const server = source === '' ? null : publicUri(source);
  if (hung !== undefined) return silentStatus(mountpoint, pid, 'no-answer', server);
  // Another user's mount, into which nobody else is let, does not even tell whether it is dead.
  const wasKilled =
    own.some(({ file }) => isGone(file.pid)) || (await isDead(mountpoint).catch(() => false));
  return silentStatus(mountpoint, pid, wasKilled ? 'stale' : 'no-answer', server);
}

async function statusesOf(
  mounts: readonly MountEntry[],
  files: readonly ControlFile[],
): Promise<MountStatus[]> {
  const asked = await askAll(files);
  const statuses = asked.flatMap(({ answer }) => (answer.kind === 'status' ? [answer.status] : []));
  const answered = new Set(statuses.map(({ mountpoint }) => mountpoint));
  // The same mount may be seen in other places as well (mount --bind).
  const known = new Set(
    mounts.filter(({ mountpoint }) => answered.has(mountpoint)).map(({ device }) => device),
  );
  const others = mounts.filter((mount) => {
    if (known.has(mount.device) || !isForUs(mount)) return false;
    known.add(mount.device);
    return true;
  });
  const limit = pLimit(AT_ONCE);
  const silents = await Promise.all(others.map((mount) => limit(silent, mount, asked)));
  clear(asked);
  return [...statuses, ...silents].sort((a, b) => (a.mountpoint < b.mountpoint ? -1 : 1));
}

/** All mounts that this user may hear of, by mountpoint. */
export function askMounts(): Promise<MountStatus[]> {
  const files = findControlFiles();
  return statusesOf(ownMounts(files), files);
}

/**
 * The mount that a path is about. One that is out of sight answers as long as its process has something to do.
 * @param shown a mountpoint, or a file in one, as the user wrote it
 * @returns undefined where there is none
 */
export async function askMount(shown: string): Promise<MountStatus | undefined> {
  const files = findControlFiles();
  const { path, mount } = await locateMount(shown, ownMounts(files));
  if (mount !== undefined) {
    const hash = mountHash(path);
    const found = await statusesOf(
      [mount],
      files.filter((file) => file.hash === hash),
    );
    // An earlier one that was there may be about to end.
    return found.find(({ state }) => state !== 'ending') ?? found[0];
  }
  const hashes = new Set([mountHash(path), mountHash(dirname(path))]);
  const asked = await askAll(files.filter((file) => hashes.has(file.hash)));
  clear(asked);
  for (const { answer } of asked) {
    if (answer.kind !== 'status') continue;
    const { mountpoint, file } = answer.status;
    if (mountpoint === path || file === path) return answer.status;
  }
  return undefined;
}
