/**
 * The partition table of a master boot record: four entries at the end of the first sector, one of which
 * may be an extended partition, with a chain of records in it that have a logical partition each.
 * What Linux makes of it is the measure, as there is no specification.
 */

import { viewOf } from '../bytes.js';
import { numbered } from './messages.js';
import { PartitionTableError } from './table.js';
import type { Partition } from './table.js';
import type { TableReader } from './table-reader.js';

/** A record has this many bytes, in a sector of any size. */
export const RECORD_BYTES = 512;
const SIGNATURE_AT = 510;
const SIGNATURE = 0xaa55;
const ENTRIES_AT = 446;
const ENTRY_BYTES = 16;
const ENTRIES = 4;
const ACTIVE = 0x80;

const PROTECTIVE = 0xee;
/** For DOS, Windows 95, Linux. */
const EXTENDED: readonly number[] = [0x05, 0x0f, 0x85];
const FIRST_LOGICAL = 5;
/** Linux has no device for partitions above. */
const MAX_NUMBER = 255;
/** Each of them is a read. A logical partition needs one, and those that were deleted leave empty ones. */
const MAX_CHAIN = 512;

interface Entry {
  /** From 0. */
  readonly index: number;
  readonly type: number;
  /** In sectors, as `count`. */
  readonly start: number;
  readonly count: number;
}

export interface Mbr {
  readonly sectorSize: number;
  readonly partitions: readonly Partition[];
  readonly extended: readonly number[];
  readonly problems: readonly string[];
}

/** The entries in use. */
function entriesOf(record: Buffer): Entry[] {
  const view = viewOf(record);
  const entries: Entry[] = [];
  for (let index = 0; index < ENTRIES; index++) {
    const at = ENTRIES_AT + index * ENTRY_BYTES;
    const count = view.getUint32(at + 12, true);
    if (count === 0) continue;
    entries.push({ index, type: record[at + 4] ?? 0, start: view.getUint32(at + 8, true), count });
  }
  return entries;
}

function isSigned(record: Buffer): boolean {
  return record.readUInt16LE(SIGNATURE_AT) === SIGNATURE;
}

function isExtended(entry: Entry): boolean {
  return EXTENDED.includes(entry.type);
}

/**
 * Whether there are entries that can be believed. A boot sector of a file system has the same signature,
 * and its program where the entries would be.
 * @param record the first bytes of the disk
 * @param size of the disk in bytes
 */
export function hasEntries(record: Buffer, size: bigint): boolean {
  if (!isSigned(record)) return false;
  for (let index = 0; index < ENTRIES; index++) {
    const active = record[ENTRIES_AT + index * ENTRY_BYTES] ?? 0;
    if (active !== 0 && active !== ACTIVE) return false;
  }
  return !isFileSystem(record) || makesSense(entriesOf(record), size);
}

