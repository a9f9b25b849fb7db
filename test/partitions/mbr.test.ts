import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errno } from '../../src/errno.js';
import { readPartitions } from '../../src/partitions/read.js';
import type { PartitionTable } from '../../src/partitions/table.js';
import { diskOf, putRecord } from '../support/partition-tables.js';
import type { MbrEntry } from '../support/partition-tables.js';

const SIZE = 1024 * 1024;
const SECTORS = SIZE / 512;
const LIMITS = { minimum: 1, preferred: 4096, maximum: 1024 * 1024 };

/** Number, offset and size in sectors of 512 bytes. */
function rows(table: PartitionTable): number[][] {
  return table.partitions.map(({ number, offset, size }) => [
    number,
    Number(offset) / 512,
    Number(size) / 512,
  ]);
}

function mbr(...entries: MbrEntry[]): Buffer {
  const content = Buffer.alloc(SIZE);
  putRecord(content, 0, entries);
  return content;
}

const EXTENDED: MbrEntry = { index: 1, type: 0x05, start: 200, count: 800 };

describe('an MBR', () => {
  it('has up to four partitions, with the numbers of their places', async () => {
    const content = mbr(
      { index: 0, type: 0x83, start: 300, count: 10, active: 0x80 },
      { index: 2, type: 0x0c, start: 100, count: 20 },
      { index: 3, type: 0, start: 50, count: 1 },
    );
    assert.deepEqual(await readPartitions(diskOf(content)), {
      scheme: 'mbr',
      sectorSize: 512,
      partitions: [
        { number: 1, offset: 153600n, size: 5120n, type: '0x83', name: '' },
        { number: 3, offset: 51200n, size: 10240n, type: '0x0c', name: '' },
        { number: 4, offset: 25600n, size: 512n, type: '0x00', name: '' },
      ],
      extended: [],
      problems: [],
      watched: [{ offset: 0n, length: 512n }],
      complete: true,
    });
  });

  it('has logical partitions in the order of their chain, and not the extended one', async () => {
    const content = mbr({ index: 0, type: 0x83, start: 100, count: 50 }, EXTENDED);
    // The chain goes forth and back; the middle record has lost its partition.
    putRecord(content, 200 * 512, [
      { index: 0, type: 0x83, start: 10, count: 90 },
      { index: 1, type: 0x05, start: 500, count: 100 },
    ]);
    putRecord(content, 700 * 512, [{ index: 1, type: 0x0f, start: 300, count: 100 }]);
    putRecord(content, 500 * 512, [{ index: 0, type: 0x82, start: 1, count: 20 }]);
    const table = await readPartitions(diskOf(content));
    assert.deepEqual(rows(table), [
      [1, 100, 50],
      [5, 210, 90],
      [6, 501, 20],
    ]);
    assert.deepEqual(table.extended, [2]);
    assert.deepEqual(table.problems, []);
    assert.deepEqual(
      table.watched.map(({ offset }) => Number(offset) / 512),
      [0, 200, 500, 700],
    );
  });

  it('is without logical partitions before the first was made', async () => {
    const table = await readPartitions(diskOf(mbr(EXTENDED)));
    assert.deepEqual([table.partitions, table.problems], [[], []]);
    // Where it is going to be written.
    assert.equal(table.watched[1]?.offset, 200n * 512n);
  });

  it('believes the last two entries of a record only where they can be', async () => {
    const content = mbr(EXTENDED);
    putRecord(content, 200 * 512, [
      { index: 0, type: 0x83, start: 10, count: 10 },
      { index: 2, type: 0x83, start: 50, count: 10 },
      { index: 3, type: 0x83, start: 700, count: 101 },
    ]);
    assert.deepEqual(rows(await readPartitions(diskOf(content))), [
      [5, 210, 10],
      [6, 250, 10],
    ]);
  });

  it('is cut at the end of the disk', async () => {
    const content = mbr(
      { index: 0, type: 0x83, start: SECTORS - 1, count: 1 },
      { index: 1, type: 0x83, start: SECTORS - 1, count: 2 },
      { index: 2, type: 0x83, start: SECTORS, count: 1 },
      { index: 3, type: 0x83, start: 0xffffffff, count: 0xffffffff },
    );
    const table = await readPartitions(diskOf(content));
    assert.deepEqual(rows(table), [
      [1, SECTORS - 1, 1],
      [2, SECTORS - 1, 1],
    ]);
    assert.deepEqual(table.problems, [
      'partitions 3, 4: behind the end of the disk, left out',
      'partition 2: longer than the disk, cut off at its end',
    ]);
  });

  it('keeps the numbers of the logical partitions behind one that is left out', async () => {
    const content = mbr(EXTENDED);
    putRecord(content, 200 * 512, [
      { index: 0, type: 0x83, start: SECTORS, count: 1 },
      { index: 1, type: 0x05, start: 100, count: 100 },
    ]);
    putRecord(content, 300 * 512, [{ index: 0, type: 0x83, start: 1, count: 5 }]);
    assert.deepEqual(rows(await readPartitions(diskOf(content))), [[6, 301, 5]]);
  });

  it('has chains that end: in a circle', async () => {
    const content = mbr(EXTENDED);
    putRecord(content, 200 * 512, [
      { index: 0, type: 0x83, start: 1, count: 5 },
      { index: 1, type: 0x05, start: 100, count: 100 },
    ]);
    putRecord(content, 300 * 512, [
      { index: 0, type: 0x83, start: 1, count: 5 },
      { index: 1, type: 0x05, start: 100, count: 100 },
    ]);
    const table = await readPartitions(diskOf(content));
    assert.deepEqual(rows(table), [
      [5, 201, 5],
      [6, 301, 5],
    ]);
    assert.deepEqual(table.problems, [
      'the logical partitions from 7 on are not shown: the records go round in a circle',
    ]);
  });

  it('has chains that end: behind the disk, and where it cannot be read', async () => {
    const content = mbr(EXTENDED);
    putRecord(content, 200 * 512, [{ index: 1, type: 0x05, start: 0xfffffff0, count: 100 }]);
    const table = await readPartitions(diskOf(content));
    assert.match(table.problems[0] ?? '', /from 5 on are not shown.*behind the end/);

    const disk = diskOf(content);
    const read = disk.read.bind(disk);
    disk.read = (offset, length, reply) => {
      if (offset > 0n) reply.fail(errno.EIO);
      else read(offset, length, reply);
    };
    const unread = await readPartitions(disk);
    assert.match(unread.problems[0] ?? '', /cannot be read, at byte 102400: i\/o error/);
    assert.ok(table.complete && !unread.complete);
  });

  it('has chains that end: after many', async () => {
    const full = mbr({ ...EXTENDED, count: 1800 });
    for (let sector = 200; sector < 1800; sector += 2) {
      putRecord(full, sector * 512, [
        { index: 0, type: 0x83, start: 1, count: 1 },
        { index: 1, type: 0x05, start: sector + 2 - 200, count: 2 },
      ]);
    }
    const table = await readPartitions(diskOf(full));
    assert.equal(table.partitions.length, 251);
    assert.equal(table.partitions.at(-1)?.number, 255);
    assert.match(table.problems[0] ?? '', /more than 255/);

    const empty = mbr({ ...EXTENDED, count: 1800 });
    for (let sector = 200; sector < 1800; sector++) {
      putRecord(empty, sector * 512, [{ index: 1, type: 5, start: sector + 1 - 200, count: 2 }]);
    }
    const disk = diskOf(empty);
    assert.match((await readPartitions(disk)).problems[0] ?? '', /more than 512 records/);
    assert.equal(disk.log.length, 513);
  });

  it('that is empty is a table all the same', async () => {
    const table = await readPartitions(diskOf(mbr()));
    assert.deepEqual([table.scheme, table.partitions], ['mbr', []]);
  });

  it('that cannot be read is an error', async () => {
    const disk = diskOf(mbr());
    disk.failNext.set('read', errno.EIO);
    await assert.rejects(readPartitions(disk), {
      name: 'PartitionTableError',
      message: 'the partition table cannot be read, at byte 0: i/o error',
    });
  });

  describe('is none', () => {
    /** A boot sector of FAT as mkfs.vfat makes it, of NTFS with its program over the entries. */
    function boot(name: string, ...entries: MbrEntry[]): Buffer {
      const content = mbr(...entries);
      content.write('eb3c90', 'hex');
      content.write(name, 3, 'latin1');
      content.write('00020401000200020008f8', 11, 'hex');
      return content;
    }
    const PARTITION: MbrEntry = { index: 0, type: 0x83, start: 100, count: 10 };

    it('on a disk that is empty, or too small', async () => {
      for (const content of [
        Buffer.alloc(SIZE),
        mbr(PARTITION).subarray(0, 511),
        Buffer.alloc(0),
      ]) {
        const table = await readPartitions(diskOf(content));
        assert.deepEqual([table.scheme, table.problems], ['none', []]);
      }
    });

    it('without its signature', async () => {
      const content = mbr(PARTITION);
      content[511] = 0;
      assert.equal((await readPartitions(diskOf(content))).scheme, 'none');
    });

    it('where a program is in its place', async () => {
      const content = mbr(PARTITION, { index: 2, type: 0x74, start: 7, count: 9, active: 0x65 });
      assert.equal((await readPartitions(diskOf(content))).scheme, 'none');
    });

    for (const name of ['mkfs.fat', 'NTFS    ', 'EXFAT   ']) {
      it(`in the boot sector of a file system: ${name.trim()}`, async () => {
        assert.equal((await readPartitions(diskOf(boot(name)))).scheme, 'none');
        const program = boot(name, { ...PARTITION, start: 0x20612073, count: 0x6b736964 });
        assert.equal((await readPartitions(diskOf(program))).scheme, 'none');
        const overlapping = boot(name, PARTITION, { ...PARTITION, index: 1, start: 105 });
        assert.equal((await readPartitions(diskOf(overlapping))).scheme, 'none');
        // Some boot loaders put both into one sector.
        const both = boot(name, PARTITION);
        assert.deepEqual(rows(await readPartitions(diskOf(both))), [[1, 100, 10]]);
      });
    }

    it('where the only entry says that there is a GPT', async () => {
      const content = mbr({ index: 0, type: 0xee, start: 1, count: 2047 });
      const table = await readPartitions(diskOf(content));
      assert.equal(table.scheme, 'none');
      assert.match(
        table.problems[0] ?? '',
        /^the GPT cannot be used: at the start of the disk there is none/,
      );
    });
  });

  describe('counts in sectors', () => {
    const content = mbr(
      { index: 0, type: 0x83, start: 64, count: 64 },
      { ...EXTENDED, start: 128, count: 64 },
    );
    putRecord(content, 128 * 4096, [{ index: 0, type: 0x83, start: 2, count: 4 }]);
    const LARGE = [
      [1, 512, 512],
      [5, 1040, 32],
    ];

    it('of 512 bytes', async () => {
      assert.deepEqual(rows(await readPartitions(diskOf(content))), [[1, 64, 64]]);
      const limits = { ...LIMITS, minimum: 512 };
      assert.deepEqual(rows(await readPartitions(diskOf(content, { limits }))), [[1, 64, 64]]);
    });

    it('of 4096 where the server takes no less', async () => {
      const limits = { ...LIMITS, minimum: 4096 };
      const table = await readPartitions(diskOf(content, { limits }));
      assert.deepEqual(rows(table), LARGE);
      assert.equal(table.sectorSize, 4096);
      assert.deepEqual(rows(await readPartitions(diskOf(content), { minimumBlock: 4096 })), LARGE);
    });

    it('of 512 where the partitions would not be on the disk otherwise', async () => {
      const image = mbr({ index: 0, type: 0x83, start: 64, count: SECTORS - 64 });
      const limits = { ...LIMITS, minimum: 4096 };
      const table = await readPartitions(diskOf(image, { limits }));
      assert.deepEqual(rows(table), [[1, 64, SECTORS - 64]]);
    });

    it('as the user says', async () => {
      assert.deepEqual(rows(await readPartitions(diskOf(content), { sectorSize: 4096 })), LARGE);
      const limits = { ...LIMITS, minimum: 4096 };
      const table = await readPartitions(diskOf(content, { limits }), { sectorSize: 512 });
      assert.deepEqual(rows(table), [[1, 64, 64]]);
    });
  });
});
