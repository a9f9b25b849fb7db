/**
 * The file that tells scripts that the disk is mounted, or served, and by which process. Its name comes from a
 * command line, where a slip is soon made: nothing but a pidfile is ever replaced or removed.
 */

import { constants, lstatSync, readFileSync, rmSync } from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { access, lstat, open, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { errorText } from '../errno.js';
import { CommandError } from './errors.js';

/** More than a process id, a newline and some blanks have. */
const LONGEST = 32;

export class Pidfile {
  readonly #path: string;
  readonly #shown: string;
  readonly #content = `${process.pid}\n`;
  /** The file that we wrote; undefined before. */
  #written: BigIntStats | undefined;

  private constructor(path: string, shown: string) {
    this.#path = path;
    this.#shown = shown;
  }

  /**
   * Checks that it can be written, and writes nothing. One that a process left behind which was killed
   * is removed: whoever waits for the file to appear would take it for ours.
   * @param shown as the user wrote it; taken from the current directory of now
   * @throws CommandError
   */
  static async prepare(shown: string): Promise<Pidfile> {
    try {
      if (shown === '') throw new Error('its name is empty');
      if (shown.endsWith('/')) throw new Error('that is the name of a directory');
      const absolute = resolve(shown);
      const folder = await realFolder(dirname(absolute));
      await access(folder, constants.W_OK | constants.X_OK);
      const path = join(folder, basename(absolute));
      const pid = await readPidfile(path);
      if (pid !== undefined && isGone(pid)) await rm(path, { force: true });
      else await refuseLiving(pid);
      return new Pidfile(path, shown);
    } catch (error) {
      throw problem(shown, error);
    }
  }

  /** Whether what is mounted there would be in its way. @param mountpoint absolute, without symbolic links */
  isBelow(mountpoint: string): boolean {
    return this.#path === mountpoint || this.#path.startsWith(join(mountpoint, '/'));
  }

  /**
   * Whoever sees the file sees the whole of it.
   * @throws CommandError
   */
  async write(): Promise<void> {
    const once = `${process.pid}-${process.hrtime.bigint()}`;
    const unfinished = join(dirname(this.#path), `.pid-${once}`);
    let made = false;
    try {
      const file = await open(unfinished, 'wx');
      made = true;
      try {
        await file.writeFile(this.#content);
        this.#written = await file.stat({ bigint: true });
      } finally {
        await file.close();
      }
      // Something else may have got the name since it was looked at.
      await refuseLiving(await readPidfile(this.#path));
      await rename(unfinished, this.#path);
    } catch (error) {
      if (made) await rm(unfinished, { force: true });
      this.#written = undefined;
      throw problem(this.#shown, error);
    }
  }

  /** Another process may have put its own in the place of ours. */
  remove(): void {
    if (this.#written === undefined) return;
    const { dev, ino } = this.#written;
    try {
      const entry = lstatSync(this.#path, { bigint: true });
      if (!entry.isFile() || entry.dev !== dev || entry.ino !== ino) return;
      if (readFileSync(this.#path, 'utf8') === this.#content) rmSync(this.#path);
    } catch {
      // Gone already, or not ours to remove any more.
    }
  }
}

async function realFolder(folder: string): Promise<string> {
  try {
    if (!(await stat(folder)).isDirectory()) throw new Error(`${folder} is not a directory`);
    return await realpath(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error('its directory does not exist', { cause: error });
  }
}

/**
 * The process id in a file that may be replaced.
 * @returns undefined where there is no file, or none is in it
 * @throws Error where it is anything but a pidfile
 */
async function readPidfile(path: string): Promise<number | undefined> {
  const entry = await lstat(path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  });
  if (entry === undefined) return undefined;
  if (entry.isDirectory()) throw new Error('it is a directory');
  if (entry.isSymbolicLink()) throw new Error('it is a symbolic link');
  // Nothing else is opened: a pipe would be waited for, and a device may do anything.
  if (!entry.isFile()) throw new Error('it is not a regular file');
  if (entry.size === 0) return undefined;
  const content = entry.size > LONGEST ? '' : await readText(path);
  const digits = /^\s*([1-9]\d{0,9})\s*$/.exec(content)?.[1];
  if (digits !== undefined) return Number(digits);
  throw new Error('it exists and is no pidfile');
}

/** Of a file that is small when it is looked at; a pipe in its place by now does not hold us. */
async function readText(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(LONGEST + 1), 0, LONGEST + 1, 0);
    return buffer.toString('latin1', 0, bytesRead);
  } finally {
    await file.close();
  }
}

/**
 * The file of a command of ours that still runs stays: who is to end that one by it would end us. That of any
 * other process is out of date, as its number is used again.
 */
async function refuseLiving(pid: number | undefined): Promise<void> {
  if (pid === undefined || pid === process.pid) return;
  const what = await occupationOf(pid);
  if (what === undefined) return;
  throw new Error(`process ${pid}, which wrote it, still ${what} first, or take another name`);
}

const SHOWS = 'shows a disk; unmount that';
/** By which name it was called, behind the interpreter and its options: what it does, and how that is ended. */
const COMMANDS: ReadonlyMap<string, string> = new Map([
  ['tsnbdfuse', SHOWS],
  ['nbdfuse', SHOWS],
  ['mount.fuse.tsnbdfuse', SHOWS],
  ['tsnbdkit', 'serves a disk; end that'],
]);
const WORDS_BEFORE = 4;

/** @returns undefined for a process that is none of ours */
async function occupationOf(pid: number): Promise<string | undefined> {
  const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  const first = words.split('\0').slice(0, WORDS_BEFORE);
  return first.map((word) => COMMANDS.get(basename(word))).find((what) => what !== undefined);
}

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

function problem(shown: string, error: unknown): CommandError {
  return new CommandError(`cannot write the pidfile ${shown}: ${errorText(error)}`, {
    cause: error,
  });
}
