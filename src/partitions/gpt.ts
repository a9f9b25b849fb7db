/**
 * The GUID partition table (UEFI specification, chapter 5.3): a header in the second sector with an
 * array of entries somewhere behind, and a copy of both at the end of the disk. A copy counts if both of
 * its checksums are right, and for what is in it the disk decides: no count is believed beyond it.
 */

import { crc32 } from 'node:zlib';
import { viewOf } from '../bytes.js';
import { numbered } from './messages.js';
import { PartitionTableError } from './table.js';
import type { Partition } from './table.js';
import { MAX_READ } from './table-reader.js';
import type { TableReader } from './table-reader.js';

const SIGNATURE = 'EFI PART';
/** The header as revision 1.0 has it; what comes behind belongs to the checksum all the same. */
const HEADER_BYTES = 92;
const CHECKSUM_AT = 16;
const CHECKSUM_BYTES = 4;
/** An entry may be longer, by multiples (5.3.2); what is behind the first 128 bytes nobody has defined. */
const ENTRY_BYTES = 128;
const NAME_AT = 56;
const NAME_BYTES = 72;
const NO_TYPE = '00000000-0000-0000-0000-000000000000';

export interface Gpt {
  readonly sectorSize: number;
  readonly partitions: readonly Partition[];
  readonly problems: readonly string[];
}

interface Header {
  /** In bytes, as all here. */
  readonly entriesOffset: bigint;
  readonly count: number;
  readonly entrySize: number;
  readonly entriesChecksum: number;
}

/** What is wrong with one of the two copies. */
class Damage {
  constructor(
    readonly what: string,
    /** There is a header, however broken, so that the sector size is likely the right one. */
    readonly found: boolean,
  ) {}
}

/**
 * Reads the copy at the start of the disk or, if that is damaged, the one in the last sector.
 * @param sectorSizes that the disk may have, the likeliest first
 * @returns what is wrong, if neither copy can be used
 */
export async function readGpt(
  reader: TableReader,
  sectorSizes: readonly number[],
): Promise<Gpt | string> {
  const first = await readAnyCopy(reader, sectorSizes, () => 1n);
  if (!(first instanceof Damage)) return first;
  const second = await readAnyCopy(reader, sectorSizes, (size) => lastSector(reader, size));
  if (second instanceof Damage) {
    return `the GPT cannot be used: at the start of the disk ${first.what}, at the end ${second.what}`;
  }
  const problem = `the GPT at the start of the disk cannot be used (${first.what}); its copy at the end of the disk is used`;
  return { ...second, problems: [problem, ...second.problems] };
}

/** The copy with the sector size by which there is one. */
async function readAnyCopy(
  reader: TableReader,
  sectorSizes: readonly number[],
  sectorOf: (sectorSize: number) => bigint,
): Promise<Gpt | Damage> {
  let damage = new Damage('there is none', false);
  for (const sectorSize of sectorSizes) {
    const copy = await readCopy(reader, sectorSize, sectorOf(sectorSize));
    if (!(copy instanceof Damage)) return copy;
    if (copy.found || !damage.found) damage = copy;
  }
  return damage;
}

function lastSector(reader: TableReader, sectorSize: number): bigint {
  return reader.size / BigInt(sectorSize) - 1n;
}

async function readCopy(
  reader: TableReader,
  sectorSize: number,
  sector: bigint,
): Promise<Gpt | Damage> {
  try {
    const bytes = await reader.read(sector * BigInt(sectorSize), sectorSize);
    if (bytes === undefined) return new Damage('there is none', false);
    const header = parseHeader(bytes, sector, lastSector(reader, sectorSize));
    if (header instanceof Damage) return header;
    const entries = await reader.read(header.entriesOffset, header.count * header.entrySize);
    if (entries === undefined) return new Damage('its entries are not on the disk', true);
    if (crc32(entries) !== header.entriesChecksum) {
      return new Damage('the checksum of its entries is wrong', true);
    }
    return parseEntries(entries, header.entrySize, sectorSize, lastSector(reader, sectorSize));
  } catch (error) {
    // It is for bad sectors that there are two copies.
    if (error instanceof PartitionTableError) return new Damage('it cannot be read', true);
    throw error;
  }
}

