/** A part of a disk in its place: one partition, or a range of bytes. */

import type { Disk } from '../disk/disk.js';
import { windowDisk } from '../disk/window.js';
import { readPartitions } from './read.js';
import type { PartitionTable } from './table.js';

export type Part =
  | { readonly kind: 'partition'; readonly number: number }
  /** In bytes; without a size it reaches to the end. */
  | { readonly kind: 'range'; readonly offset: bigint; readonly size: bigint | undefined };

/** The disk has no such part. The message is for the user. */
export class PartError extends Error {
  override readonly name = 'PartError';
}

/**
 * @param disk takes any request, as `fitDisk` makes it
 * @param sectorSize see `readPartitions`
 * @throws PartError; ErrnoError if the disk cannot be read
 */
export async function partOf(disk: Disk, part: Part, sectorSize?: number): Promise<Disk> {
  if (part.kind === 'range') return rangeOf(disk, part.offset, part.size);
  const table = await readPartitions(disk, sectorSize);
  const found = table.partitions.find(({ number }) => number === part.number);
  if (found === undefined) throw new PartError(missing(part.number, table));
  return windowDisk(disk, found.offset, found.size);
}

function rangeOf(disk: Disk, offset: bigint, size: bigint | undefined): Disk {
  const whole = disk.info.size;
  const fail = (problem: string): never => {
    throw new PartError(`${problem}; the disk has ${whole.toString()} bytes`);
  };
  if (offset >= whole) fail(`the offset ${offset.toString()} is not on the disk`);
  const length = size ?? whole - offset;
  if (length <= 0n) fail('a range of no bytes cannot be shown');
  if (offset + length > whole) {
    fail(`${length.toString()} bytes from ${offset.toString()} on reach past the end of the disk`);
  }
  return windowDisk(disk, offset, length);
}

function missing(number: number, { scheme, partitions }: PartitionTable): string {
  if (scheme === 'none') return `there is no partition ${number}: the disk has no partition table`;
  if (partitions.length === 0) {
    return `there is no partition ${number}: the partition table of the disk is empty`;
  }
  const numbers = partitions.map((partition) => partition.number).join(', ');
  return `there is no partition ${number}: the disk has ${numbers}`;
}
