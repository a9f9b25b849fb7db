/** What the system tells of a block device. */

import { readFile } from 'node:fs/promises';
import { deviceNumbers } from '../../device-number.js';

export interface BlockDeviceQueue {
  /** In bytes, a power of two. */
  readonly logicalBlock: number;
  readonly rotational: boolean;
}

const DEFAULT_BLOCK = 512;
/** The most that the protocol allows. */
const MAX_BLOCK = 65536;

/** @param rdev as stat has it */
export async function blockDeviceQueue(rdev: bigint): Promise<BlockDeviceQueue> {
  const { major, minor } = deviceNumbers(rdev);
  const device = `/sys/dev/block/${major}:${minor}`;
  const tell = async (name: string): Promise<string> => {
    // A partition has no queue of its own: that of the whole disk is one level up.
    for (const folder of [`${device}/queue`, `${device}/../queue`]) {
      try {
        return (await readFile(`${folder}/${name}`, 'utf8')).trim();
      } catch {
        // Perhaps the other one; or none, where /sys is not mounted.
      }
    }
    return '';
  };
  const block = Number(await tell('logical_block_size'));
  const isBlock =
    block >= DEFAULT_BLOCK && block <= MAX_BLOCK && Number.isInteger(Math.log2(block));
  return {
    logicalBlock: isBlock ? block : DEFAULT_BLOCK,
    rotational: (await tell('rotational')) === '1',
  };
}
