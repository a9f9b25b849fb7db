/** Looks at a mountpoint before anything is started for it, and tells in one line what is wrong. */

import { constants, existsSync, readFileSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { access, lstat, opendir, readFile, realpath, statfs } from 'node:fs/promises';
import { basename, delimiter, dirname, join, resolve } from 'node:path';
import { errorText } from '../errno.js';
import { MountError } from './errors.js';

/** A line of /proc/self/mountinfo (proc(5)), as far as it matters here. */
export interface MountEntry {
  /** Of this mount, which tells two of the same file system apart; used again once it is gone. */
  readonly id: number;
  /** `major:minor`, under which sysfs has its settings. */
  readonly device: string;
  /** Absolute. */
  readonly mountpoint: string;
  /** With its subtype: `fuse.tsnbdfuse`. */
  readonly type: string;
  readonly source: string;
  /** Of the file system itself, as `user_id=1000`. */
  readonly options: readonly string[];
}

/** Space, tab, newline, backslash and # are written as a backslash and three octal digits. */
function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    // A varying number of optional fields stands before the separator.
    const separator = fields.indexOf('-', 6);
    const [mountpoint, type, source] = [fields[4], fields[separator + 1], fields[separator + 2]];
    if (separator < 0 || mountpoint === undefined || type === undefined) continue;
    const device = fields[2] ?? '';
    entries.push({
      id: Number(fields[0]),
      device,
      mountpoint: unescape(mountpoint),
      type,
      source: unescape(source ?? ''),
      options: (fields[separator + 3] ?? '').split(','),
    });
  }
  return entries;
}

const MOUNTINFO = '/proc/self/mountinfo';

const mountsOn = (path: string, mountinfo: string): MountEntry[] =>
  parseMountinfo(mountinfo).filter((entry) => entry.mountpoint === path);

/** The mounts on a path, the one that is seen last. At once, for as long as no request can wait for us. */
export function findMounts(path: string): MountEntry[] {
  return mountsOn(path, readFileSync(MOUNTINFO, 'utf8'));
}

/** As `findMounts`, off the event loop. */
export async function findMountsAside(path: string): Promise<MountEntry[]> {
  return mountsOn(path, await readFile(MOUNTINFO, 'utf8'));
}

export interface User {
  readonly uid: number;
  readonly gid: number;
}

/** Whose FUSE mount it is (mount.fuse(8), `user_id`): root's where nothing is said. */
export function ownerOf({ options }: MountEntry): User {
  const idOf = (name: string): number =>
    Number(options.find((option) => option.startsWith(name))?.slice(name.length) ?? 0);
  return { uid: idOf('user_id='), gid: idOf('group_id=') };
}

/** For a message. */
export const userText = (uid: number): string => (uid === 0 ? 'root' : `user ${uid}`);

/** All that this process sees. */
export async function readMounts(): Promise<MountEntry[]> {
  return parseMountinfo(await readFile(MOUNTINFO, 'utf8'));
}

/** The mount that covers a path, the latest one where there are several, or undefined. */
export function findMount(path: string): MountEntry | undefined {
  return findMounts(path).at(-1);
}

/** For a message: its type, and its source where it has one. */
export function mountText({ type, source }: MountEntry): string {
  return source === '' ? type : `${type}, ${source}`;
}

/** As a word for a shell, so that what a message says can be copied. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/**
 * The command that unmounts a path on this machine.
 * @param program with its options, if not one that every machine has
 */
export function unmountCommand(path: string, program = unmounter()): string {
  const safe = path.startsWith('-') ? `./${path}` : path;
  return `${program} ${shellWord(safe)}`;
}

function unmounter(): string {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const helper = folders.some((folder) => folder !== '' && existsSync(join(folder, 'fusermount3')));
  // Root needs no helper, and the package that it comes in need not be installed.
  return helper || process.getuid?.() !== 0 ? 'fusermount3 -u' : 'umount';
}

function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}

/** Where a disk is to be shown. */
export interface Mountpoint {
  /** What is mounted on: absolute, free of symbolic links. */
  readonly path: string;
  /** The name of the disk in it where it is a directory; undefined where it is a file. */
  readonly name: string | undefined;
  /** What is mounted on, as the user may write it to unmount it. */
  readonly shown: string;
  /** The file with the disk, as the user may write it. */
  readonly shownFile: string;
  /** There is something that the mount hides: content of the file, or files in the directory. */
  readonly hides: boolean;
}

