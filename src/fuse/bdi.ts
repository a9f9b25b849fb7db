/** The kernel's settings for a mount, under /sys/class/bdi, which root may change. */

import { accessSync, constants, writeFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { traceMain } from '../trace.js';
import { memoryLimit } from './memory-limit.js';

/**
 * How far the kernel reads ahead of a sequential reader, in KiB. Its own 128 leave a server idle
 * between requests; 4 MiB keep several of the largest requests under way, and 16 MiB enough of them to
 * keep a server busy that is ten milliseconds away.
 */
const READ_AHEAD_KIB = 4096;
const FAR_READ_AHEAD_KIB = 16384;

/**
 * How much of the memory for dirty pages the mount may take, in percent. At the 1 that FUSE starts
 * with, a writer is made to wait for the server after some ten megabytes.
 */
const MAX_RATIO = 10;

/**
 * The same in bytes, as a part of the memory that our group of processes may have: what is dirty there takes
 * away from what we need to write it back, and where nothing else is left, each waits for the other.
 */
const GROUP_PART = 8;

const folderOf = (device: string): string => `/sys/class/bdi/${device}`;

/** Whether `tuneMount` can do anything: only root may, and not in all containers. @param device as there */
export function canTune(device: string): boolean {
  try {
    accessSync(`${folderOf(device)}/read_ahead_kb`, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Makes the kernel read further ahead and write back in larger amounts. It holds for files that are
 * opened from then on.
 * @param device of the mount, `major:minor`
 * @param far the server is, so that it takes more to keep it busy
 */
export function tuneMount(device: string, far: boolean): void {
  try {
    const kib = far ? FAR_READ_AHEAD_KIB : READ_AHEAD_KIB;
    writeFileSync(`${folderOf(device)}/read_ahead_kb`, `${kib}\n`);
    const most = Math.floor(memoryLimit() / GROUP_PART);
    // What MAX_RATIO comes to where the kernel lets a fifth of all memory be dirty, as it does by default.
    if (most > (totalmem() * MAX_RATIO) / 500) {
      writeFileSync(`${folderOf(device)}/max_ratio`, `${MAX_RATIO}\n`);
    } else {
      writeFileSync(`${folderOf(device)}/max_bytes`, `${most}\n`);
    }
  } catch (error) {
    traceMain('the kernel’s settings of the mount stay as they are: %s', error);
  }
}
