/** Looks at a mountpoint before anything is started for it, and tells in one line what is wrong. */

import { constants, existsSync } from 'node:fs';
import { access, lstat, readFile, realpath } from 'node:fs/promises';
import { basename, delimiter, dirname, join, resolve } from 'node:path';
import { MountError } from './errors.js';

/** A line of /proc/self/mountinfo (proc(5)), as far as it matters here. */
export interface MountEntry {
  /** `major:minor`, under which sysfs has its settings. */
  readonly device: string;
  /** Absolute. */
  readonly mountpoint: string;
  /** With its subtype: `fuse.tsnbdfuse`. */
  readonly type: string;
  readonly source: string;
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
      device,
      mountpoint: unescape(mountpoint),
      type,
      source: unescape(source ?? ''),
    });
  }
  return entries;
}

/** The mount that covers a path, the latest one where there are several, or undefined. */
export async function findMount(path: string): Promise<MountEntry | undefined> {
  const entries = parseMountinfo(await readFile('/proc/self/mountinfo', 'utf8'));
  return entries.findLast((entry) => entry.mountpoint === path);
}

/** As a word for a shell, so that what a message says can be copied. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** The command that unmounts a path on this machine. */
export function unmountCommand(path: string): string {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const helper = folders.some((folder) => folder !== '' && existsSync(join(folder, 'fusermount3')));
  // Root needs no helper, and the package that it comes in need not be installed.
  const command = helper || process.getuid?.() !== 0 ? 'fusermount3 -u' : 'umount';
  const safe = path.startsWith('-') ? `./${path}` : path;
  return `${command} ${shellWord(safe)}`;
}

function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}

async function refuseMount(absolute: string, shown: string): Promise<void> {
  const mount = await findMount(absolute);
  if (mount === undefined) return;
  const what = mount.source === '' ? mount.type : `${mount.type}, ${mount.source}`;
  throw new MountError(
    `${shown} is already a mount (${what}); unmount it first: ${unmountCommand(shown)}`,
  );
}

/** The absolute path without symbolic links. What is mounted on it is not touched. */
async function resolvePath(shown: string): Promise<string> {
  const absolute = resolve(shown);
  // A dead or a hung mount may not even be looked at, so the list of mounts is asked first.
  await refuseMount(absolute, shown);
  const parent = dirname(absolute);
  let inParent: string;
  try {
    inParent = join(await realpath(parent), basename(absolute));
  } catch (error) {
    throw new MountError(
      errorCode(error) === 'ENOENT'
        ? `the directory of ${shown} does not exist: ${parent}`
        : `cannot look at ${parent}: ${errorCode(error)}`,
      { cause: error },
    );
  }
  await refuseMount(inParent, shown);
  let entry;
  try {
    entry = await lstat(inParent);
  } catch (error) {
    throw missing(shown, error);
  }
  if (!entry.isSymbolicLink()) return inParent;
  let target: string;
  try {
    target = await realpath(inParent);
  } catch (error) {
    throw new MountError(`${shown} is a symbolic link to nothing`, { cause: error });
  }
  await refuseMount(target, shown);
  return target;
}

function missing(shown: string, error: unknown): MountError {
  const safe = shellWord(shown.startsWith('-') ? `./${shown}` : shown);
  return new MountError(
    errorCode(error) === 'ENOENT'
      ? `${shown} does not exist; create it with: touch ${safe}`
      : `cannot look at ${shown}: ${errorCode(error)}`,
    { cause: error },
  );
}

/**
 * Checks that something can be mounted on a file.
 *
 * @param shown as the user wrote it; messages have it so
 * @returns the absolute path, free of symbolic links
 * @throws MountError
 */
export async function checkMountpoint(shown: string): Promise<string> {
  if (shown === '') throw new MountError('the mountpoint has an empty name');
  const path = await resolvePath(shown);
  let entry;
  try {
    entry = await lstat(path);
  } catch (error) {
    throw missing(shown, error);
  }
  if (entry.isDirectory()) {
    throw new MountError(
      `${shown} is a directory, which is not supported yet; give a file, made with: touch disk.raw`,
    );
  }
  if (!entry.isFile()) {
    throw new MountError(
      `${shown} is not a regular file; only a regular file can be shown as a disk`,
    );
  }
  // Root mounts by itself; for others fusermount3 does it, and asks that they may write to the file.
  if (process.getuid?.() !== 0) {
    try {
      await access(path, constants.W_OK);
    } catch (error) {
      throw new MountError(
        `${shown} is not writable (${errorCode(error)}), which fusermount3 asks of a mountpoint; try: chmod u+w ${shellWord(shown)}`,
        { cause: error },
      );
    }
  }
  return path;
}
