/** Tables that the usual tools make, read by us and by libblkid, which partx asks. */

import assert from 'node:assert/strict';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { readPartitions } from '../../src/partitions/read.js';
import type { ReadOptions } from '../../src/partitions/read.js';
import type { PartitionTable } from '../../src/partitions/table.js';
import { Workplace } from '../support/mounts.js';
import { diskOf } from '../support/partition-tables.js';
import { requires } from '../support/requires.js';

const SIZE = 16 * 1024 * 1024;
const SECTOR = 512n;
/** The extended ones, which libblkid lists. */
const CONTAINERS = ['0x5', '0xf', '0x85'];

describe('partition tables', () => {
  let place: Workplace;
  let image: string;
  beforeEach(async () => {
    place = await Workplace.create();
    image = await place.file('disk.raw');
    await truncate(image, SIZE);
  });
  afterEach(async () => {
    await place.nothingLeft();
    await place.remove();
  });

  async function read(options: ReadOptions = {}): Promise<PartitionTable> {
    return readPartitions(diskOf(await readFile(image)), options);
  }

  /** Compares with what libblkid sees. @returns the numbers of the partitions */
  async function sameAsPartx(table: PartitionTable): Promise<number[]> {
    const size = table.sectorSize.toString();
    const options = ['--show', '-g', '-S', size, '-o', 'NR,START,SECTORS,TYPE'];
    const listed = await place.ok('partx', [...options, image]);
    const rows = listed
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter(([, , , type = '']) => !CONTAINERS.includes(type))
      .map((columns) => columns.slice(0, 3).join(' '));
    assert.ok(rows.length > 0, listed);
    const found = table.partitions.map(
      (partition) =>
        `${partition.number} ${(partition.offset / SECTOR).toString()} ${(partition.size / SECTOR).toString()}`,
    );
    assert.deepEqual(found, rows);
    return table.partitions.map((partition) => partition.number);
  }

  describe('of sfdisk', requires({ programs: ['sfdisk', 'partx'] }), () => {
    it('with logical partitions', async () => {
      const script = [
        'label: dos',
        'start=2048, size=2048, type=83, bootable',
        'start=4096, size=24576, type=5',
        'start=6144, size=2048, type=83',
        'start=10240, size=1024, type=82',
        'start=14336, size=4096, type=7',
      ];
      await place.ok('sfdisk', ['-q', image], { input: `${script.join('\n')}\n` });
      const table = await read();
      assert.equal(table.scheme, 'mbr');
      assert.deepEqual(await sameAsPartx(table), [1, 5, 6, 7]);
      assert.deepEqual(table.extended, [2]);

      await place.ok('sfdisk', ['-q', '--delete', image, '6']);
      assert.deepEqual(await sameAsPartx(await read()), [1, 5, 6]);
    });

    it('with partitions that are out of order', async () => {
      const script = ['label: gpt', '3: start=4096, size=2048', '1: start=8192, name="first"'];
      await place.ok('sfdisk', ['-q', image], { input: `${script.join('\n')}\n` });
      const table = await read();
      assert.equal(table.scheme, 'gpt');
      assert.deepEqual(await sameAsPartx(table), [1, 3]);
      assert.equal(table.partitions[0]?.name, 'first');
    });

    it('on a disk that was cut short after', async () => {
      const script = ['label: dos', 'start=2048, size=2048', 'start=4096', ''];
      await place.ok('sfdisk', ['-q', image], { input: script.join('\n') });
      await truncate(image, SIZE / 2);
      const table = await read();
      assert.deepEqual(
        table.partitions.map(({ size }) => Number(size)),
        [1024 * 1024, SIZE / 2 - 2 * 1024 * 1024],
      );
      assert.deepEqual(table.problems, ['partition 2: longer than the disk, cut off at its end']);
    });
  });

  describe('of fdisk, in sectors of 4096 bytes', requires({ programs: ['fdisk', 'partx'] }), () => {
    async function fdisk(...commands: readonly string[]): Promise<void> {
      await place.ok('fdisk', ['-b', '4096', image], { input: `${commands.join('\n')}\n` });
    }

    it('a GPT', async () => {
      await fdisk('g', 'n', '1', '', '+4M', 'n', '9', '', '+1M', 'w');
      const table = await read();
      assert.equal(table.sectorSize, 4096);
      assert.deepEqual(await sameAsPartx(table), [1, 9]);
    });

    it('a GPT whose start is gone', async () => {
      await fdisk('g', 'n', '1', '', '+4M', 'n', '9', '', '+1M', 'w');
      const content = await readFile(image);
      content.fill(0, 4096, 5 * 4096);
      await writeFile(image, content);
      const table = await read();
      assert.equal(table.sectorSize, 4096);
      assert.deepEqual(await sameAsPartx(table), [1, 9]);
    });

    it('an MBR with logical partitions', async () => {
      const logical = ['n', '', '+1M', 'n', '', '+2M'];
      await fdisk('o', 'n', 'p', '1', '', '+4M', 'n', 'e', '2', '', '', ...logical, 'w');
      const table = await read({ minimumBlock: 4096 });
      assert.equal(table.sectorSize, 4096);
      assert.deepEqual(await sameAsPartx(table), [1, 5, 6]);
      assert.deepEqual(await read({ sectorSize: 4096 }), table);
    });
  });

  describe('of sgdisk', requires({ programs: ['sgdisk', 'partx'] }), () => {
    const make = ['-o', '-S', '256', '-n', '1:0:+4M', '-n', '200:0:+2M', '-n', '3:0:+1M'];

    it('with more entries than usual, whole and damaged', async () => {
      await place.ok('sgdisk', [...make, '-c', '200:two hundred', image]);
      const table = await read();
      assert.deepEqual(await sameAsPartx(table), [1, 3, 200]);
      assert.equal(table.partitions[2]?.name, 'two hundred');
      assert.deepEqual(table.problems, []);
      const content = await readFile(image);
      for (const damaged of [512, 512 + 24, 1024, 1024 + 199 * 128]) {
        const bad = Buffer.from(content);
        bad.writeUInt8(0xff ^ bad.readUInt8(damaged), damaged);
        await writeFile(image, bad);
        const saved = await read();
        assert.deepEqual(saved.partitions, table.partitions);
        assert.equal(saved.problems.length, 1);
        await sameAsPartx(saved);
      }
    });

    it('with a hybrid MBR', async () => {
      await place.ok('sgdisk', [...make, image]);
      await place.ok('sgdisk', ['-h', '1:3', image]);
      const table = await read();
      assert.equal(table.scheme, 'gpt');
      assert.deepEqual(await sameAsPartx(table), [1, 3, 200]);
    });

    it('that was zapped', async () => {
      await place.ok('sgdisk', [...make, image]);
      await place.ok('sgdisk', ['-Z', image]);
      const table = await read();
      assert.deepEqual([table.scheme, table.problems], ['none', []]);
    });
  });

  it('of parted', requires({ programs: ['parted', 'partx'] }), async () => {
    const parts = [
      ['primary', '1MiB', '3MiB'],
      ['extended', '4MiB', '15MiB'],
      ['logical', '5MiB', '6MiB'],
      ['logical', '7MiB', '9MiB'],
    ].flatMap((part) => ['mkpart', ...part]);
    await place.ok('parted', ['-s', image, 'mklabel', 'msdos', ...parts]);
    assert.deepEqual(await sameAsPartx(await read()), [1, 5, 6]);
    await place.ok('parted', ['-s', image, 'rm', '5']);
    assert.deepEqual(await sameAsPartx(await read()), [1, 5]);
  });

  it('are not there on a file system', requires({ programs: ['mkfs.vfat'] }), async () => {
    await place.ok('mkfs.vfat', [image]);
    const table = await read();
    assert.deepEqual([table.scheme, table.problems], ['none', []]);
  });
});
