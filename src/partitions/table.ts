/** What a partition table says, whatever its kind. */

/** In bytes. */
export interface Range {
  readonly offset: bigint;
  readonly length: bigint;
}

export interface Partition {
  /** As Linux and sgdisk have it: from 1; logical partitions of an MBR from 5 on. */
  readonly number: number;
  /** In bytes, from the start of the disk. */
  readonly offset: bigint;
  readonly size: bigint;
}

export interface PartitionTable {
  readonly scheme: 'gpt' | 'mbr' | 'none';
  /** In bytes; what the table counts in. */
  readonly sectorSize: number;
  /** In the order of their numbers. */
  readonly partitions: readonly Partition[];
  /** What the table was read from, and where another one would stand: a change there may change it. */
  readonly watched: readonly Range[];
}

/** Sector sizes of disks that there are. */
export const SECTOR_SIZES = [512, 4096] as const;

/** For a disk whose server wants requests of at least so many bytes. */
export function sectorSizeFor(minimumBlock: number): number {
  return minimumBlock >= 4096 ? 4096 : 512;
}
