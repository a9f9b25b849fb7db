/** What a partition table says, whatever scheme it is of. */

/** A partition, as the table has it. */
export interface Partition {
  /** As Linux and sgdisk count: the entry of a GPT, 1 to 4 and from 5 on (logical ones) of an MBR. */
  readonly number: number;
  /** In bytes, within the disk. */
  readonly offset: bigint;
  /** In bytes, more than 0; offset and size are within the disk. */
  readonly size: bigint;
  /** The GUID of a GPT, `0x83` of an MBR; for messages. */
  readonly type: string;
  /** Empty for an MBR. For messages: it has no control characters. */
  readonly name: string;
}

/** A range of a disk. */
export interface DiskRange {
  /** In bytes. */
  readonly offset: bigint;
  /** In bytes. */
  readonly length: bigint;
}

/** What a partition table says. */
export interface PartitionTable {
  /** Of which kind it is; `none` where there is none. */
  readonly scheme: 'gpt' | 'mbr' | 'none';
  /** What the table counts in, in bytes. */
  readonly sectorSize: number;
  /** In the order of their numbers. They may overlap, as they may on Linux. */
  readonly partitions: readonly Partition[];
  /**
   * The extended partitions of an MBR, which hold the logical ones. They are no partitions here: Linux
   * shows their first 1 KiB for the sake of a boot loader, and nothing but the chain of tables is in it.
   */
  readonly extended: readonly number[];
  /**
   * All that was read to find this out, in order and disjoint: as long as nothing is written there, the
   * table stays what it is.
   */
  readonly watched: readonly DiskRange[];
  /** False where a part of it could not be read, so that there may be partitions that it does not tell. */
  readonly complete: boolean;
  /** What is not right with the table and what was made of it; each a line for the user. */
  readonly problems: readonly string[];
}

/** The disk could not be read. The message is a line for the user. */
export class PartitionTableError extends Error {
  /** Tells the kind of error. */
  override readonly name = 'PartitionTableError';
}
