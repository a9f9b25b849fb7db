/**
 * Finds the mount of ours that a path is about, without a look into it: it may be dead, or hang, and whoever looks
 * there waits with it.
 */

import { lstat, readlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { FoundSocket } from '../control/socket-name.js';
import { OWN_TYPE } from '../fuse/mountpoint.js';
import type { MountEntry } from '../fuse/mountpoint.js';

/** The kernel follows no more (path_resolution(7)). */
const MOST_LINKS = 40;

/** Those of ours: by their type, or, where `-o subtype=` has given them another one, by their control socket. */
export function ownMounts(
  mounts: readonly MountEntry[],
  sockets: readonly FoundSocket[],
): MountEntry[] {
  const devices = new Set(sockets.map(({ device }) => device));
  return mounts.filter(
    ({ type, device }) => type === OWN_TYPE || (/^fuse(\.|$)/.test(type) && devices.has(device)),
  );
}

export interface Located {
  /** The mountpoint; where there is no mount, where one would be: absolute, as far as it is there without links. */
  readonly path: string;
  readonly mount: MountEntry | undefined;
  /** What the path has behind the mountpoint; without a mount, behind what could not be looked at. */
  readonly rest: readonly string[];
  /** Why the path was not followed to its end. */
  readonly problem: unknown;
}

const namesIn = (path: string): string[] => path.split('/').filter((name) => name !== '');

/**
 * @param shown a file or directory that is a mountpoint, or a file in one, as the user wrote it
 * @param own the mounts of ours
 * @param all what is mounted, by which those of ours may be covered
 */
export async function locateMount(
  shown: string,
  own: readonly MountEntry[],
  all: readonly MountEntry[],
): Promise<Located> {
  const names = namesIn(resolve(shown));
  let at = '/';
  let links = 0;
  let covered: Located | undefined;
  for (let name = names.shift(); name !== undefined; name = names.shift()) {
    const next = join(at, name);
    // Of several the last is the one that is seen.
    const mount = own.findLast(({ mountpoint }) => mountpoint === next);
    const top = all.findLast(({ mountpoint }) => mountpoint === next);
    if (mount !== undefined) {
      const found = { path: next, mount, rest: [...names], problem: undefined };
      if (top === mount || names.length === 0) return found;
      covered ??= found;
    }
    // No link is mounted on, and what is there may hang.
    const entry = top === undefined ? await look(next) : undefined;
    if (entry !== undefined && 'problem' in entry) {
      const missing = { path: join(next, ...names), mount: undefined, rest: names };
      return covered ?? { ...missing, problem: entry.problem };
    }
    if (entry?.target !== undefined && links++ < MOST_LINKS) {
      names.unshift(...namesIn(resolve(at, entry.target)));
      at = '/';
    } else {
      at = next;
    }
  }
  return covered ?? { path: at, mount: undefined, rest: [], problem: undefined };
}

type Look = { readonly target: string | undefined } | { readonly problem: unknown };

async function look(path: string): Promise<Look> {
  try {
    const entry = await lstat(path);
    return { target: entry.isSymbolicLink() ? await readlink(path) : undefined };
  } catch (problem) {
    return { problem };
  }
}
