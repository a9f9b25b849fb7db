/**
 * Where the control sockets of mounts are: in a directory that nobody but its owner and root can enter (0700), for
 * which reason whoever connects needs no further check. One socket for each mount, named so that it is found by
 * the mountpoint and that it is known whose it was.
 */

import { lstatSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { errorText } from '../errno.js';

const NAME = 'tsnbdfuse';

/** A socket's path holds 108 bytes, the last of which is 0 (unix(7)). */
export const MAX_SOCKET_PATH = 107;

export interface Surroundings {
  readonly uid: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where /run and /tmp are; `/`, but for tests. */
  readonly root: string;
}

export const ourSurroundings = (): Surroundings => ({
  uid: process.geteuid?.() ?? 0,
  env: process.env,
  root: '/',
});

/**
 * Where the directory of a user may be, the best one first. Root has one wherever it is called from, also in a
 * session that takes its own with it when it ends.
 */
export function placesOf({ uid, env, root }: Surroundings): string[] {
  const run = join(root, 'run');
  const session = env['XDG_RUNTIME_DIR'] ?? '';
  return [
    ...(uid === 0 ? [join(run, NAME)] : []),
    ...(session.startsWith('/') ? [join(session, NAME)] : []),
    join(run, 'user', String(uid), NAME),
    join(root, 'tmp', `${NAME}-${uid}`),
  ].filter((place, i, all) => all.indexOf(place) === i);
}

/** Where those of all users may be, as far as that can be known. For root. */
export function placesOfAll(surroundings: Surroundings): string[] {
  const { root } = surroundings;
  const users = join(root, 'run', 'user');
  const temporary = join(root, 'tmp');
  return [
    ...new Set([
      ...placesOf(surroundings),
      ...list(users).map((user) => join(users, user, NAME)),
      ...list(temporary)
        .filter((name) => /^tsnbdfuse-\d+$/.test(name))
        .map((name) => join(temporary, name)),
    ]),
  ];
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** Why a directory cannot be trusted with a socket, or undefined. @throws where it cannot be looked at */
function problemOf(path: string, uid: number): string | undefined {
  const entry = lstatSync(path);
  if (!entry.isDirectory()) return 'it is not a directory';
  if (entry.uid !== uid) return `it belongs to user ${entry.uid}`;
  return (entry.mode & 0o077) === 0 ? undefined : 'others can enter it';
}

/** Makes a directory of ours, or finds that it is there. @throws Error */
export function makePlace(path: string, uid: number): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const problem = problemOf(path, uid);
  if (problem !== undefined) throw new Error(problem);
}

/** A file that may be the control socket of a mount. */
export interface ControlFile {
  readonly path: string;
  /** Of the mountpoint: see `mountHash`. */
  readonly hash: string;
  readonly pid: number;
  /** It is this user's to remove. */
  readonly isOurs: boolean;
}

/** The sockets in one place; none where it cannot be trusted. */
export function controlFiles(place: string, uid: number): ControlFile[] {
  try {
    const { uid: owner } = lstatSync(place);
    if (problemOf(place, owner) !== undefined) return [];
    return list(place).flatMap((name) => {
      const [, hash, pid] = /^([0-9a-f]{16})-(\d{1,10})\.sock$/.exec(name) ?? [];
      if (hash === undefined || pid === undefined) return [];
      return [{ path: join(place, name), hash, pid: Number(pid), isOurs: owner === uid }];
    });
  } catch {
    // Not there, or not for us.
    return [];
  }
}

/** All that this user may see. */
export function findControlFiles(surroundings = ourSurroundings()): ControlFile[] {
  const { uid } = surroundings;
  const places = uid === 0 ? placesOfAll(surroundings) : placesOf(surroundings);
  return places.flatMap((place) => controlFiles(place, uid));
}

const FNV_PRIME = 0x01000193;
const FNV_BASIS = 0x811c9dc5;

/** FNV-1a. */
function fnv(bytes: Uint8Array, basis: number): number {
  let hash = basis;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, FNV_PRIME);
  return hash >>> 0;
}

/**
 * Stands for a mountpoint in the name of a socket. To be found by, not to be believed: an answer says which
 * mountpoint it is about. (Node takes milliseconds to load a better hash, which the start of a mount has not.)
 */
export function mountHash(mountpoint: string): string {
  const bytes = Buffer.from(mountpoint);
  return [fnv(bytes, FNV_BASIS), fnv(bytes, ~FNV_BASIS)]
    .map((half) => half.toString(16).padStart(8, '0'))
    .join('');
}

export const socketName = (mountpoint: string, pid: number): string =>
  `${mountHash(mountpoint)}-${pid}.sock`;

/** Whether there is no such process, as far as we can see. */
export function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

/** For a message: the places that were tried, and why they are of no use. */
export const triedText = (tried: readonly (readonly [string, unknown])[]): string =>
  tried.map(([place, error]) => `${place}: ${errorText(error)}`).join('; ');