/** The name of the disk in a directory, where the user gives none; as nbdfuse has it. */
const DEFAULT_NAME = 'nbd';
/** NAME_MAX. */
const LONGEST_NAME = 255;
/** The type of our own mounts. */
export const OWN_TYPE = 'fuse.tsnbdfuse';

/** Takes a mount of our type away if nobody serves it any more. @returns whether it did */
export type ClearDead = (mount: MountEntry, shown: string) => Promise<boolean>;

const clearNothing: ClearDead = () => Promise.resolve(false);

function refuse(mount: MountEntry, shown: string): never {
  throw new MountError(
    `${shown} is already a mount (${mountText(mount)}); unmount it first: ${unmountCommand(shown)}`,
  );
}

/** @throws MountError where something is mounted on a path that makes another mount there a mistake */
async function refuseMount(absolute: string, shown: string, clearDead: ClearDead): Promise<void> {
  const mount = await findLiving(absolute, shown, clearDead);
  if (mount === undefined) return;
  // An empty directory that a file system is mounted on is as good as another one. A file is not, and
  // neither is a FUSE mount, which may be dead, or a disk that is shown already.
  if (mount.type.startsWith('fuse') || !(await isDirectory(absolute))) refuse(mount, shown);
}

/** @throws MountError where something was mounted since the place was looked at that makes another mount a mistake */
export function refuseMounted({ path, shown }: Mountpoint): Promise<void> {
  return refuseMount(path, shown, clearNothing);
}

/** The mount that covers a path when those are cleared away that are dead. */
async function findLiving(
  path: string,
  shown: string,
  clearDead: ClearDead,
): Promise<MountEntry | undefined> {
  for (;;) {
    const mount = findMount(path);
    // Below it there may be another one.
    if (mount?.type !== OWN_TYPE || !(await clearDead(mount, shown))) return mount;
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return (await lstat(path)).isDirectory();
}

/** The absolute path, with no symbolic link but perhaps the last name. A mount of ours is not touched. */
async function resolveParent(shown: string, clearDead: ClearDead): Promise<string> {
  const absolute = resolve(shown);
  // A dead or a hung mount may not even be looked at, so the list of mounts is asked first.
  await refuseMount(absolute, shown, clearDead);
  const parent = dirname(absolute);
  await refuseOwn(parent, clearDead);
  let real: string;
  try {
    real = await realpath(parent);
  } catch (error) {
    throw new MountError(
      errorCode(error) === 'ENOENT'
        ? `the directory of ${shown} does not exist: ${parent}`
        : `cannot look at ${parent}: ${errorText(error)}`,
      { cause: error },
    );
  }
  if (real !== parent) await refuseOwn(real, clearDead);
  const inParent = join(real, basename(absolute));
  await refuseMount(inParent, shown, clearDead);
  return inParent;
}

/** @throws MountError where a directory is a mount of ours, with which nothing else can be made in it */
async function refuseOwn(directory: string, clearDead: ClearDead): Promise<void> {
  const around = await findLiving(directory, directory, clearDead);
  if (around?.type === OWN_TYPE) refuse(around, directory);
}

/** As `lstat`, but undefined for what does not exist. @throws MountError */
async function look(path: string, shown: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw new MountError(`cannot look at ${shown}: ${errorText(error)}`, { cause: error });
  }
}

/**
 * Checks that a disk can be shown in a place: over a file that exists; in a directory that exists, as
 * the file `nbd`; or as a file that does not exist in a directory that does, which is mounted on then.
 *
 * @param shown as the user wrote it; messages have it so
 * @param clearDead asked about each mount that is in the way; if it is not said, each is refused
 * @throws MountError
 */
