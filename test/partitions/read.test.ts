import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { PartError, partOf } from '../../src/partitions/part.js';
import { readPartitions } from '../../src/partitions/read.js';
import { MemoryDisk } from '../support/memory-disk.js';
import { putGpt, putMbr } from '../support/partition-tables.js';
import type { MbrEntry } from '../support/partition-tables.js';
import { findProgram, requires } from '../support/requires.js';

const MIB = 1024 * 1024;
const SIZE = 8 * MIB;

/** As `[number, offset, size]`. */
async function read(disk: MemoryDisk, sectorSize?: number): Promise<[number, number, number][]> {
  const { partitions } = await readPartitions(disk, sectorSize);
  return partitions.map(({ number, offset, size }) => [number, Number(offset), Number(size)]);
}

const scheme = async (disk: MemoryDisk): Promise<string> => (await readPartitions(disk)).scheme;

describe('a GPT', () => {
  const ENTRIES = new Map([
    [1, { first: 40n, last: 99n }],
    [7, { first: 1000n, last: 1000n }],
    [128, { first: 100n, last: 199n }],
  ]);
  const make = (options: Parameters<typeof putGpt>[2] = {}): MemoryDisk => {
    const disk = new MemoryDisk({ size: SIZE });
    putGpt(disk.content, ENTRIES, options);
    return disk;
  };
  const expected = (sector: number): number[][] => [
    [1, 40 * sector, 60 * sector],
    [7, 1000 * sector, sector],
    [128, 100 * sector, 100 * sector],
  ];

  for (const sectorSize of [512, 4096]) {
    it(`is read with sectors of ${sectorSize} bytes`, async () => {
      const disk = make({ sectorSize });
      assert.deepEqual(await read(disk), expected(sectorSize));
      const table = await readPartitions(disk);
      assert.deepEqual([table.scheme, table.sectorSize], ['gpt', sectorSize]);
    });

    it(`is read from its backup, with sectors of ${sectorSize} bytes`, async () => {
      for (const damaged of [sectorSize, sectorSize + 91, 2 * sectorSize, 2 * sectorSize + 16000]) {
        const disk = make({ sectorSize });
        disk.content.writeUInt8(disk.content.readUInt8(damaged) ^ 1, damaged);
        assert.deepEqual(await read(disk), expected(sectorSize), `byte ${damaged}`);
      }
    });
  }

  it('is not there when both copies are damaged, nor are partitions of its protective MBR', async () => {
    const disk = make();
    disk.content.fill(0, 512, 1024);
    disk.content.fill(0, SIZE - 512);
    assert.equal(await scheme(disk), 'none');
  });

  it('does not count under an MBR that was made after it', async () => {
    const disk = make();
    disk.content.fill(0, 446, 510);
    putMbr(disk.content, 0, [{ type: 0x83, start: 2048, count: 100 }]);
    assert.deepEqual(await read(disk), [[1, 2048 * 512, 51200]]);
    assert.equal(await scheme(disk), 'mbr');
  });

  it('may have longer entries, and fewer of them', async () => {
    assert.deepEqual(await read(make({ entryBytes: 256 })), expected(512));
  });

  it('is refused with entries of an odd size, or too many of them', async () => {
    for (const options of [{ entryBytes: 136 }, { entryBytes: 8192 }, { count: 1025 }]) {
      assert.equal(await scheme(make(options)), 'none');
    }
  });

  it('has no partitions that are not on the disk', async () => {
    const disk = new MemoryDisk({ size: SIZE });
    const sectors = BigInt(SIZE / 512);
    putGpt(
      disk.content,
      new Map([
        [1, { first: 100n, last: 99n }],
        [2, { first: 100n, last: sectors }],
        [3, { first: 2n ** 63n, last: 2n ** 63n + 5n }],
        [4, { first: 100n, last: sectors - 1n }],
      ]),
    );
    assert.deepEqual(await read(disk), [[4, 51200, SIZE - 51200]]);
  });

  it('tells what may change it', async () => {
    const { watched } = await readPartitions(make());
    const touched = (offset: bigint): boolean =>
      watched.some((range) => offset >= range.offset && offset < range.offset + range.length);
    for (const offset of [0n, 511n, 512n, 1024n, 1024n + 128n * 128n - 1n]) {
      assert.ok(touched(offset), String(offset));
    }
    assert.ok(!touched(BigInt(MIB)));
  });
});

