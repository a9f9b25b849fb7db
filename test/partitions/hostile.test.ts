/** Tables that somebody has tampered with: whatever they say, what is read and what is found is bounded. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { readPartitions } from '../../src/partitions/read.js';
import type { PartitionTable } from '../../src/partitions/table.js';
import type { MemoryDisk } from '../support/memory-disk.js';
import { diskOf, putGpt, putRecord, signGptHeader } from '../support/partition-tables.js';

const SIZE = 256 * 1024;
const RUNS = { numRuns: 1500 };

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
  let bytes = 0;
  for (const line of disk.log) {
    const [, offset = '', length = ''] = /^read (\d+)\+(\d+)$/.exec(line) ?? assert.fail(line);
    bytes += Number(length);
    const [from, to] = [BigInt(offset), BigInt(offset) + BigInt(length)];
    assert.ok(
      table.watched.some((range) => range.offset <= from && to <= range.offset + range.length),
      'what was read is watched',
    );
  }
  assert.ok(bytes <= 5 * 1024 * 1024);
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
const edit = fc.record({
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

function apply(content: Buffer, edits: readonly { at: number; value: Uint8Array }[]): Buffer {
  for (const { at, value } of edits) {
    content.set(value.subarray(0, content.length - at), at);
  }
  return content;
}

/** As somebody who knows how: headers that claim anything, with the right checksums. */
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

describe('a table that was tampered with', () => {
  const tables: readonly [string, () => Buffer][] = [
    ['a GPT', () => gptOf(512)],
    ['a GPT in sectors of 4096', () => gptOf(4096)],
    ['an MBR', mbr],
  ];
  for (const [name, make] of tables) {
    for (const signed of [false, true]) {
      it(`${name}${signed ? ', with the right checksums' : ''}`, async () => {
        const one = fc.asyncProperty(
          fc.array(edit, { maxLength: 6 }),
          fc.constantFrom(1, 512, 4096),
          fc.constantFrom(undefined, 512 as const, 4096 as const),
          async (edits, minimum, sectorSize) => {
            const content = apply(make(), edits);
            if (signed) sign(content);
            const disk = diskOf(content, {
              limits: { minimum, preferred: 4096, maximum: 65536 },
            });
            if (minimum === 1) {
              check(await readPartitions(disk, { sectorSize }), disk);
            } else {
              await readPartitions(disk, { sectorSize });
            }
          },
        );
        await fc.assert(one, RUNS);
      });
    }
  }

  it('may be any record and any chain', async () => {
    const entry = fc.record({
      index: fc.integer({ min: 0, max: 3 }),
      type: fc.constantFrom(0x83, 0x05, 0x0f, 0x85, 0xee, 0),
      start: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.constantFrom(511, 512, 0xffffffff)),
      count: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.constantFrom(511, 512, 0xffffffff)),
    });
    const records = fc.array(fc.array(entry, { maxLength: 4 }), { minLength: 41, maxLength: 41 });
    const one = fc.asyncProperty(records, async (all) => {
      const content = Buffer.alloc(SIZE);
      all.forEach((entries, sector) => putRecord(content, sector * 512, entries));
      const disk = diskOf(content);
      check(await readPartitions(disk), disk);
    });
    await fc.assert(one, { numRuns: 500 });
  });

  it('may be any bytes at all', async () => {
    const one = fc.asyncProperty(
      fc.uint8Array({ minLength: 0, maxLength: 2048, size: 'max' }),
      fc.boolean(),
      async (bytes, signature) => {
        const content = Buffer.from(bytes);
        if (signature && content.length >= 512) content.writeUInt16LE(0xaa55, 510);
        const disk = diskOf(content);
        check(await readPartitions(disk), disk);
      },
    );
    await fc.assert(one, { numRuns: 500 });
  });
});

describe('what is watched', () => {
  it('is all that the table depends on', async () => {
    const change = fc.record({
      at: fc.integer({ min: 0, max: SIZE - 8 }),
      value: fc.uint8Array({ minLength: 1, maxLength: 8 }),
    });
    const one = fc.asyncProperty(
      fc.constantFrom(gptOf(512), gptOf(4096), mbr()),
      fc.array(edit, { maxLength: 2 }),
      fc.array(fc.oneof(edit, change), { minLength: 1, maxLength: 20 }),
      async (made, damage, later) => {
        const content = apply(Buffer.from(made), damage);
        const table = await readPartitions(diskOf(content));
        const elsewhere = later.filter(({ at, value }) =>
          table.watched.every(
            ({ offset, length }) =>
              offset + length <= BigInt(at) || BigInt(at + value.length) <= offset,
          ),
        );
        assert.deepEqual(await readPartitions(diskOf(apply(content, elsewhere))), table);
      },
    );
    await fc.assert(one, { numRuns: 500 });
  });
});
