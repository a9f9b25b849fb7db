/**
 * What the programs that we start say on standard error. They inherit ours, but for a daemon: that lets go of the
 * standard error of its user once the disk is mounted, which they would hold open as long as they live.
 */

import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { within } from './deadline.js';

let passesOn = false;
const ends = new Set<Promise<void>>();

/** From now on it comes to us by a pipe, and from us to process.stderr. */
export function passOnChildOutput(): void {
  passesOn = true;
}

/** What stands for an output of a child, in the `stdio` of spawn. */
export const childOutput = (): 'inherit' | 'pipe' => (passesOn ? 'pipe' : 'inherit');

/** @param output what `spawn` has made of `childOutput()` */
export function passOn(output: Readable | null): void {
  if (output === null) return;
  output.on('data', (bytes: Buffer) => process.stderr.write(bytes));
  const end = new Promise<void>((resolve) => {
    output.once('error', () => undefined).once('close', resolve);
  });
  ends.add(end);
  void end.then(() => ends.delete(end));
  // A process that a server leaves behind may hold its end, and is not to hold us.
  if (output instanceof Socket) output.unref();
}

/** Waits until all is passed on that children said who are gone. @param milliseconds at the most */
export async function childOutputPassedOn(milliseconds: number): Promise<void> {
  if (ends.size > 0) await within(Promise.all(ends), milliseconds);
}