describe('an MBR', () => {
  const make = (entries: readonly MbrEntry[], size = SIZE): MemoryDisk => {
    const disk = new MemoryDisk({ size });
    putMbr(disk.content, 0, entries);
    return disk;
  };

  it('has up to four partitions', async () => {
    const disk = make([
      { type: 0x83, start: 1, count: 10 },
      { type: 0, start: 0, count: 0 },
      { type: 0x07, start: 100, count: 1, boot: 0x80 },
      { type: 0xc, start: 200, count: 300 },
    ]);
    assert.deepEqual(await read(disk), [
      [1, 512, 5120],
      [3, 51200, 512],
      [4, 102400, 153600],
    ]);
  });

  it('counts in the sectors that it is told', async () => {
    const disk = make([{ type: 0x83, start: 2, count: 10 }]);
    assert.deepEqual(await read(disk, 4096), [[1, 8192, 40960]]);
  });

  it('has logical partitions, from 5 on', async () => {
    const disk = make([
      { type: 0x83, start: 1, count: 9 },
      { type: 0x05, start: 100, count: 1000 },
    ]);
    putMbr(disk.content, 100 * 512, [
      { type: 0x83, start: 2, count: 50 },
      { type: 0x05, start: 200, count: 100 },
    ]);
    putMbr(disk.content, 300 * 512, [
      { type: 0x82, start: 1, count: 20 },
      { type: 0x0f, start: 500, count: 100 },
    ]);
    putMbr(disk.content, 600 * 512, [{ type: 0x83, start: 3, count: 30 }]);
    assert.deepEqual(await read(disk), [
      [1, 512, 9 * 512],
      [5, 102 * 512, 50 * 512],
      [6, 301 * 512, 20 * 512],
      [7, 603 * 512, 30 * 512],
    ]);
  });

  it('ends where the chain leads in a circle, out of the disk, or to no table', async () => {
    for (const next of [0, 200, 0xffffffff, 900, SIZE / 512]) {
      const disk = make([{ type: 0x0f, start: 100, count: 0xffffffff }]);
      putMbr(disk.content, 100 * 512, [
        { type: 0x83, start: 2, count: 50 },
        { type: 0x05, start: 200, count: 100 },
      ]);
      putMbr(disk.content, 300 * 512, [
        { type: 0x83, start: 2, count: 50 },
        { type: 0x05, start: next, count: 100 },
      ]);
      assert.deepEqual(
        (await read(disk)).map(([number]) => number),
        [5, 6],
        `next ${next}`,
      );
    }
  });

  it('has a hundred logical partitions at the most', async () => {
    const disk = make([{ type: 0x05, start: 1, count: 10_000 }]);
    for (let i = 0; i < 200; i++) {
      putMbr(disk.content, (1 + 10 * i) * 512, [
        { type: 0x83, start: 1, count: 1 },
        { type: 0x05, start: 10 * (i + 1), count: 10 },
      ]);
    }
    assert.equal((await read(disk)).length, 100);
  });

  it('is cut at the end of the disk, and has nothing behind it', async () => {
    const disk = make([
      { type: 0x83, start: SIZE / 512 - 1, count: 2 },
      { type: 0x83, start: SIZE / 512, count: 1 },
      { type: 0x83, start: 0xffffffff, count: 0xffffffff },
    ]);
    assert.deepEqual(await read(disk), [[1, SIZE - 512, 512]]);
  });

  it('is not the boot sector of a file system', async () => {
    const disk = make([]);
    disk.content.fill('Not a bootable disk', 446, 500);
    assert.equal(await scheme(disk), 'none');
  });

  it('needs its signature', async () => {
    const disk = make([{ type: 0x83, start: 1, count: 1 }]);
    disk.content.writeUInt8(0, 511);
    assert.equal(await scheme(disk), 'none');
  });
});

describe('a disk without a table', () => {
  for (const size of [1, 511, 512, 513, 1024, 4096, 8192, MIB]) {
    it(`of ${size} bytes has no partitions`, async () => {
      const table = await readPartitions(new MemoryDisk({ size }));
      assert.deepEqual([table.scheme, table.partitions], ['none', []]);
      assert.ok(table.watched.some(({ offset, length }) => offset === 0n && length >= 8192n));
    });
  }

  it('that cannot be read is an error', async () => {
    const disk = new MemoryDisk({ size: MIB });
    disk.failNext.set('read', 5);
    await assert.rejects(readPartitions(disk), { code: 'EIO' });
  });
});

