/** A server and the processes that it started, as one. */

import { setTimeout as delay } from 'node:timers/promises';

/** Milliseconds between two looks. */
const LOOK_INTERVAL = 5;

/** @returns whether there was a process to take it */
export function signalGroup(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-group, signal);
    return true;
  } catch {
    return false;
  }
}

/** Whether any process of the group is there, one that nobody has waited for yet included. */
export function groupAlive(group: number): boolean {
  return signalGroup(group, 0);
}

/** Waits until no process of the group is left. @returns whether that came in time */
export async function groupGone(group: number, milliseconds: number): Promise<boolean> {
  const end = performance.now() + milliseconds;
  while (groupAlive(group)) {
    if (performance.now() >= end) return false;
    await delay(LOOK_INTERVAL);
  }
  return true;
}
