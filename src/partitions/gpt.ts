/** GUID partition tables (UEFI specification, "GUID Partition Table (GPT) Disk Layout"). */

import { crc32 } from 'node:zlib';
import { ByteReader } from '../bytes.js';
import type { TableReader } from './table-reader.js';
import type { Partition } from './table.js';

const SIGNATURE = 0x5452415020494645n; // "EFI PART"
const HEADER_BYTES = 92;
const HEADER_CRC_AT = 16;
/** An entry has 128 bytes times a power of two. */
const ENTRY_BYTES = 128;
const MAX_ENTRY_BYTES = 4096;
/** Tools make 128. */
const MAX_ENTRIES = 1024;
const UNUSED = Buffer.alloc(16);

interface Header {
  readonly entriesAt: bigint;
  readonly count: number;
  readonly entryBytes: number;
  readonly entriesCrc: number;
}

/**
 * The primary table, or where that is damaged the backup at the end of the disk.
 * @returns undefined if there is neither, with sectors of this size
 * @throws ErrnoError
 */
export async function readGpt(
  reader: TableReader,
  sectorSize: number,
): Promise<Partition[] | undefined> {
  const sectors = reader.size / BigInt(sectorSize);
  return (
    (await readCopy(reader, sectorSize, 1n, sectors)) ??
    (await readCopy(reader, sectorSize, sectors - 1n, sectors))
  );
}

/** @param lba where its header is @param sectors how many the disk has */
async function readCopy(
  reader: TableReader,
  sectorSize: number,
  lba: bigint,
  sectors: bigint,
): Promise<Partition[] | undefined> {
  const sector = await reader.read(lba * BigInt(sectorSize), sectorSize);
  const header = sector === undefined ? undefined : parseHeader(sector, lba);
  if (header === undefined) return undefined;
  const { entriesAt, count, entryBytes, entriesCrc } = header;
  const entries = await reader.read(entriesAt * BigInt(sectorSize), count * entryBytes);
  if (entries === undefined || crc32(entries) !== entriesCrc) return undefined;
  const partitions: Partition[] = [];
  for (let i = 0; i < count; i++) {
    const partition = parseEntry(entries.subarray(i * entryBytes), i + 1, sectorSize, sectors);
    if (partition !== undefined) partitions.push(partition);
  }
  return partitions;
}

function parseHeader(sector: Buffer, lba: bigint): Header | undefined {
  const reader = new ByteReader(sector, 'little');
  if (reader.u64() !== SIGNATURE) return undefined;
  reader.skip(4); // revision
  const headerBytes = reader.u32();
  const crc = reader.u32();
  reader.skip(4); // reserved
  const ownLba = reader.u64();
  if (headerBytes < HEADER_BYTES || headerBytes > sector.length || ownLba !== lba) return undefined;
  const checked = Buffer.from(sector.subarray(0, headerBytes));
  checked.fill(0, HEADER_CRC_AT, HEADER_CRC_AT + 4);
  if (crc32(checked) !== crc) return undefined;
  // The other copy, the first and the last sector for partitions, and the GUID of the disk.
  reader.skip(8 + 8 + 8 + 16);
  const entriesAt = reader.u64();
  const count = reader.u32();
  const entryBytes = reader.u32();
  const entriesCrc = reader.u32();
  const fits =
    count > 0 &&
    count <= MAX_ENTRIES &&
    entryBytes >= ENTRY_BYTES &&
    entryBytes <= MAX_ENTRY_BYTES &&
    Number.isInteger(Math.log2(entryBytes / ENTRY_BYTES));
  return fits ? { entriesAt, count, entryBytes, entriesCrc } : undefined;
}

/** @returns undefined for one that is not used, or that does not lie on the disk */
function parseEntry(
  entry: Buffer,
  number: number,
  sectorSize: number,
  sectors: bigint,
): Partition | undefined {
  if (entry.subarray(0, 16).equals(UNUSED)) return undefined;
  const first = entry.readBigUInt64LE(32);
  const last = entry.readBigUInt64LE(40);
  if (first > last || last >= sectors) return undefined;
  const size = BigInt(sectorSize);
  return { number, offset: first * size, size: (last - first + 1n) * size };
}
