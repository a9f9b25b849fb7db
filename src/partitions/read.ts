/**
 * The partitions of a disk: GPT and MBR, as Linux reads them. Nothing that stands on the disk is trusted:
 * how much is read is bounded, and a table that is damaged or malicious has fewer partitions or none.
 */

import type { Disk } from '../disk/disk.js';
import { readGpt } from './gpt.js';
import { MBR_BYTES, isProtective, readMbr } from './mbr.js';
import { TableReader } from './table-reader.js';
import { SECTOR_SIZES } from './table.js';
import type { PartitionTable } from './table.js';

/** Where the first sectors of a table stand, whatever the size of a sector. */
const HEAD = { offset: 0n, length: 2n * 4096n };

/**
 * @param disk takes any request, as `fitDisk` makes it
 * @param sectorSize in bytes, which an MBR does not tell; a GPT shows it by where its header is
 * @throws ErrnoError if the disk cannot be read
 */
export async function readPartitions(
  disk: Disk,
  sectorSize: number = SECTOR_SIZES[0],
): Promise<PartitionTable> {
  const reader = new TableReader(disk);
  const found = await find(reader, sectorSize);
  const partitions = found.partitions.toSorted((a, b) => a.number - b.number);
  return { ...found, partitions, watched: [HEAD, ...reader.watched] };
}

async function find(
  reader: TableReader,
  sectorSize: number,
): Promise<Omit<PartitionTable, 'watched'>> {
  const none = { scheme: 'none', sectorSize, partitions: [] } as const;
  const first = await reader.read(0n, MBR_BYTES);
  if (first === undefined) return none;
  // A GPT alone does not count: an MBR that was made later may not have wiped it.
  if (isProtective(first)) {
    for (const size of SECTOR_SIZES) {
      const partitions = await readGpt(reader, size);
      if (partitions !== undefined) return { scheme: 'gpt', sectorSize: size, partitions };
    }
    return none;
  }
  const partitions = await readMbr(reader, first, sectorSize);
  return partitions === undefined ? none : { scheme: 'mbr', sectorSize, partitions };
}