export async function checkMountpoint(
  shown: string,
  clearDead: ClearDead = clearNothing,
): Promise<Mountpoint> {
  if (shown === '') throw new MountError('the mountpoint has an empty name');
  let path = await resolveParent(shown, clearDead);
  let entry = await look(path, shown);
  // fusermount3 -u takes no symbolic link.
  let toUnmount = shown;
  if (entry?.isSymbolicLink() === true) {
    try {
      path = await realpath(path);
    } catch (error) {
      throw new MountError(`${shown} is a symbolic link to nothing`, { cause: error });
    }
    await refuseMount(path, shown, clearDead);
    entry = await look(path, shown);
    toUnmount = path;
  }
  if (entry === undefined) return inDirectory(path, shown);
  if (entry.isDirectory()) {
    await checkWritable(path, shown);
    const hides = !(await isEmpty(path, shown));
    const below = hides ? findMount(path) : undefined;
    if (below !== undefined) refuse(below, shown);
    await refusePseudo(path, shown);
    return {
      path,
      name: DEFAULT_NAME,
      shown: toUnmount,
      shownFile: join(shown, DEFAULT_NAME),
      hides,
    };
  }
  if (!entry.isFile()) {
    throw new MountError(
      `${shown} is neither a regular file nor a directory; nothing else can show a disk`,
    );
  }
  await refusePseudo(path, shown);
  await checkWritable(path, shown);
  return { path, name: undefined, shown: toUnmount, shownFile: shown, hides: entry.size > 0 };
}

/** A name that is not there: the disk gets it, in its directory. */
async function inDirectory(path: string, shown: string): Promise<Mountpoint> {
  const safe = shellWord(shown.startsWith('-') ? `./${shown}` : shown);
  const missing = `${shown} does not exist; create it with: touch ${safe}`;
  // The directory is to be named: nobody wants to hide the one they are in by a slip.
  if (!shown.includes('/')) throw new MountError(missing);
  if (shown.endsWith('/')) {
    throw new MountError(`${shown} does not exist; create it with: mkdir ${safe}`);
  }
  const directory = dirname(path);
  const shownDirectory = dirname(shown);
  // A place like /tmp or /, which much else needs.
  if (findMount(directory) !== undefined) throw new MountError(missing);
  const name = basename(path);
  if (Buffer.byteLength(name) > LONGEST_NAME) {
    throw new MountError(`the name of ${shown} has more than ${LONGEST_NAME} bytes`);
  }
  await checkWritable(directory, shownDirectory);
  const hides = !(await isEmpty(directory, shownDirectory));
  return { path: directory, name, shown: shownDirectory, shownFile: shown, hides };
}

async function isEmpty(path: string, shown: string): Promise<boolean> {
  try {
    const directory = await opendir(path);
    try {
      return (await directory.read()) === null;
    } finally {
      await directory.close();
    }
  } catch (error) {
    throw new MountError(`cannot look into ${shown}: ${errorText(error)}`, { cause: error });
  }
}

/** What these hold is made by the kernel, and no place for a mount: the magic numbers of statfs(2). */
const PSEUDO = new Map([
  [0x9fa0, 'proc'],
  [0x62656572, 'sysfs'],
  [0x63677270, 'cgroup2'],
  [0x64626720, 'debugfs'],
  [0x74726163, 'tracefs'],
  [0x73636673, 'securityfs'],
]);

async function refusePseudo(path: string, shown: string): Promise<void> {
  const type = PSEUDO.get((await statfs(path)).type);
  if (type === undefined) return;
  throw new MountError(
    `${shown} is in a file system of the kernel (${type}); nothing can be shown there`,
  );
}

/** Root mounts by itself; for others fusermount3 does it, and asks that they may write to the mountpoint. */
async function checkWritable(path: string, shown: string): Promise<void> {
  const uid = process.getuid?.();
  if (uid === 0) return;
  try {
    await access(path, constants.W_OK);
  } catch (error) {
    const owner = (await lstat(path)).uid;
    const advice =
      owner === uid
        ? `try: chmod u+w ${shellWord(shown)}`
        : `it belongs to ${userText(owner)}: take one of yours`;
    throw new MountError(
      `${shown} is not writable (${errorText(error)}), which fusermount3 asks of a mountpoint; ${advice}`,
      { cause: error },
    );
  }
}

/** A line for a user who asks for what a file as mountpoint cannot show. */
export function partitionsNeedDirectory({ shown }: Mountpoint): string {
  return `partitions are files beside the disk, which takes a directory: mkdir dir, and then dir/disk.raw in the place of ${shown}`;
}
