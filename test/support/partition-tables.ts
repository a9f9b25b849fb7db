/** Disks with partition tables, byte by byte as the specifications have them, for tests. */

import { crc32 } from 'node:zlib';
import { MemoryDisk } from './memory-disk.js';
import type { MemoryDiskOptions } from './memory-disk.js';

export const LINUX_DATA = '0FC63DAF-8483-4772-8E79-3D69D8477DE4';

export interface MbrEntry {
  /** From 0. */
  readonly index: number;
  readonly type: number;
  readonly start: number;
  readonly count: number;
  readonly active?: number;
}

/** Writes a record with these entries, and its signature. */
export function putRecord(disk: Buffer, at: number, entries: readonly MbrEntry[]): void {
  for (const { index, type, start, count, active = 0 } of entries) {
    const place = at + 446 + 16 * index;
    disk.writeUInt8(active, place);
    disk.writeUInt8(type, place + 4);
    disk.writeUInt32LE(start, place + 8);
    disk.writeUInt32LE(count, place + 12);
  }
  disk.writeUInt16LE(0xaa55, at + 510);
}

export interface GptEntry {
  readonly number: number;
  /** In sectors, as `last`, which is part of it. */
  readonly first: number;
  readonly last: number;
  readonly name?: string;
}

export interface GptOptions {
  readonly sectorSize?: number;
  readonly entrySize?: number;
  readonly entryCount?: number;
  readonly entries: readonly GptEntry[];
}

/** Writes a protective record and both copies of a GPT. */
export function putGpt(disk: Buffer, options: GptOptions): void {
  const { sectorSize = 512, entrySize = 128, entryCount = 128, entries } = options;
  const lastSector = Math.floor(disk.length / sectorSize) - 1;
  const arraySectors = Math.ceil((entrySize * entryCount) / sectorSize);
  putRecord(disk, 0, [{ index: 0, type: 0xee, start: 1, count: lastSector }]);
  const array = Buffer.alloc(entrySize * entryCount);
  for (const { number, first, last, name = '' } of entries) {
    const entry = array.subarray((number - 1) * entrySize, number * entrySize);
    // The GUID of Linux data, as its bytes stand on a disk.
    entry.write('af3dc60f838472478e793d69d8477de4', 'hex');
    entry.writeUInt8(number, 16);
    entry.writeBigUInt64LE(BigInt(first), 32);
    entry.writeBigUInt64LE(BigInt(last), 40);
    entry.write(name, 56, 72, 'utf16le');
  }
  const copies = [
    { at: 1, other: lastSector, arrayAt: 2 },
    { at: lastSector, other: 1, arrayAt: lastSector - arraySectors },
  ];
  for (const { at, other, arrayAt } of copies) {
    array.copy(disk, arrayAt * sectorSize);
    const header = disk.subarray(at * sectorSize, at * sectorSize + 92);
    header.write('EFI PART', 'latin1');
    header.writeUInt32LE(0x10000, 8);
    header.writeUInt32LE(92, 12);
    header.writeBigUInt64LE(BigInt(at), 24);
    header.writeBigUInt64LE(BigInt(other), 32);
    header.writeBigUInt64LE(BigInt(2 + arraySectors), 40);
    header.writeBigUInt64LE(BigInt(lastSector - arraySectors - 1), 48);
    header.writeBigUInt64LE(BigInt(arrayAt), 72);
    header.writeUInt32LE(entryCount, 80);
    header.writeUInt32LE(entrySize, 84);
    header.writeUInt32LE(crc32(array), 88);
    signGptHeader(header);
  }
}

/** Makes the checksum of a header right again, whatever was changed in it. @param header 92 bytes */
export function signGptHeader(header: Buffer): void {
  header.writeUInt32LE(0, 16);
  header.writeUInt32LE(crc32(header), 16);
}

/** A disk with this content, of which changes can be read again. */
export function diskOf(content: Buffer, options: Omit<MemoryDiskOptions, 'size'> = {}): MemoryDisk {
  const disk = new MemoryDisk({ ...options, size: content.length });
  content.copy(disk.content);
  return disk;
}