/** @param bytes the whole sector; a header that does not fit there is none */
function parseHeader(bytes: Buffer, sector: bigint, last: bigint): Header | Damage {
  const view = viewOf(bytes);
  const u32 = (at: number): number => view.getUint32(at, true);
  const u64 = (at: number): bigint => view.getBigUint64(at, true);
  if (bytes.toString('latin1', 0, SIGNATURE.length) !== SIGNATURE) {
    return new Damage('there is none', false);
  }
  const headerSize = u32(12);
  if (headerSize < HEADER_BYTES || headerSize > bytes.length) {
    return new Damage(`its header claims to have ${headerSize} bytes`, true);
  }
  if (headerChecksum(bytes.subarray(0, headerSize)) !== u32(CHECKSUM_AT)) {
    return new Damage('the checksum of its header is wrong', true);
  }
  if (u64(24) !== sector) return new Damage('it belongs to another place', true);
  const [firstUsable, lastUsable] = [u64(40), u64(48)];
  // Nothing is guessed about the part that is left of a larger disk: Linux does not use it either.
  if (lastUsable > last) return new Damage('it was made for a larger disk', true);
  if (firstUsable > lastUsable) return new Damage('it leaves no room for partitions', true);
  const [count, entrySize] = [u32(80), u32(84)];
  if (entrySize === 0 || entrySize % ENTRY_BYTES !== 0) {
    return new Damage(`its entries claim to have ${entrySize} bytes`, true);
  }
  if (count === 0 || count * entrySize > MAX_READ) {
    return new Damage(`it claims to have ${count} entries of ${entrySize} bytes`, true);
  }
  const entriesOffset = u64(72) * BigInt(bytes.length);
  return { entriesOffset, count, entrySize, entriesChecksum: u32(88) };
}

/** The field of the checksum itself counts as zeroes. */
function headerChecksum(header: Buffer): number {
  const before = crc32(header.subarray(0, CHECKSUM_AT));
  const field = crc32(Buffer.alloc(CHECKSUM_BYTES), before);
  return crc32(header.subarray(CHECKSUM_AT + CHECKSUM_BYTES), field);
}

function parseEntries(entries: Buffer, entrySize: number, sectorSize: number, last: bigint): Gpt {
  const view = viewOf(entries);
  const bytesPerSector = BigInt(sectorSize);
  const partitions: Partition[] = [];
  const outside: number[] = [];
  for (let at = 0; at < entries.length; at += entrySize) {
    const type = guid(entries.subarray(at, at + 16));
    if (type === NO_TYPE) continue;
    const number = at / entrySize + 1;
    const first = view.getBigUint64(at + 32, true);
    const end = view.getBigUint64(at + 40, true);
    // As Linux: an entry that is not wholly on the disk is not used, unlike one of an MBR.
    if (first > end || end > last) {
      outside.push(number);
      continue;
    }
    partitions.push({
      number,
      offset: first * bytesPerSector,
      size: (end - first + 1n) * bytesPerSector,
      type,
      name: nameOf(entries.subarray(at + NAME_AT, at + NAME_AT + NAME_BYTES)),
    });
  }
  const problems =
    outside.length === 0 ? [] : [`${numbered(outside)}: not wholly on the disk, left out`];
  return { sectorSize, partitions, problems };
}

/** A GUID as it is written; its first three groups are little-endian (appendix A). */
function guid(bytes: Buffer): string {
  const little = (start: number, end: number): string =>
    Buffer.from(bytes.subarray(start, end)).reverse().toString('hex');
  const groups = [
    little(0, 4),
    little(4, 6),
    little(6, 8),
    bytes.toString('hex', 8, 10),
    bytes.toString('hex', 10, 16),
  ];
  return groups.join('-').toUpperCase();
}

/** It comes from the disk and may go to a terminal: control characters and the like are left out. */
function nameOf(bytes: Buffer): string {
  const [name = ''] = bytes.toString('utf16le').split('\0');
  return name.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ').trim();
}
