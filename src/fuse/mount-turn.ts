/**
 * One after another: of several that are to mount on the same place at once, each would find it free, and they
 * would cover each other. The place itself is locked while it is looked at once more and mounted on.
 */

import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { TOO_LATE, within } from '../deadline.js';
import { native } from '../native.js';
import { traceMain } from '../trace.js';

/** Where the lock stands, far behind those of programs that lock what is in a file. */
const PLACE = 2n ** 62n;
/**
 * Milliseconds after which the mount is made all the same: whoever can read a file can lock it, and a file system
 * may have no locks, or hang.
 */
const PATIENCE = 5_000;
/** Milliseconds between two tries, at the least and at the most. */
const PAUSE = [5, 25] as const;

/**
 * Runs something while nobody else does so for the same place.
 * @param path of a file or a directory that nothing of ours is mounted on
 * @throws what `run` does
 */
export async function inTurn<T>(path: string, run: () => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const waiting = lock(path, stop.signal);
  const turn = await within(waiting, PATIENCE);
  if (turn === TOO_LATE) {
    traceMain('%s is locked by somebody else', path);
    stop.abort();
    // What comes late is not wanted any more.
    waiting.then((late) => late?.close()).catch(() => undefined);
    return run();
  }
  try {
    return await run();
  } finally {
    // Nobody waits for that: it may be in a file system that hangs by now.
    turn?.close().catch((error: unknown) => traceMain('%s stays locked: %s', path, error));
  }
}

/** @returns what holds the lock until it is closed; undefined where there can be none. Never rejects */
async function lock(path: string, signal: AbortSignal): Promise<FileHandle | undefined> {
  while (!signal.aborted) {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch(() => undefined);
    if (file === undefined) return undefined;
    // Both are shared, which a file that is only read allows: of two who come at once, one at least sees the other.
    const result = await native.lockShared(file.fd, PLACE, 1n);
    const isTaken = result === 0 && (await native.isLocked(file.fd, PLACE, 1n)) === 1;
    if (!isTaken) return file;
    await file.close();
    const [least, most] = PAUSE;
    await delay(least + Math.random() * (most - least), undefined, { signal }).catch(
      () => undefined,
    );
  }
  return undefined;
}
