/** `tsnbdfuse --status`. */

import { statusJson } from '../observe/mount-status.js';
import type { MountStatus } from '../observe/mount-status.js';
import { statusDetails, statusTable } from '../observe/status-table.js';
import { askMount, askMounts } from './ask-mounts.js';
import type { StatusCommand } from './command-line.js';
import { print, say } from './messages.js';

/** @returns the exit status: 0 where all that was asked about are healthy, or none is there; otherwise 1 */
export async function showStatus({ mountpoint, json }: StatusCommand): Promise<number> {
  const mounts = await find(mountpoint);
  const isMissing = mountpoint !== undefined && mounts.length === 0;
  if (isMissing) say(`${mountpoint} is not a mount of tsnbdfuse`);
  const text = json ? statusJson(mounts) : textOf(mounts, mountpoint !== undefined);
  const status = await print(isMissing && !json ? '' : text);
  const isWell = !isMissing && mounts.every(({ state }) => state === 'healthy');
  return isWell ? status : Math.max(status, 1);
}

async function find(mountpoint: string | undefined): Promise<readonly MountStatus[]> {
  if (mountpoint === undefined) return askMounts();
  const found = await askMount(mountpoint);
  return found === undefined ? [] : [found];
}

function textOf(mounts: readonly MountStatus[], isOne: boolean): string {
  const [first] = mounts;
  return isOne && first !== undefined ? statusDetails(first, Date.now()) : statusTable(mounts);
}
