/** Partition tables that somebody has tampered with: what is read and what is found is bounded. */

import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { readPartitions } from '../../../src/partitions/read.js';
import type { PartitionTable } from '../../../src/partitions/table.js';
import type { MemoryDisk } from '../../support/memory-disk.js';
import { diskOf, putGpt, putRecord, signGptHeader } from '../../support/partition-tables.js';
import type { MbrEntry } from '../../support/partition-tables.js';
import { bytes } from '../numbers.js';
import type { Target } from '../target.js';

/** Of the disks, in bytes. */
export const SIZE = 256 * 1024;

export interface Edit {
  readonly at: number;
  readonly value: Uint8Array;
}

interface PartitionsInput {
  readonly table: 'gpt-512' | 'gpt-4096' | 'mbr' | 'records' | 'bytes';
  readonly edits: readonly Edit[];
  /** With the right checksums, as of somebody who knows how. */
  readonly signed: boolean;
  readonly minimum: number;
  readonly sectorSize: 0 | 512 | 4096;
  /** Of `records`: the entries of each sector. */
  readonly records: readonly (readonly MbrEntry[])[];
  /** Of `bytes`: all of the disk. */
  readonly bytes: Buffer;
}

function gptOf(sectorSize: number): Buffer {
  const content = Buffer.alloc(SIZE);
  putGpt(content, {
    sectorSize,
    entryCount: 32,
    entries: [
      { number: 1, first: 20, last: 30, name: 'one' },
      { number: 2, first: 31, last: 40 },
    ],
  });
  return content;
}

function mbr(): Buffer {
  const content = Buffer.alloc(SIZE);
  putRecord(content, 0, [
    { index: 0, type: 0x83, start: 10, count: 10 },
    { index: 1, type: 0x0f, start: 20, count: 200 },
  ]);
  putRecord(content, 20 * 512, [
    { index: 0, type: 0x83, start: 1, count: 9 },
    { index: 1, type: 0x05, start: 20, count: 20 },
  ]);
  putRecord(content, 40 * 512, [
    { index: 0, type: 0x83, start: 1, count: 9 },
    { index: 1, type: 0x05, start: 40, count: 20 },
  ]);
  putRecord(content, 60 * 512, [{ index: 0, type: 0x83, start: 1, count: 9 }]);
  return content;
}

/** Tables as they should be. */
export const TABLES = { 'gpt-512': gptOf(512), 'gpt-4096': gptOf(4096), mbr: mbr() } as const;

/** What must hold of any disk. */
function check(table: PartitionTable, disk: MemoryDisk): void {
  const { size } = disk.info;
  let before = 0;
  for (const partition of table.partitions) {
    assert.ok(partition.number > before, 'numbers ascend');
    before = partition.number;
    assert.ok(partition.offset >= 0n && partition.size > 0n);
    assert.ok(partition.offset + partition.size <= size, 'within the disk');
    assert.doesNotMatch(partition.name + partition.type, /[\p{C}\p{Zl}\p{Zp}]/u);
  }
  if (table.scheme === 'none') assert.equal(table.partitions.length, 0);
  for (const problem of table.problems) {
    assert.ok(problem.length < 400 && !problem.includes('\n'), problem);
  }
  let end = -1n;
  for (const range of table.watched) {
    assert.ok(range.offset > end && range.length > 0n, 'in order, and not touching one another');
    end = range.offset + range.length;
    assert.ok(end <= size);
  }
  assert.ok(disk.log.length <= 513, 'reads are bounded');
  let read = 0;
  for (const line of disk.log) {
    const [, offset = '', length = ''] = /^read (\d+)\+(\d+)$/.exec(line) ?? assert.fail(line);
    read += Number(length);
    const [from, to] = [BigInt(offset), BigInt(offset) + BigInt(length)];
    // A disk of blocks is asked for whole ones.
    if (disk.info.limits.minimum > 1) continue;
    assert.ok(
      table.watched.some((range) => range.offset <= from && to <= range.offset + range.length),
      'what was read is watched',
    );
  }
  assert.ok(read <= 5 * 1024 * 1024);
}