/** A boot sector of FAT, exFAT or NTFS: they begin with a jump over the parameters of the file system. */
function isFileSystem(record: Buffer): boolean {
  const jumps = record[0] === 0xe9 || (record[0] === 0xeb && record[2] === 0x90);
  if (!jumps) return false;
  const name = record.toString('latin1', 3, 11);
  if (name === 'NTFS    ' || name === 'EXFAT   ') return true;
  const bytesPerSector = record.readUInt16LE(11);
  const sectorsPerCluster = record[13] ?? 0;
  const reserved = record.readUInt16LE(14);
  const tables = record[16] ?? 0;
  const media = record[21] ?? 0;
  return (
    [512, 1024, 2048, 4096].includes(bytesPerSector) &&
    isPowerOfTwo(sectorsPerCluster) &&
    reserved > 0 &&
    (tables === 1 || tables === 2) &&
    (media === 0xf0 || media >= 0xf8)
  );
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

/** Whether there are any, all on the disk, behind the boot sector and beside one another. */
function makesSense(entries: readonly Entry[], size: bigint): boolean {
  const sorted = entries.toSorted((a, b) => a.start - b.start);
  let free = 1;
  for (const { start, count } of sorted) {
    if (start < free) return false;
    free = start + count;
  }
  return sorted.length > 0 && BigInt(free) * BigInt(RECORD_BYTES) <= size;
}

/**
 * Whether the record says that there is a GPT, by an entry over it. With others beside it is a hybrid, and
 * the GPT counts.
 */
export function isProtective(record: Buffer, size: bigint): boolean {
  const over = entriesOf(record).filter((entry) => entry.type === PROTECTIVE);
  if (over.length === 0) return false;
  return hasEntries(record, size) || (isSigned(record) && over.some((entry) => entry.start === 1));
}

/** Whether all partitions end on the disk if its sectors are of this size. */
export function fits(record: Buffer, sectorSize: number, size: bigint): boolean {
  return entriesOf(record).every(
    ({ start, count }) => BigInt(start + count) * BigInt(sectorSize) <= size,
  );
}

/** @param record the first bytes of the disk, of which `hasEntries` is true */
export async function readMbr(
  reader: TableReader,
  record: Buffer,
  sectorSize: number,
): Promise<Mbr> {
  const found = new Found(reader.size, sectorSize);
  const chain = new Chain(reader, found);
  for (const entry of entriesOf(record)) {
    const number = entry.index + 1;
    if (!isExtended(entry)) {
      found.add(number, entry.type, entry.start, entry.count);
      continue;
    }
    found.extended.push(number);
    await chain.follow(entry);
  }
  return found.table();
}

/** The partitions that were found so far. */
class Found {
  readonly extended: number[] = [];
  readonly problems: string[] = [];
  readonly #partitions: Partition[] = [];
  readonly #outside: number[] = [];
  readonly #cut: number[] = [];

  constructor(
    readonly size: bigint,
    readonly sectorSize: number,
  ) {}

  /**
   * As Linux does: what begins behind the end of the disk is left out, what reaches over the end is cut
   * there. There are cameras whose tables are like that.
   * @param start in sectors, as `count`
   */
  add(number: number, type: number, start: number, count: number): void {
    const offset = BigInt(start) * BigInt(this.sectorSize);
    const size = BigInt(count) * BigInt(this.sectorSize);
    if (offset >= this.size) {
      this.#outside.push(number);
      return;
    }
    const left = this.size - offset;
    if (size > left) this.#cut.push(number);
    this.#partitions.push({
      number,
      offset,
      size: size > left ? left : size,
      type: `0x${type.toString(16).padStart(2, '0')}`,
      name: '',
    });
  }

  table(): Mbr {
    const problems = [...this.problems];
    if (this.#outside.length > 0) {
      problems.push(`${numbered(this.#outside)}: behind the end of the disk, left out`);
    }
    if (this.#cut.length > 0) {
      problems.push(`${numbered(this.#cut)}: longer than the disk, cut off at its end`);
    }
    return {
      sectorSize: this.sectorSize,
      partitions: this.#partitions.toSorted((a, b) => a.number - b.number),
      extended: this.extended,
      problems,
    };
  }
}

/**
 * The records in extended partitions. In each the entry of a partition counts from the record itself, the
 * link to the next record from the start of the extended partition. Records that belong to no
 * partition any more may be among them, and links may lead anywhere, also in circles.
 */
class Chain {
  readonly #reader: TableReader;
  readonly #found: Found;
  /** In sectors. */
  readonly #seen = new Set<number>();
  #next = FIRST_LOGICAL;

  constructor(reader: TableReader, found: Found) {
    this.#reader = reader;
    this.#found = found;
  }

  async follow(extended: Entry): Promise<void> {
    let at = extended.start;
    let room = extended.count;
    for (;;) {
      const entries = await this.#read(at);
      if (entries === undefined) return;
      for (const entry of entries) {
        if (isExtended(entry) || !isWithin(entry, at, room, extended)) continue;
        if (this.#next > MAX_NUMBER) {
          this.#broken(`there are more than ${MAX_NUMBER}`);
          return;
        }
        // Also one that is left out has its number, or the others would change theirs.
        this.#found.add(this.#next++, entry.type, at + entry.start, entry.count);
      }
      const link = entries.find(isExtended);
      if (link === undefined) return;
      at = extended.start + link.start;
      room = link.count;
    }
  }

  /** @returns undefined where the chain ends */
  async #read(sector: number): Promise<Entry[] | undefined> {
    if (this.#seen.has(sector)) {
      this.#broken('the records go round in a circle');
      return undefined;
    }
    if (this.#seen.size === MAX_CHAIN) {
      this.#broken(`there are more than ${MAX_CHAIN} records of them`);
      return undefined;
    }
    this.#seen.add(sector);
    const offset = BigInt(sector) * BigInt(this.#found.sectorSize);
    try {
      const record = await this.#reader.read(offset, RECORD_BYTES);
      if (record === undefined) {
        this.#broken('the next record is behind the end of the disk');
        return undefined;
      }
      // Without a signature there never was one: nobody has made a logical partition yet.
      return isSigned(record) ? entriesOf(record) : undefined;
    } catch (error) {
      if (!(error instanceof PartitionTableError)) throw error;
      this.#broken(error.message);
      return undefined;
    }
  }

  #broken(why: string): void {
    this.#found.problems.push(`the logical partitions from ${this.#next} on are not shown: ${why}`);
  }
}

/**
 * The first two entries of a record are believed. The others are not used by the tools and may be
 * anything, so that they must lie where they could.
 */
function isWithin(entry: Entry, at: number, room: number, extended: Entry): boolean {
  if (entry.index < 2) return true;
  const end = at + entry.start + entry.count;
  return entry.start + entry.count <= room && end <= extended.start + extended.count;
}
