/** What is mounted where, and taking it down, also when the one who serves it does not answer. */

import { readFileSync, writeFileSync } from 'node:fs';
import { run, until } from './processes.js';

/** Milliseconds. */
const UNMOUNT_DEADLINE = 20_000;
const RETRY_INTERVAL = 50;

export interface MountEntry {
  readonly path: string;
  readonly type: string;
  /** Of the device number; by it the kernel names the connection of a FUSE mount. */
  readonly minor: number;
}

/** proc(5), mountinfo: id, parent, device, root, path, options, optional fields, "-", type, ... */
export function parseMounts(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [before = '', after = ''] = line.split(' - ');
    const [, , device = '', , path] = before.split(' ');
    if (path === undefined) continue;
    entries.push({
      path: path.replace(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(parseInt(octal, 8)),
      ),
      type: after.split(' ')[0] ?? '',
      minor: Number(device.split(':')[1]),
    });
  }
  return entries;
}

export function mountsBelow(folder: string): MountEntry[] {
  const all = parseMounts(readFileSync('/proc/self/mountinfo', 'utf8'));
  return all.filter(({ path }) => path === folder || path.startsWith(`${folder}/`));
}

export function mountAt(path: string): MountEntry | undefined {
  return mountsBelow(path).findLast((entry) => entry.path === path);
}

/** Makes the kernel answer all that waits for the mount with an error. */
function abort(entry: MountEntry): void {
  try {
    writeFileSync(`/sys/fs/fuse/connections/${entry.minor}/abort`, '1');
  } catch {
    // It is gone, or not FUSE.
  }
}

/**
 * Unmounts what is at the path, if anything is.
 * @throws Error when it had to be detached by force: what it held may be lost
 */
export async function unmount(path: string): Promise<void> {
  const entry = mountAt(path);
  if (entry === undefined) return;
  const end = performance.now() + UNMOUNT_DEADLINE;
  let problem = 'it is busy';
  while (performance.now() < end) {
    try {
      await run(['umount', path], { deadline: UNMOUNT_DEADLINE });
      return;
    } catch (error) {
      problem = (error as Error).message;
      if (mountAt(path) === undefined) return;
      await new Promise((resolve) => setTimeout(resolve, RETRY_INTERVAL));
    }
  }
  abort(entry);
  await run(['umount', '-l', path]).catch(() => undefined);
  await until(`the end of the mount ${path}`, () => mountAt(path) === undefined, UNMOUNT_DEADLINE);
  throw new Error(`${path} had to be unmounted by force: ${problem}`);
}
