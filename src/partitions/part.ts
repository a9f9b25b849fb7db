/** A part of a disk in its place: one partition, or a range of bytes. */

import type { Disk } from '../disk/disk.js';
import { windowDisk, windowOf } from '../disk/window.js';
import { describeAbsent } from './messages.js';
import { readPartitions } from './read.js';
import type { ReadOptions } from './read.js';

export type Part =
  | { readonly kind: 'partition'; readonly number: number }
  /** In bytes; without a size it reaches to the end. */
  | { readonly kind: 'range'; readonly offset: bigint; readonly size: bigint | undefined };

/** The disk has no such partition. The message is for the user. */
export class PartError extends Error {
  /** Tells the kind of error. */
  override readonly name = 'PartError';
}

/**
 * @param disk takes any request, as `fitDisk` makes it
 * @throws PartError, WindowError, PartitionTableError, each with one line for the user
 */
export async function partOf(disk: Disk, part: Part, options: ReadOptions): Promise<Disk> {
  if (part.kind === 'range') {
    const { offset, size } = windowOf(disk.info, part);
    return windowDisk(disk, offset, size);
  }
  const table = await readPartitions(disk, options);
  const found = table.partitions.find(({ number }) => number === part.number);
  if (found === undefined) throw new PartError(describeAbsent(table, part.number));
  return windowDisk(disk, found.offset, found.size);
}
