/**
 * Finds the partitions of a disk: a GPT, or the table of a master boot record. What is on the disk is
 * believed in nothing: a table may come from anybody, and what it says leads to no endless reading and
 * to no range outside of the disk.
 */

import type { Disk } from '../disk/disk.js';
import { readGpt } from './gpt.js';
import { fits, hasEntries, isProtective, readMbr, RECORD_BYTES } from './mbr.js';
import { TableReader } from './table-reader.js';
import type { PartitionTable } from './table.js';

const SMALL = 512;
const LARGE = 4096;

/** In bytes. */
export type SectorSize = 512 | 4096;

/** What is known before of a partition table. */
export interface ReadOptions {
  /** What the table counts in, in bytes, where that is known. Without it, it is found out. */
  readonly sectorSize?: SectorSize | undefined;
  /**
   * The least the server takes, in bytes: a hint for the sector size. By default that of the disk, which
   * a fitted disk has hidden.
   */
  readonly minimumBlock?: number | undefined;
}

/**
 * Reads most often less than 20 KiB, and never more than four arrays of 1 MiB or 512 records, one after
 * the other. It is for the caller to end the disk when that does not answer.
 *
 * @param disk of any block limits; it is only read
 * @throws PartitionTableError if the start of the disk cannot be read
 */
export async function readPartitions(
  disk: Disk,
  options: ReadOptions = {},
): Promise<PartitionTable> {
  const reader = new TableReader(disk);
  const likely = (options.minimumBlock ?? disk.info.limits.minimum) >= LARGE ? LARGE : SMALL;
  const found = await readTable(reader, options.sectorSize, likely);
  // Of a GPT one copy is enough.
  const complete = !reader.failed || found.scheme === 'gpt';
  return { extended: [], ...found, watched: reader.ranges(), complete };
}

type Found = Omit<PartitionTable, 'watched' | 'extended' | 'complete'> & Partial<PartitionTable>;

async function readTable(
  reader: TableReader,
  known: SectorSize | undefined,
  likely: SectorSize,
): Promise<Found> {
  const nothing = { scheme: 'none', sectorSize: known ?? likely, partitions: [] } as const;
  const record = await reader.read(0n, RECORD_BYTES);
  if (record === undefined) return { ...nothing, problems: [] };
  if (isProtective(record, reader.size)) {
    // Without a protective record a GPT is a left-over; with one, there is no MBR where the GPT is broken.
    const sizes = known === undefined ? [likely, likely === SMALL ? LARGE : SMALL] : [known];
    const gpt = await readGpt(reader, sizes);
    if (typeof gpt === 'string') return { ...nothing, problems: [gpt] };
    return { scheme: 'gpt', ...gpt };
  }
  if (!hasEntries(record, reader.size)) return { ...nothing, problems: [] };
  const sectorSize = known ?? mbrSectorSize(record, likely, reader.size);
  return { scheme: 'mbr', ...(await readMbr(reader, record, sectorSize)) };
}

/**
 * A master boot record does not say what it counts in. Sectors are of 512 bytes but where the server
 * takes no less than 4096; and as it may do so for its own disk's sake, with an image on it that was made
 * in 512s, the partitions must then also end on the disk. To be wrong would be to write in wrong places,
 * so that nothing else is guessed, and the user can say it.
 */
function mbrSectorSize(record: Buffer, likely: SectorSize, size: bigint): SectorSize {
  return likely === LARGE && fits(record, LARGE, size) ? LARGE : SMALL;
}
