/**
 * Who has a file open, or anything in a directory. Links in /proc are read and never followed, so that a file which we serve
 * ourselves is not touched.
 */

import { readFile, readdir, readlink } from 'node:fs/promises';

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

/**
 * @param path absolute, without symbolic links
 * @returns what a message can name, as `gdisk (process 123)`; empty where nobody can be seen
 */
export async function findHolders(path: string): Promise<string[]> {
  const holders: string[] = [];
  for (const pid of await list('/proc')) {
    if (!/^\d+$/.test(pid) || pid === String(process.pid)) continue;
    if (!(await processHolds(pid, path))) continue;
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
