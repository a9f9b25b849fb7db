/** Partition tables in the master boot record, with the chain of logical partitions. */

import type { TableReader } from './table-reader.js';
import type { Partition } from './table.js';

export const MBR_BYTES = 512;
const SIGNATURE_AT = 510;
const SIGNATURE = 0xaa55;
const ENTRIES_AT = 446;
const ENTRY_BYTES = 16;
const ENTRIES = 4;

/** The one that stands for a GPT. */
const PROTECTIVE = 0xee;
/** Those that hold logical partitions: of DOS, of Windows, of Linux. */
const EXTENDED: ReadonlySet<number> = new Set([0x05, 0x0f, 0x85]);
/** What Linux takes at the most; a chain may also lead in a circle. */
const MAX_LOGICAL = 100;
const FIRST_LOGICAL = 5;

interface Entry {
  readonly type: number;
  /** In sectors; of a logical one, from some other place than the start of the disk. */
  readonly start: bigint;
  readonly count: bigint;
}

/**
 * @returns undefined for a sector that is no such table. The boot sector of a file system has the same
 *   signature, and code where the entries are: an entry starts with 0 or 0x80.
 */
function parseEntries(sector: Buffer): Entry[] | undefined {
  if (sector.readUInt16LE(SIGNATURE_AT) !== SIGNATURE) return undefined;
  const entries: Entry[] = [];
  for (let i = 0; i < ENTRIES; i++) {
    const at = ENTRIES_AT + i * ENTRY_BYTES;
    if ((sector.readUInt8(at) & 0x7f) !== 0) return undefined;
    entries.push({
      type: sector.readUInt8(at + 4),
      start: BigInt(sector.readUInt32LE(at + 8)),
      count: BigInt(sector.readUInt32LE(at + 12)),
    });
  }
  return entries;
}

/** Whether the first sector of a disk says that its table is a GPT. */
export function isProtective(sector: Buffer): boolean {
  return parseEntries(sector)?.some(({ type }) => type === PROTECTIVE) ?? false;
}

/**
 * @param sector the first one of the disk
 * @returns undefined if it is no partition table. A partition that holds logical ones is left out: it
 *   has no content of its own.
 * @throws ErrnoError
 */
export async function readMbr(
  reader: TableReader,
  sector: Buffer,
  sectorSize: number,
): Promise<Partition[] | undefined> {
  const entries = parseEntries(sector);
  if (entries === undefined) return undefined;
  const partitions: Partition[] = [];
  const add = (number: number, start: bigint, count: bigint): void => {
    const offset = start * BigInt(sectorSize);
    const end = offset + count * BigInt(sectorSize);
    // What reaches past the end of the disk is cut, as Linux does it.
    const size = (end < reader.size ? end : reader.size) - offset;
    if (size > 0n) partitions.push({ number, offset, size });
  };
  let next = FIRST_LOGICAL;
  const extended: Entry[] = [];
  for (const [i, entry] of entries.entries()) {
    if (entry.count === 0n) continue;
    if (EXTENDED.has(entry.type)) extended.push(entry);
    else add(i + 1, entry.start, entry.count);
  }
  for (const container of extended) {
    for await (const { start, count } of logicalPartitions(reader, container, sectorSize)) {
      if (next >= FIRST_LOGICAL + MAX_LOGICAL) break;
      add(next++, start, count);
    }
  }
  return partitions;
}

/**
 * Each sector of the chain has an entry for a partition, counted from that sector, and one that leads to
 * the next sector, counted from the start of the container.
 */
async function* logicalPartitions(
  reader: TableReader,
  container: Entry,
  sectorSize: number,
): AsyncGenerator<{ start: bigint; count: bigint }> {
  const seen = new Set<bigint>();
  const end = container.start + container.count;
  for (let at: bigint | undefined = container.start; at !== undefined && !seen.has(at);) {
    seen.add(at);
    if (seen.size > MAX_LOGICAL) return;
    const sector = await reader.read(at * BigInt(sectorSize), MBR_BYTES);
    const entries = sector === undefined ? undefined : parseEntries(sector);
    if (entries === undefined) return;
    let following: bigint | undefined;
    for (const [i, { type, start, count }] of entries.entries()) {
      if (count === 0n) continue;
      if (EXTENDED.has(type)) {
        following ??= container.start + start;
        continue;
      }
      const from = at + start;
      // Two entries are used. The others may be anything, also what an old table has left.
      if (i >= 2 && (from < container.start || from + count > end)) continue;
      yield { start: from, count };
    }
    at = following !== undefined && following < end ? following : undefined;
  }
}
