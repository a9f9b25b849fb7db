/** The kernel's settings for a mount, under /sys/class/bdi, which root may change. */

import { writeFileSync } from 'node:fs';
import { traceMain } from '../trace.js';

/**
 * How far the kernel reads ahead of a sequential reader, in KiB. Its own 128 leave a server idle
 * between requests; 4 MiB keep several of the largest requests under way.
 */
const READ_AHEAD_KIB = 4096;

/**
 * How much of the memory for dirty pages the mount may take, in percent. At the 1 that FUSE starts
 * with, a writer is made to wait for the server after some ten megabytes.
 */
const MAX_RATIO = 10;

/**
 * Makes the kernel read further ahead and write back in larger amounts. Only root may; for others all
 * stays as it is.
 * @param device of the mount, `major:minor`
 */
export function tuneMount(device: string): void {
  try {
    const folder = `/sys/class/bdi/${device}`;
    writeFileSync(`${folder}/read_ahead_kb`, `${READ_AHEAD_KIB}\n`);
    writeFileSync(`${folder}/max_ratio`, `${MAX_RATIO}\n`);
  } catch (error) {
    traceMain('the kernel’s settings of the mount stay as they are: %s', error);
  }
}