describe('any table', () => {
  const tables: readonly ((content: Buffer) => void)[] = [
    (content) => putGpt(content, new Map([[1, { first: 40n, last: 99n }]])),
    (content) => putGpt(content, new Map([[1, { first: 40n, last: 99n }]]), { sectorSize: 4096 }),
    (content) => {
      putMbr(content, 0, [{ type: 0x05, start: 10, count: 1000 }]);
      for (let i = 0; i < 10; i++) {
        putMbr(content, (10 + 20 * i) * 512, [
          { type: 0x83, start: 1, count: 5 },
          { type: 0x05, start: 20 * (i + 1), count: 20 },
        ]);
      }
    },
  ];

  it('is read within bounds, and its partitions are on the disk', () =>
    fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...tables),
        fc.array(
          fc.tuple(
            fc.oneof(fc.nat(1024), fc.nat(20_000), fc.nat(2 * MIB - 1)),
            fc.oneof(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff, 5, 0xee), fc.nat(255)),
          ),
          { maxLength: 12 },
        ),
        async (put, changes) => {
          const disk = new MemoryDisk({ size: 2 * MIB });
          put(disk.content);
          for (const [at, value] of changes) disk.content.writeUInt8(value, at);
          const { partitions } = await readPartitions(disk);
          assert.ok(disk.log.length < 120, `${disk.log.length} reads`);
          for (const { number, offset, size } of partitions) {
            assert.ok(number >= 1 && offset >= 0n && size > 0n);
            assert.ok(offset + size <= BigInt(2 * MIB));
          }
          const numbers = partitions.map(({ number }) => number);
          assert.deepEqual(
            numbers,
            [...new Set(numbers)].toSorted((a, b) => a - b),
          );
        },
      ),
      { numRuns: 1500 },
    ));
});

describe('tables that sfdisk makes', requires({ programs: ['sfdisk'] }), () => {
  const SCRIPTS = {
    gpt: 'label: gpt\n2048,1000\n4096,2000\nx7 : start=8192, size=100\n',
    dos: 'label: dos\n2048,100,L,*\n4096,8192,E\n4100,100\n5000,100\n6000,\n20000,10\n',
  } as const;

  for (const [label, script] of Object.entries(SCRIPTS)) {
    it(`are read as it reads them: ${label}`, async () => {
      const folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
      try {
        const image = join(folder, 'image');
        await writeFile(image, '');
        await truncate(image, 16 * MIB);
        const sfdisk = findProgram('sfdisk') ?? 'sfdisk';
        const made = spawnSync(sfdisk, ['--no-tell-kernel', image], { input: script });
        assert.equal(made.status, 0, made.stderr.toString());
        const told = spawnSync(sfdisk, ['-J', image]).stdout.toString();
        const { partitiontable } = JSON.parse(told) as {
          partitiontable: {
            partitions: { node: string; start: number; size: number; type: string }[];
          };
        };
        const expected = partitiontable.partitions
          .filter(({ type }) => type !== '5' && type !== 'f')
          .map(({ node, start, size }) => [
            Number(node.slice(image.length)),
            start * 512,
            size * 512,
          ]);
        assert.ok(expected.length >= 3);
        const content = await readFile(image);
        const disk = new MemoryDisk({ size: content.length });
        content.copy(disk.content);
        assert.deepEqual(await read(disk), expected);
      } finally {
        await rm(folder, { recursive: true });
      }
    });
  }
});

describe('a part of a disk', () => {
  const make = (): MemoryDisk => {
    const disk = new MemoryDisk({ size: SIZE });
    putMbr(disk.content, 0, [
      { type: 0x83, start: 2, count: 10 },
      { type: 0x83, start: 100, count: 10 },
    ]);
    return disk;
  };
  const fails = (disk: MemoryDisk, part: Parameters<typeof partOf>[1], message: RegExp) =>
    assert.rejects(partOf(disk, part), (error) => {
      assert.ok(error instanceof PartError, String(error));
      assert.match(error.message, message);
      assert.ok(!error.message.includes('\n'));
      return true;
    });

  it('is a partition', async () => {
    const disk = make();
    disk.content.write('here', 100 * 512);
    const part = await partOf(disk, { kind: 'partition', number: 2 });
    assert.equal(part.info.size, 5120n);
  });

  it('is not a partition that does not exist', async () => {
    await fails(make(), { kind: 'partition', number: 7 }, /no partition 7: the disk has 1, 2$/);
    await fails(
      new MemoryDisk({ size: SIZE }),
      { kind: 'partition', number: 1 },
      /no partition 1: the disk has no partition table$/,
    );
    const empty = new MemoryDisk({ size: SIZE });
    putMbr(empty.content, 0, []);
    await fails(
      empty,
      { kind: 'partition', number: 1 },
      /the partition table of the disk is empty$/,
    );
  });

  it('is a range', async () => {
    const whole = { kind: 'range', offset: 100n, size: undefined } as const;
    assert.equal((await partOf(make(), whole)).info.size, BigInt(SIZE) - 100n);
    const one = { kind: 'range', offset: BigInt(SIZE) - 1n, size: 1n } as const;
    assert.equal((await partOf(make(), one)).info.size, 1n);
  });

  it('is not a range that is not on the disk', async () => {
    const range = (offset: bigint, size?: bigint) => ({ kind: 'range', offset, size }) as const;
    const size = BigInt(SIZE);
    await fails(make(), range(size), /the offset 8388608 is not on the disk; the disk has 8388608/);
    await fails(make(), range(0n, size + 1n), /reach past the end of the disk; the disk has/);
    await fails(make(), range(2n ** 63n), /is not on the disk/);
    await fails(make(), range(0n, 0n), /no bytes/);
  });
});
