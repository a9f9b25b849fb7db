/** The kernel's settings of a mount that sysfs holds, which root may change. */

import { readFileSync, writeFileSync } from 'node:fs';
import { traceMain } from '../trace.js';

/**
 * How far the kernel reads ahead of a sequential reader, in KiB. Its own 128 leave a server idle
 * between requests; 4 MiB keep several of the largest requests under way.
 */
const READ_AHEAD_KIB = 4096;

/**
 * Lets the kernel read further ahead. Only root may; for others it stays as it is.
 * @param path of the mount, as /proc/self/mountinfo has it
 */
export function raiseReadAhead(path: string): void {
  try {
    const device = deviceOf(path);
    if (device === undefined) return;
    writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, `${READ_AHEAD_KIB}\n`);
  } catch (error) {
    traceMain('read-ahead stays at the kernel’s default: %s', error);
  }
}

/** `0:52`, without asking the mount itself, which we serve. */
function deviceOf(path: string): string | undefined {
  const escaped = path.replace(
    /[ \t\n\\]/g,
    (one) => `\\${one.charCodeAt(0).toString(8).padStart(3, '0')}`,
  );
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const line = lines.findLast((one) => one.split(' ')[4] === escaped);
  return line?.split(' ')[2];
}
