import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { errno } from '../../src/errno.js';
import type { Mountpoint } from '../../src/fuse/mountpoint.js';
import { MountedFiles } from '../../src/fuse/mounted-files.js';
import type { FileNode } from '../../src/fuse/tree.js';
import { HEADROOM } from '../../src/disk/disk.js';
import { MemoryDisk } from '../support/memory-disk.js';
import { putRecord } from '../support/partition-tables.js';

const SIZE = 64 * 1024;
const PLACE: Mountpoint = {
  path: '/dir',
  name: 'disk',
  shown: 'dir',
  shownFile: 'dir/disk',
  hides: false,
};
const SECTOR = 512;

describe('partitions as files', () => {
  let disk: MemoryDisk;
  let files: MountedFiles;
  let invalidated: string[];
  /** How long the kernel takes for it. */
  let invalidating: Promise<void>;
  let warnings: string[];
  const open = new Set<string>();

  beforeEach(async () => {
    disk = new MemoryDisk({ size: SIZE });
    invalidated = [];
    invalidating = Promise.resolve();
    warnings = [];
    open.clear();
    putRecord(disk.content, 0, [
      { index: 0, type: 0x83, start: 2, count: 10 },
      { index: 1, type: 0x83, start: 20, count: 10 },
    ]);
    files = make('disk');
    await files.load();
  });

  const make = (name: string): MountedFiles =>
    new MountedFiles(
      disk,
      { ...PLACE, name },
      {
        uid: 1,
        gid: 2,
        permissions: 0o600,
        readOnly: false,
        trim: false,
        shared: false,
        forgetReadAhead: () => undefined,
        partitions: { minimumBlock: 512, warn: (line) => warnings.push(line) },
        writeFailed: () => undefined,
        isOpen: (node) => open.has(node.name),
        invalidate: (node, offset, length) => {
          invalidated.push(`${node.name} ${offset.toString()}+${length.toString()}`);
          return invalidating;
        },
      },
    );

  const names = (all = files): string[] =>
    all.tree
      .entries()
      .map(({ name }) => name)
      .filter((name) => !name.startsWith('.'));

  const node = (name: string): FileNode => {
    const found = files.tree.lookup(name);
    assert.ok(found !== undefined, name);
    return found;
  };

  /** @param through a file, or its name */
  const write = (through: string | FileNode, offset: number, data: Buffer, expected = 0): void => {
    const bytes = Buffer.concat([Buffer.alloc(HEADROOM), data]);
    let code = -1;
    const { file } = typeof through === 'string' ? node(through) : through;
    file.write(BigInt(offset), bytes, HEADROOM, data.length, false, {
      done: (result) => (code = result),
    });
    assert.equal(code, expected);
  };

  /** Writes another table, as a partitioning tool does through the file of the disk. */
  const rewrite = async (entries: Parameters<typeof putRecord>[2]): Promise<void> => {
    const sector = Buffer.alloc(SECTOR);
    putRecord(sector, 0, entries);
    write('disk', 0, sector);
    await files.synced();
  };

  it('are there from the start, each a part of the disk', () => {
    assert.deepEqual(names(), ['disk', 'disk1', 'disk2']);
    assert.equal(node('disk1').file.size, 5120n);
    write('disk1', 1, Buffer.from('one'));
    write('disk2', 0, Buffer.from('two'));
    assert.equal(disk.content.toString('latin1', 1025, 1028), 'one');
    assert.equal(disk.content.toString('latin1', 20 * SECTOR, 20 * SECTOR + 3), 'two');
  });

  it('have a p before their number behind a digit, as Linux has it', async () => {
    const other = make('nbd0');
    await other.load();
    assert.deepEqual(names(other), ['nbd0', 'nbd0p1', 'nbd0p2']);
  });

  it('follow the table, before the sync of its writer is answered', async () => {
    await rewrite([
      { index: 0, type: 0x83, start: 2, count: 10 },
      { index: 1, type: 0, start: 0, count: 0 },
      { index: 2, type: 0x83, start: 40, count: 5 },
    ]);
    assert.deepEqual(names(), ['disk', 'disk1', 'disk3']);
  });

  it('stay what they are where the table has not changed them', async () => {
    const [one, two] = [node('disk1'), node('disk2')];
    await rewrite([
      { index: 0, type: 0x0c, start: 2, count: 10 },
      { index: 1, type: 0x83, start: 21, count: 10 },
    ]);
    assert.equal(node('disk1'), one);
    assert.notEqual(node('disk2'), two);
    assert.equal(node('disk2').file.size, 5120n);
  });

  it('are not read again for what is no part of the table', () => {
    disk.log.length = 0;
    write('disk', 10_000, Buffer.alloc(100));
    assert.equal(files.synced(), undefined);
    write('disk2', 0, Buffer.alloc(100));
    void files.synced();
    assert.ok(!disk.log.some((entry) => entry.startsWith('read')), disk.log.join());
  });

  it('stay when the table cannot be read, and follow it as soon as it can', async () => {
    write('disk', 0, Buffer.alloc(SECTOR));
    disk.failNext.set('read', errno.EIO);
    await files.synced();
    assert.deepEqual(names(), ['disk', 'disk1', 'disk2']);
    await files.synced();
    assert.deepEqual(names(), ['disk']);
    assert.equal(files.synced(), undefined, 'and it is read no more');
  });

  it('are there as soon as the table can be read', async () => {
    const other = make('late');
    disk.failNext.set('read', errno.EIO);
    await other.load();
    assert.deepEqual(names(other), ['late']);
    await other.synced();
    assert.deepEqual(names(other), ['late', 'late1', 'late2']);
  });

  it('stay when a part of the table cannot be read in which they are', async () => {
    putRecord(disk.content, 60 * SECTOR, [{ index: 0, type: 0x83, start: 1, count: 5 }]);
    const table = [
      { index: 0, type: 0x83, start: 2, count: 10 },
      { index: 3, type: 0x05, start: 60, count: 20 },
    ];
    await rewrite(table);
    assert.deepEqual(names(), ['disk', 'disk1', 'disk5']);
    const logical = node('disk5');
    const read = disk.read.bind(disk);
    disk.read = (offset, length, reply) => {
      if (offset === BigInt(60 * SECTOR)) reply.fail(errno.EIO);
      else read(offset, length, reply);
    };
    await rewrite(table.map((entry) => ({ ...entry, type: entry.index === 0 ? 0x0c : 0x05 })));
    assert.equal(node('disk5'), logical);
    disk.read = read;
    disk.content.fill(0, 60 * SECTOR, 61 * SECTOR);
    await files.synced();
    assert.deepEqual(names(), ['disk', 'disk1']);
  });

  it('see a table that was written while it was read', async () => {
    const sector = Buffer.alloc(SECTOR);
    write('disk', 0, sector);
    const first = files.synced();
    putRecord(sector, 0, [{ index: 0, type: 0x83, start: 50, count: 1 }]);
    write('disk', 0, sector);
    await files.synced();
    await first;
    assert.deepEqual(names(), ['disk', 'disk1']);
    assert.equal(node('disk1').file.size, 512n);
  });

  it('see what is written during the read of a table to a place that it reads for the first time', async () => {
    putRecord(disk.content, 60 * SECTOR, [{ index: 0, type: 0x83, start: 1, count: 5 }]);
    const sector = Buffer.alloc(SECTOR);
    putRecord(sector, 0, [{ index: 3, type: 0x05, start: 60, count: 20 }]);
    write('disk', 0, sector);
    const read = disk.read.bind(disk);
    // The logical partition goes as soon as it was read.
    disk.read = (offset, length, reply) => {
      read(offset, length, reply);
      if (offset !== BigInt(60 * SECTOR)) return;
      disk.read = read;
      write('disk', 60 * SECTOR, Buffer.alloc(SECTOR));
    };
    await files.synced();
    assert.deepEqual(names(), ['disk']);
    assert.equal(files.synced(), undefined, 'and it is read no more');
  });

  it('keep nobody waiting for the end of one who writes to the table on and on', async () => {
    const read = disk.read.bind(disk);
    let tables = 0;
    disk.read = (offset, length, reply) => {
      if (offset === 0n && tables++ < 100) write('disk', 0, Buffer.alloc(SECTOR));
      read(offset, length, reply);
    };
    write('disk', 0, Buffer.alloc(SECTOR));
    await files.synced();
    assert.ok(tables < 10, `${tables} reads`);
    assert.deepEqual(names(), ['disk']);
    const sector = Buffer.alloc(SECTOR);
    putRecord(sector, 0, [{ index: 0, type: 0x83, start: 50, count: 1 }]);
    tables = 100;
    write('disk', 0, sector);
    await files.synced();
    assert.deepEqual(names(), ['disk', 'disk1']);
    assert.equal(files.synced(), undefined);
  });

  it('are not read again for what is written elsewhere during the read of a table', async () => {
    write('disk', 0, Buffer.alloc(SECTOR));
    const read = disk.read.bind(disk);
    let reads = 0;
    disk.read = (offset, length, reply) => {
      if (reads++ === 0) write('disk', 20_000, Buffer.alloc(SECTOR));
      read(offset, length, reply);
    };
    await files.synced();
    assert.deepEqual(names(), ['disk']);
    assert.equal(files.synced(), undefined);
    assert.ok(reads < 4, `${reads} reads`);
  });

  it('make who opens another file of the same disk look anew', () => {
    write('disk1', 0, Buffer.from('x'));
    assert.ok(node('disk').file.takeCacheStale());
    assert.ok(!node('disk').file.takeCacheStale(), 'once');
    assert.ok(!node('disk1').file.takeCacheStale());
    assert.ok(!node('disk2').file.takeCacheStale());
    write('disk', 20 * SECTOR - 1, Buffer.from('xy'));
    assert.ok(node('disk2').file.takeCacheStale());
    assert.ok(!node('disk1').file.takeCacheStale());
    write('disk', 30 * SECTOR, Buffer.from('behind'));
    assert.ok(!node('disk2').file.takeCacheStale());
  });

  it('have the time of what was written through another file, where it is theirs', () => {
    const all = ['disk', 'disk1', 'disk2'].map((name) => node(name).file);
    for (const file of all) file.change({ mtime: 1n });
    write('disk1', 0, Buffer.from('x'));
    assert.deepEqual(
      all.map((file) => file.attributes().mtime > 1n),
      [true, true, false],
    );
  });

  it('make who has another file open see what was synced', async () => {
    open.add('disk').add('disk2');
    write('disk1', 100, Buffer.alloc(10));
    write('disk1', 10, Buffer.alloc(10));
    assert.deepEqual(invalidated, []);
    await files.synced();
    assert.deepEqual(invalidated, [`disk ${2 * SECTOR + 10}+10`, `disk ${2 * SECTOR + 100}+10`]);
    assert.equal(files.synced(), undefined);
    write('disk', 0x2000, Buffer.alloc(0x2000 + 1024));
    await files.synced();
    assert.deepEqual(invalidated.slice(2), [`disk2 0+5120`]);
  });

  it('answer no sync before what an earlier one has begun to show is seen', async () => {
    open.add('disk');
    let taken = (): void => undefined;
    invalidating = new Promise((resolve) => (taken = resolve));
    write('disk1', 0, Buffer.from('x'));
    const answered: string[] = [];
    const first = files.synced()?.then(() => answered.push('first'));
    const second = files.synced()?.then(() => answered.push('second'));
    assert.ok(second !== undefined);
    await nextTurn();
    assert.deepEqual(answered, []);
    taken();
    await Promise.all([first, second]);
    assert.deepEqual(invalidated, ['disk 1024+1'], 'once for both');
    assert.equal(files.synced(), undefined);
  });

  it('leave in the caches of others what lies between the writes, as far as they can be told apart', async () => {
    open.add('disk');
    write('disk1', 0, Buffer.alloc(1));
    write('disk1', 5119, Buffer.alloc(1));
    await files.synced();
    assert.deepEqual(invalidated, ['disk 1024+1', 'disk 6143+1']);
    invalidated = [];
    for (let at = 0; at < 5120; at += 10) write('disk1', at, Buffer.alloc(1));
    await files.synced();
    assert.ok(invalidated.length > 1 && invalidated.length < 100, invalidated.join());
  });

  it('are flushed at the end, and also those that are gone', async () => {
    const gone = node('disk2');
    write('disk2', 0, Buffer.from('x'));
    await rewrite([]);
    assert.deepEqual(names(), ['disk']);
    disk.log.length = 0;
    assert.equal(await files.syncAll(), 0);
    assert.ok(disk.log.includes('flush 0+0'));
    assert.ok(files.tree.files().includes(gone), 'the kernel has not forgotten it');
  });

  describe('of which one is cut', () => {
    const OWNER = 7n;
    const close = (through: string): void => {
      let code = -1;
      node(through).file.releaseHandle(OWNER, true, { done: (result) => (code = result) });
      assert.equal(code, 0);
    };
    const at = (sector: number): string =>
      disk.content.toString('latin1', sector * SECTOR, sector * SECTOR + 4);
    beforeEach(() => disk.content.fill('old ', SECTOR));

    it('keep what is written through a partition while the disk is cut', () => {
      node('disk').file.truncated(OWNER);
      write('disk1', 2 * SECTOR, Buffer.from('part'));
      write('disk2', 2 * SECTOR, Buffer.from('part'));
      write('disk', 15 * SECTOR, Buffer.from('disk'));
      close('disk');
      assert.deepEqual([3, 4, 5, 15, 16, 22, 23].map(at), [
        ...['\0\0\0\0', 'part', '\0\0\0\0', 'disk'],
        // What lies behind what was written to the disk itself stays.
        ...['old ', 'part', 'old '],
      ]);
    });

    it('keep what is written through the disk while a partition is cut', () => {
      node('disk1').file.truncated(OWNER);
      write('disk', 4 * SECTOR, Buffer.from('disk'));
      write('disk1', 5 * SECTOR, Buffer.from('part'));
      close('disk1');
      assert.deepEqual([3, 4, 5, 7, 8, 1].map(at), [
        ...['\0\0\0\0', 'disk', '\0\0\0\0', 'part', 'old ', 'old '],
      ]);
      // It is cut no more.
      write('disk', 10 * SECTOR, Buffer.from('disk'));
      close('disk1');
      assert.equal(at(9), 'old ');
    });

    it('hold a write back where gaps are being zeroed through another, and nowhere else', () => {
      node('disk1').file.truncated(OWNER);
      write('disk1', 5 * SECTOR, Buffer.from('part'));
      let zeroed = (): void => undefined;
      const zero = disk.zero.bind(disk);
      disk.zero = (...all) => (zeroed = () => zero(...all));
      const codes: number[] = [];
      const reply = { done: (code: number): void => void codes.push(code) };
      node('disk1').file.releaseHandle(OWNER, true, reply);
      const bytes = Buffer.concat([Buffer.alloc(HEADROOM), Buffer.from('disk')]);
      node('disk').file.write(BigInt(4 * SECTOR), bytes, HEADROOM, 4, false, reply);
      assert.deepEqual(codes, [], 'both wait');
      write('disk2', 0, Buffer.from('two.'));
      zeroed();
      assert.deepEqual(codes, [0, 0]);
      assert.deepEqual([3, 4, 20].map(at), ['\0\0\0\0', 'disk', 'two.']);
    });

    it('zero nothing more for who had to wait, when another one has cut the file since', () => {
      node('disk').file.truncated(OWNER);
      write('disk', 30 * SECTOR, Buffer.from('disk'));
      node('disk1').file.truncated(OWNER);
      write('disk1', 5 * SECTOR, Buffer.from('part'));
      let zeroed = (): void => undefined;
      const zero = disk.zero.bind(disk);
      disk.zero = (...all) => (zeroed = () => zero(...all));
      const codes: number[] = [];
      const reply = { done: (code: number): void => void codes.push(code) };
      node('disk1').file.releaseHandle(OWNER, true, reply);
      node('disk').file.releaseHandle(OWNER, true, reply);
      disk.zero = zero;
      const next = OWNER + 1n;
      node('disk').file.truncated(next);
      write('disk', 20 * SECTOR, Buffer.from('next'));
      zeroed();
      assert.deepEqual(codes, [0, 0]);
      assert.equal(at(20), 'next');
      assert.equal(at(15), 'old ', 'that is the gap of who has cut it last');
      node('disk').file.releaseHandle(next, true, reply);
      assert.deepEqual([15, 20].map(at), ['\0\0\0\0', 'next']);
    });

    it('zero for each what it has skipped, where two are cut', () => {
      node('disk').file.truncated(OWNER);
      node('disk1').file.truncated(OWNER);
      write('disk1', 5 * SECTOR, Buffer.from('part'));
      write('disk', 9 * SECTOR, Buffer.from('disk'));
      close('disk1');
      close('disk');
      assert.deepEqual([1, 3, 7, 8, 9, 10].map(at), [
        ...['\0\0\0\0', '\0\0\0\0', 'part', '\0\0\0\0', 'disk', 'old '],
      ]);
    });
  });

  describe('of which one is gone, and open', () => {
    const TABLE = [
      { index: 0, type: 0x83, start: 2, count: 10 },
      { index: 1, type: 0x83, start: 20, count: 10 },
    ];
    let gone: FileNode;
    beforeEach(async () => {
      gone = node('disk1');
      await rewrite([]);
      open.add('disk').add('disk1');
    });
    const forget = (): void => files.tree.forget(gone.id, 100);

    it('show what is written through it, and it what is written through them', async () => {
      write(gone, 100, Buffer.alloc(10));
      await files.synced();
      assert.deepEqual(invalidated, [`disk ${2 * SECTOR + 100}+10`]);
      invalidated = [];
      write('disk', 2 * SECTOR, Buffer.alloc(7));
      await files.synced();
      assert.deepEqual(invalidated, ['disk1 0+7']);
    });

    it('show it also where it has come again, there or elsewhere', async () => {
      await rewrite(TABLE);
      const again = node('disk1');
      assert.notEqual(again, gone);
      write(gone, 5, Buffer.alloc(1));
      assert.ok(again.file.takeCacheStale());
      write(again, 5, Buffer.alloc(1));
      assert.ok(gone.file.takeCacheStale());
      await rewrite([{ index: 0, type: 0x83, start: 11, count: 10 }]);
      invalidated = [];
      write('disk1', 0, Buffer.alloc(1000));
      await files.synced();
      assert.deepEqual(
        invalidated.filter((one) => one.startsWith('disk1')),
        ['disk1 4608+512', 'disk1 4608+512'],
        'both that end there',
      );
    });

    it('have nothing to do with it when the kernel has forgotten it', async () => {
      forget();
      write('disk', 2 * SECTOR, Buffer.alloc(7));
      await files.synced();
      assert.deepEqual(invalidated, []);
    });

    it('tell in the end of a write to it that failed', () => {
      disk.failNext.set('write', errno.EIO);
      write(gone, 0, Buffer.from('x'), errno.EIO);
      forget();
      assert.equal(files.writeError, errno.EIO);
    });

    it('flush it when it is forgotten, and again at the end where that failed', async () => {
      write(gone, 0, Buffer.from('x'));
      disk.log.length = 0;
      disk.failNext.set('flush', errno.EIO);
      forget();
      assert.deepEqual(disk.log, ['flush 0+0']);
      assert.equal(files.tree.file(gone.id), undefined);
      node('disk').file.sync({ done: () => undefined });
      disk.log.length = 0;
      disk.failNext.set('flush', errno.EIO);
      assert.equal(await files.syncAll(), errno.EIO);
      assert.equal(await files.syncAll(), 0);
      assert.deepEqual(disk.log, ['flush 0+0', 'flush 0+0']);
    });
  });

  it('tell of an error when they are flushed', async () => {
    write('disk2', 0, Buffer.from('x'));
    disk.failNext.set('flush', errno.EIO);
    assert.equal(await files.syncAll(), errno.EIO);
  });
});
