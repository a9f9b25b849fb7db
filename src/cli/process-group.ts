/** A server and the processes that it started, as one. */

import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** Milliseconds between two looks. */
const LOOK_INTERVAL = 5;

/** @returns whether there was a process to take it, dead or alive */
export function signalGroup(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-group, signal);
    return true;
  } catch {
    return false;
  }
}

/** Whether a process of the group lives, by its line in proc(5): id (name) state parent group ... */
function livesInGroup(pid: string, group: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name may have blanks and brackets of its own.
    const [state, , its] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return its === String(group) && state !== 'Z' && state !== 'X';
  } catch {
    // It ended while we looked.
    return false;
  }
}

/**
 * Whether any process of the group lives. One that has ended and that nobody has waited for does not
 * count: an orphan stays so for seconds under a slow init, and for ever in a container without one.
 */
export function groupAlive(group: number): boolean {
  if (!signalGroup(group, 0)) return false;
  return readdirSync('/proc').some((name) => /^\d+$/.test(name) && livesInGroup(name, group));
}

/** Waits until no process of the group lives. @returns whether that came in time */
export async function groupGone(group: number, milliseconds: number): Promise<boolean> {
  const end = performance.now() + milliseconds;
  while (groupAlive(group)) {
    if (performance.now() >= end) return false;
    await delay(LOOK_INTERVAL);
  }
  return true;
}
