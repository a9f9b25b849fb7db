/** Makes partition tables, byte by byte, as the specifications have them. */

import { crc32 } from 'node:zlib';

export interface GptEntry {
  /** In sectors. */
  readonly first: bigint;
  readonly last: bigint;
}

export interface GptOptions {
  readonly sectorSize?: number;
  readonly entryBytes?: number;
  readonly count?: number;
}

/** Writes a protective MBR, and both copies of a GPT. @param entries by their numbers from 1 on */
export function putGpt(
  disk: Buffer,
  entries: ReadonlyMap<number, GptEntry>,
  { sectorSize = 512, entryBytes = 128, count = 128 }: GptOptions = {},
): void {
  const sectors = Math.floor(disk.length / sectorSize);
  const table = Buffer.alloc(count * entryBytes);
  for (const [number, { first, last }] of entries) {
    const at = (number - 1) * entryBytes;
    table.fill(0xa5, at, at + 32); // GUIDs of the type and of the partition
    table.writeBigUInt64LE(first, at + 32);
    table.writeBigUInt64LE(last, at + 40);
  }
  const tableSectors = Math.ceil(table.length / sectorSize);
  const putCopy = (lba: number, other: number, tableLba: number): void => {
    table.copy(disk, tableLba * sectorSize);
    const header = disk.subarray(lba * sectorSize, (lba + 1) * sectorSize);
    header.fill(0);
    header.write('EFI PART', 0, 'latin1');
    header.writeUInt32LE(0x10000, 8);
    header.writeUInt32LE(92, 12);
    header.writeBigUInt64LE(BigInt(lba), 24);
    header.writeBigUInt64LE(BigInt(other), 32);
    header.writeBigUInt64LE(BigInt(2 + tableSectors), 40);
    header.writeBigUInt64LE(BigInt(sectors - tableSectors - 2), 48);
    header.fill(0x5a, 56, 72);
    header.writeBigUInt64LE(BigInt(tableLba), 72);
    header.writeUInt32LE(count, 80);
    header.writeUInt32LE(entryBytes, 84);
    header.writeUInt32LE(crc32(table), 88);
    header.writeUInt32LE(crc32(header.subarray(0, 92)), 16);
  };
  putCopy(1, sectors - 1, 2);
  putCopy(sectors - 1, 1, sectors - 1 - tableSectors);
  putMbr(disk, 0, [{ type: 0xee, start: 1, count: sectors - 1 }]);
}

/** Counts in sectors. */
export interface MbrEntry {
  readonly type: number;
  readonly start: number;
  readonly count: number;
  readonly boot?: number;
}

/** Writes the table of a boot record. @param at in bytes */
export function putMbr(disk: Buffer, at: number, entries: readonly MbrEntry[]): void {
  for (const [i, { type, start, count, boot = 0 }] of entries.entries()) {
    const entry = at + 446 + 16 * i;
    disk.writeUInt8(boot, entry);
    disk.writeUInt8(type, entry + 4);
    disk.writeUInt32LE(start, entry + 8);
    disk.writeUInt32LE(count, entry + 12);
  }
  disk.writeUInt16LE(0xaa55, at + 510);
}
