/** Finds the mount of ours that a path is about, without touching it: who looks at a mount that hangs does so, too. */

import { readFileSync } from 'node:fs';
import { lstat, readlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { ControlFile } from '../control/places.js';
import { mountHash } from '../control/places.js';
import { OWN_TYPE, parseMountinfo } from '../fuse/mountpoint.js';
import type { MountEntry } from '../fuse/mountpoint.js';

/** The kernel follows no more (path_resolution(7)). */
const MOST_LINKS = 40;

/**
 * The mounts of ours that this process sees: by their type, or, where `-o subtype=` has given them another one, by
 * their control socket.
 */
export function ownMounts(files: readonly ControlFile[]): MountEntry[] {
  const hashes = new Set(files.map(({ hash }) => hash));
  return parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8')).filter(
    ({ type, mountpoint }) =>
      type === OWN_TYPE || (/^fuse(\.|$)/.test(type) && hashes.has(mountHash(mountpoint))),
  );
}

export interface Located {
  /** The mountpoint; where there is no mount, where one would be: absolute, as far as it is there without links. */
  readonly path: string;
  readonly mount: MountEntry | undefined;
}

const namesIn = (path: string): string[] => path.split('/').filter((name) => name !== '');

/**
 * @param shown a file or directory that is a mountpoint, or a file in one, as the user wrote it
 * @param mounts those of ours
 */
export async function locateMount(shown: string, mounts: readonly MountEntry[]): Promise<Located> {
  const names = namesIn(resolve(shown));
  let at = '/';
  let links = 0;
  for (let name = names.shift(); name !== undefined; name = names.shift()) {
    const next = join(at, name);
    // Of several the last is the one that is seen.
    const mount = mounts.findLast(({ mountpoint }) => mountpoint === next);
    if (mount !== undefined) return { path: next, mount };
    const entry = await lstat(next).catch(() => undefined);
    if (entry === undefined) return { path: join(next, ...names), mount: undefined };
    if (entry.isSymbolicLink() && links++ < MOST_LINKS) {
      names.unshift(...namesIn(resolve(at, await readlink(next))));
      at = '/';
    } else {
      at = next;
    }
  }
  return { path: at, mount: undefined };
}
