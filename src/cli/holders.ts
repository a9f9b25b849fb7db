/**
 * Who has a file or a socket open, or anything in a directory. Links in /proc are read and never
 * followed, so that a file which we serve ourselves is not touched.
 */

import { readFile, readdir, readlink } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

/** Milliseconds between two looks. */
const LOOK_INTERVAL = 10;

async function list(folder: string): Promise<string[]> {
  // Processes end while we look, and those of other users do not show their files.
  return readdir(folder).catch(() => []);
}

async function processHolds(pid: string, path: string): Promise<boolean> {
  const links = (await list(`/proc/${pid}/fd`)).map((fd) => `fd/${fd}`);
  for (const link of [...links, 'cwd']) {
    const target = await readlink(`/proc/${pid}/${link}`).catch(() => undefined);
    if (target !== undefined && isIn(target, path)) return true;
  }
  return false;
}

function isIn(target: string, path: string): boolean {
  return target === path || target.startsWith(`${path}/`);
}

/** @param target a path, or as /proc shows a socket: `socket:[INODE]`. @returns other processes than this one */
export async function processesHolding(target: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await list('/proc')) {
    if (!/^\d+$/.test(pid) || pid === String(process.pid)) continue;
    if (await processHolds(pid, target)) found.push(pid);
  }
  return found;
}

/** Whether it runs; one that ended and that nobody has waited for does not. */
async function isAlive(pid: string): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  // The name before the state may have blanks and brackets of its own.
  return !['', 'Z', 'X'].includes(stat.slice(stat.lastIndexOf(')') + 2).charAt(0));
}

function signal(pid: string, name: NodeJS.Signals): void {
  try {
    process.kill(Number(pid), name);
  } catch {
    // It ended by itself, or is not ours to end.
  }
}

/**
 * @param deadline milliseconds from SIGTERM to SIGKILL
 * @param killDeadline milliseconds after that
 * @returns those that are still there
 */
export async function endProcesses(
  pids: readonly string[],
  deadline: number,
  killDeadline: number,
): Promise<string[]> {
  let left = [...pids];
  for (const [name, milliseconds] of [
    ['SIGTERM', deadline],
    ['SIGKILL', killDeadline],
  ] as const) {
    for (const pid of left) signal(pid, name);
    const end = performance.now() + milliseconds;
    for (;;) {
      const alive = await Promise.all(left.map(isAlive));
      left = left.filter((_, i) => alive[i] === true);
      if (left.length === 0) return [];
      if (performance.now() >= end) break;
      await delay(LOOK_INTERVAL);
    }
  }
  return left;
}

/**
 * @param path absolute, without symbolic links
 * @returns what a message can name, as `gdisk (process 123)`; empty where nobody can be seen
 */
export async function findHolders(path: string): Promise<string[]> {
  const holders: string[] = [];
  for (const pid of await processesHolding(path)) {
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => 'a process');
    holders.push(`${name.trim()} (process ${pid})`);
  }
  for (const device of await list('/sys/block')) {
    if (!device.startsWith('loop')) continue;
    const file = await readFile(`/sys/block/${device}/loop/backing_file`, 'utf8').catch(() => '');
    if (isIn(file.trimEnd(), path)) holders.push(`/dev/${device}`);
  }
  return holders;
}