/** Where changes hit something: the records, headers and entries. */
const INTERESTING: readonly (readonly [number, number])[] = [
  [440, 512],
  [512, 604],
  [1024, 1280],
  [4096, 4188],
  [8192, 8448],
  [20 * 512 + 440, 21 * 512],
  [40 * 512 + 440, 41 * 512],
  [SIZE - 512, SIZE - 420],
  [SIZE - 4096, SIZE - 4004],
];
const place = fc
  .constantFrom(...INTERESTING)
  .chain(([from, to]) => fc.integer({ min: from, max: to - 1 }));
export const edit: fc.Arbitrary<Edit> = fc.record({
  at: place,
  value: fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 8 }),
    fc.constantFrom(
      new Uint8Array(8),
      new Uint8Array(8).fill(255),
      new Uint8Array([255, 255, 255, 127]),
    ),
  ),
});

/** @returns the same buffer, changed */
export function apply(content: Buffer, edits: readonly Edit[]): Buffer {
  for (const { at, value } of edits) {
    content.set(value.subarray(0, Math.max(0, content.length - at)), Math.min(at, content.length));
  }
  return content;
}

/** Headers that claim anything get the right checksums. */
function sign(content: Buffer): void {
  for (const sectorSize of [512, 4096]) {
    for (const at of [sectorSize, SIZE - sectorSize]) {
      const header = content.subarray(at, at + 92);
      if (header.toString('latin1', 0, 8) !== 'EFI PART') continue;
      const arrayAt = Number(header.readBigUInt64LE(72)) * sectorSize;
      const length = header.readUInt32LE(80) * header.readUInt32LE(84);
      if (arrayAt + length <= SIZE) {
        header.writeUInt32LE(crc32(content.subarray(arrayAt, arrayAt + length)), 88);
      }
      signGptHeader(header);
    }
  }
}

function contentOf({ table, records, bytes: any }: PartitionsInput): Buffer {
  if (table === 'bytes') return Buffer.from(any);
  if (table !== 'records') return Buffer.from(TABLES[table]);
  const content = Buffer.alloc(SIZE);
  records.forEach((entries, sector) => putRecord(content, sector * 512, entries));
  return content;
}

const small = fc.oneof(fc.nat({ max: 40 }), fc.constantFrom(511, 512, 0xffffffff));
const entry = fc.record({
  index: fc.nat({ max: 3 }),
  type: fc.constantFrom(0x83, 0x05, 0x0f, 0x85, 0xee, 0),
  start: small,
  count: small,
});
const kinds: fc.Arbitrary<Pick<PartitionsInput, 'table' | 'records' | 'bytes'>> = fc.oneof(
  {
    arbitrary: fc
      .constantFrom('gpt-512' as const, 'gpt-4096' as const, 'mbr' as const)
      .map((table) => ({ table, records: [], bytes: Buffer.alloc(0) })),
    weight: 8,
  },
  {
    arbitrary: fc
      .array(fc.array(entry, { maxLength: 4 }), { minLength: 41, maxLength: 41 })
      .map((records) => ({ table: 'records' as const, records, bytes: Buffer.alloc(0) })),
    weight: 1,
  },
  {
    arbitrary: fc.tuple(bytes(2048), fc.boolean()).map(([any, signature]) => {
      if (signature && any.length >= 512) any.writeUInt16LE(0xaa55, 510);
      return { table: 'bytes' as const, records: [], bytes: any };
    }),
    weight: 1,
  },
);

export const partitionsTarget: Target<PartitionsInput> = {
  name: 'partitions',
  inputs: fc
    .record({
      kind: kinds,
      edits: fc.array(edit, { maxLength: 6 }),
      signed: fc.boolean(),
      minimum: fc.constantFrom(1, 1, 512, 4096),
      sectorSize: fc.constantFrom(0 as const, 512 as const, 4096 as const),
    })
    .map(({ kind, ...rest }) => ({ ...kind, ...rest })),
  // Each change is a claim of its own.
  frames: ({ edits, records }) => 1 + edits.length + records.length,

  async run(input) {
    const content = apply(contentOf(input), input.edits);
    if (input.signed && content.length === SIZE) sign(content);
    const { minimum, sectorSize } = input;
    const disk = diskOf(content, { limits: { minimum, preferred: 4096, maximum: 65536 } });
    const table = await readPartitions(disk, {
      sectorSize: sectorSize === 0 ? undefined : sectorSize,
    });
    if (minimum === 1) check(table, disk);
  },
};
