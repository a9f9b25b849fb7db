import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HEADROOM } from '../../src/disk/disk.js';
import { DiskFile } from '../../src/disk/disk-file.js';
import { errno } from '../../src/errno.js';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  SEEK_DATA,
  SEEK_HOLE,
} from '../../src/linux.js';
import { MemoryDisk } from '../support/memory-disk.js';
import { until } from '../support/mounts.js';
import type { MemoryDiskOptions } from '../support/memory-disk.js';

const SIZE = 64 * 1024;

function makeFile(
  options: Partial<MemoryDiskOptions> = {},
  { trim = false, shared = false } = {},
): { file: DiskFile; disk: MemoryDisk } {
  const disk = new MemoryDisk({ size: SIZE, ...options });
  const own = { readOnly: false, uid: 1, gid: 2, permissions: 0o600 };
  return { disk, file: new DiskFile(disk, { ...own, trim, shared }) };
}

/** The errno that something is answered with; it must be answered, and once. */
function codeOf(start: (reply: { done(code: number): void }) => void): number {
  const codes: number[] = [];
  start({ done: (code) => codes.push(code) });
  assert.equal(codes.length, 1, 'answered exactly once');
  return codes[0] ?? -1;
}

function write(file: DiskFile, offset: bigint, length: number, durable = false): number {
  const bytes = Buffer.alloc(HEADROOM + length, 1);
  return codeOf((reply) => file.write(offset, bytes, HEADROOM, length, durable, reply));
}

const sync = (file: DiskFile): number => codeOf((reply) => file.sync(reply));

const allocate = (file: DiskFile, mode: number, offset: bigint, length: bigint): number =>
  codeOf((reply) => file.allocate(mode, offset, length, reply));

function seek(file: DiskFile, offset: bigint, whence: number, owner = 9n): number | bigint {
  let result: number | bigint | undefined;
  file.seek(offset, whence, owner, (code, found) => {
    assert.equal(result, undefined);
    result = code === 0 ? found : code;
  });
  return result ?? -1;
}

/** The blocks that stat(2) tells, which a disk that answers at once makes known at once. */
function countBlocks(file: DiskFile): bigint {
  let blocks: bigint | undefined;
  file.whenCounted((attributes) => {
    assert.equal(blocks, undefined);
    blocks = attributes.blocks;
  });
  return blocks ?? -1n;
}

describe('DiskFile: flushing', () => {
  it('flushes once for what was written, and not again', () => {
    const { file, disk } = makeFile();
    assert.equal(sync(file), 0);
    assert.deepEqual(disk.log, []);
    write(file, 0n, 512);
    assert.equal(sync(file), 0);
    assert.equal(sync(file), 0);
    assert.deepEqual(disk.log, ['write 0+512', 'flush 0+0']);
  });

  it('flushes again after a flush that failed, and reports each failure', () => {
    const { file, disk } = makeFile();
    write(file, 0n, 512);
    disk.failNext.set('flush', errno.EIO);
    assert.equal(sync(file), errno.EIO);
    assert.equal(sync(file), 0);
    assert.equal(disk.log.filter((line) => line.startsWith('flush')).length, 2);
  });

  it('does not count a write as flushed that was answered after the flush was sent', () => {
    const { file, disk } = makeFile();
    const held: (() => void)[] = [];
    const realWrite = disk.write.bind(disk);
    const realFlush = disk.flush.bind(disk);
    disk.write = (...all) => void held.push(() => realWrite(...all));
    disk.flush = (reply) => void held.push(() => realFlush(reply));
    let wrote = false;
    const bytes = Buffer.alloc(HEADROOM + 512);
    file.write(0n, bytes, HEADROOM, 512, false, { done: () => (wrote = true) });
    let synced = 0;
    file.sync({ done: () => synced++ });
    held[0]?.();
    held[1]?.();
    assert.ok(wrote);
    assert.equal(synced, 1);
    file.sync({ done: () => synced++ });
    assert.equal(held.length, 3, 'the second sync sends a flush of its own');
    held[2]?.();
    file.sync({ done: () => synced++ });
    assert.equal(synced, 3);
  });

  it('makes a durable write with FUA', () => {
    const { file, disk } = makeFile();
    assert.equal(write(file, 0n, 512, true), 0);
    assert.equal(sync(file), 0);
    assert.deepEqual(disk.log, ['write-fua 0+512']);
  });

  it('makes a durable write by a flush where there is no FUA, and fails with it', () => {
    const { file, disk } = makeFile({ canFua: false });
    assert.equal(write(file, 0n, 512, true), 0);
    assert.deepEqual(disk.log, ['write 0+512', 'flush 0+0']);
    disk.failNext.set('flush', errno.ENOSPC);
    assert.equal(write(file, 0n, 512, true), errno.ENOSPC);
  });

  it('makes every change durable by itself where the disk has FUA and no flush', () => {
    const { file, disk } = makeFile({ canFlush: false });
    assert.equal(write(file, 0n, 512), 0);
    assert.deepEqual(disk.log, ['write-fua 0+512']);
    const zero = disk.zero.bind(disk);
    let fua = false;
    disk.zero = (offset, length, options, reply) => {
      fua = options.fua;
      zero(offset, length, options, reply);
    };
    allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0n, 4096n);
    assert.ok(fua);
  });

  it('flushes after a hole was made', () => {
    const { file, disk } = makeFile();
    allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0n, 4096n);
    sync(file);
    assert.deepEqual(disk.log, ['zero 0+4096', 'flush 0+0']);
  });
});

describe('DiskFile: size and attributes', () => {
  it('keeps its size through truncation to nothing or to itself, and refuses any other', () => {
    const { file } = makeFile();
    assert.equal(file.change({ size: 0n }), 0);
    assert.equal(file.change({ size: BigInt(SIZE) }), 0);
    assert.equal(file.change({ size: 1n }), errno.EINVAL);
    assert.equal(file.change({ size: BigInt(SIZE) + 1n }), errno.EINVAL);
    assert.equal(file.attributes().size, BigInt(SIZE));
  });

  it('keeps owner, mode and times in memory', () => {
    const { file } = makeFile();
    file.change({ mode: 0o104755, uid: 7, gid: 8, atime: 5n, mtime: 6n });
    const { mode, uid, gid, atime, mtime } = file.attributes();
    assert.deepEqual(
      { mode, uid, gid, atime, mtime },
      { mode: 0o104755, uid: 7, gid: 8, atime: 5n, mtime: 6n },
    );
    file.change({ dropSetId: true });
    assert.equal(file.attributes().mode, 0o100755);
  });

  it('moves the times when it is written, and not when it is looked at', () => {
    const { file } = makeFile();
    file.change({ mtime: 1n });
    assert.equal(file.attributes().mtime, 1n);
    write(file, 0n, 1);
    assert.ok(file.attributes().mtime > 1n);
  });

  it('has blocks, also where the size is no multiple of one', () => {
    const { file } = makeFile({ size: 100 });
    assert.equal(file.attributes().blocks, 1n);
  });

  it('has the blocks that the disk has, and one where it has none', () => {
    const { file } = makeFile();
    assert.equal(countBlocks(file), 1n);
    write(file, 4096n, 1000);
    assert.equal(file.attributes().blocks, 2n, 'what is written counts at once');
    assert.equal(countBlocks(makeFile({ size: 1000, canExtents: false }).file), 2n);
  });

  it('counts its blocks again after a write that was under way', async () => {
    const { file, disk } = makeFile();
    const held: (() => void)[] = [];
    const realWrite = disk.write.bind(disk);
    disk.write = (...all) => void held.push(() => realWrite(...all));
    const bytes = Buffer.alloc(HEADROOM + 4096, 1);
    file.write(0n, bytes, HEADROOM, 4096, false, { done: () => undefined });
    assert.equal(countBlocks(file), 1n, 'the disk does not have it yet');
    held[0]?.();
    await until('it is counted', () => countBlocks(file) === 8n);
  });

  it('asks the disk anew for who opens it where others may change it', () => {
    for (const shared of [false, true]) {
      const { file, disk } = makeFile({}, { shared });
      assert.equal(seek(file, 0n, SEEK_DATA), errno.ENXIO);
      disk.content.fill(1, 0, 8192);
      file.open(false);
      assert.equal(seek(file, 0n, SEEK_DATA), shared ? 0n : errno.ENXIO);
    }
  });

  it('ends where the disk ends', () => {
    const { file } = makeFile();
    assert.equal(file.readable(BigInt(SIZE) - 10n, 4096), 10);
    assert.equal(file.readable(BigInt(SIZE), 4096), 0);
    assert.equal(file.readable(2n ** 62n, 4096), 0);
    assert.equal(file.writable(BigInt(SIZE) - 10n, 4096), 10);
  });

  it('is read-only when it or its disk is', () => {
    const { file } = makeFile({ readOnly: true });
    assert.equal(file.open(true), errno.EROFS);
    assert.equal(file.open(false), 0);
    assert.equal(file.access(true), errno.EROFS);
    assert.equal(file.access(false), 0);
    assert.equal(file.writable(0n, 1), 0);
    assert.equal(allocate(file, FALLOC_FL_ZERO_RANGE, 0n, 1n), errno.EROFS);
    assert.equal(file.attributes().mode & 0o222, 0);
  });
});

describe('DiskFile: fallocate', () => {
  const rows: [
    name: string,
    mode: number,
    offset: bigint,
    length: bigint,
    code: number,
    log: string[],
  ][] = [
    [
      'punches by zeroing',
      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
      512n,
      1024n,
      0,
      ['zero 512+1024'],
    ],
    ['zeroes and stays allocated', FALLOC_FL_ZERO_RANGE, 0n, 1024n, 0, ['zero-nohole 0+1024']],
    [
      'clips at the end',
      FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
      65000n,
      5000n,
      0,
      ['zero-nohole 65000+536'],
    ],
    ['does nothing past the end', FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536n, 10n, 0, []],
    ['never grows', FALLOC_FL_ZERO_RANGE, 65000n, 5000n, errno.ENOSPC, []],
    ['has no plain allocation', 0, 0n, 512n, errno.EOPNOTSUPP, []],
    ['has no plain allocation with KEEP_SIZE', FALLOC_FL_KEEP_SIZE, 0n, 512n, errno.EOPNOTSUPP, []],
    ['has no collapse', 0x08, 0n, 512n, errno.EOPNOTSUPP, []],
  ];
  for (const [name, mode, offset, length, code, log] of rows) {
    it(name, () => {
      const { file, disk } = makeFile();
      assert.equal(allocate(file, mode, offset, length), code);
      assert.deepEqual(disk.log, log);
    });
  }
});

describe('DiskFile: fallocate, where holes are to be trimmed', () => {
  const PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

  it('trims to make a hole, and still zeroes to zero', () => {
    const { file, disk } = makeFile({}, { trim: true });
    assert.equal(allocate(file, PUNCH, 512n, 1024n), 0);
    assert.equal(allocate(file, PUNCH, 65000n, 5000n), 0);
    assert.equal(allocate(file, FALLOC_FL_ZERO_RANGE, 0n, 512n), 0);
    assert.equal(sync(file), 0);
    assert.deepEqual(disk.log, [
      'trim 512+1024',
      'trim 65000+536',
      'zero-nohole 0+512',
      'flush 0+0',
    ]);
  });

  it('zeroes where the disk cannot trim, at all or just there', () => {
    const never = makeFile({ canTrim: false }, { trim: true });
    assert.equal(allocate(never.file, PUNCH, 512n, 1024n), 0);
    assert.deepEqual(never.disk.log, ['zero 512+1024']);
    const notThere = makeFile({}, { trim: true });
    notThere.disk.failNext.set('trim', errno.EOPNOTSUPP);
    assert.equal(allocate(notThere.file, PUNCH, 512n, 1024n), 0);
    assert.deepEqual(notThere.disk.log, ['trim 512+1024', 'zero 512+1024']);
    assert.equal(notThere.file.writeError, 0);
  });

  it('tells any other error', () => {
    const { file, disk } = makeFile({}, { trim: true });
    disk.failNext.set('trim', errno.EIO);
    assert.equal(allocate(file, PUNCH, 512n, 1024n), errno.EIO);
    assert.equal(file.writeError, errno.EIO);
  });

  it('leaves no rubbish to who has cut the file, and made the hole in what was cut', () => {
    const { file, disk } = makeFile({}, { trim: true });
    disk.content.fill(0x55);
    file.open(true);
    file.truncated(1n);
    write(file, 8192n, 512);
    assert.equal(allocate(file, PUNCH, 4096n, 4096n), 0);
    assert.equal(disk.content[4096], 0xaa);
    assert.equal(
      codeOf((reply) => file.syncHandle(1n, reply)),
      0,
    );
    assert.ok(disk.content.subarray(0, 8192).equals(Buffer.alloc(8192)));
  });
});

describe('DiskFile: holes', () => {
  function holey(options: Partial<MemoryDiskOptions> = {}): DiskFile {
    const { file, disk } = makeFile(options);
    // Many stretches, so that several answers are needed.
    for (let at = 4096; at < SIZE; at += 8192) disk.content.fill(1, at, at + 4096);
    return file;
  }

  it('finds data and holes over many answers', () => {
    const file = holey();
    assert.equal(seek(file, 0n, SEEK_DATA), 4096n);
    assert.equal(seek(file, 0n, SEEK_HOLE), 0n);
    assert.equal(seek(file, 4096n, SEEK_HOLE), 8192n);
    assert.equal(seek(file, 5000n, SEEK_DATA), 5000n);
  });

  it('has a hole behind the last byte and nothing further', () => {
    const file = holey();
    assert.equal(seek(file, BigInt(SIZE - 1), SEEK_HOLE), BigInt(SIZE));
    assert.equal(seek(file, BigInt(SIZE), SEEK_HOLE), errno.ENXIO);
    assert.equal(seek(file, BigInt(SIZE), SEEK_DATA), errno.ENXIO);
  });

  it('has no data after the last', () => {
    const { file } = makeFile();
    assert.equal(seek(file, 0n, SEEK_DATA), errno.ENXIO);
  });

  it('is all data while somebody may write, where the server cannot tell, and where it fails', () => {
    const file = holey();
    file.open(true);
    assert.equal(seek(file, 0n, SEEK_DATA), 0n);
    assert.equal(seek(file, 0n, SEEK_HOLE), BigInt(SIZE));
    file.releaseHandle(1n, true, { done: () => undefined });
    assert.equal(seek(file, 0n, SEEK_DATA), 4096n);
    assert.equal(seek(holey({ canExtents: false }), 0n, SEEK_HOLE), BigInt(SIZE));
    const failing = makeFile();
    failing.disk.failNext.set('extents', errno.EIO);
    assert.equal(seek(failing.file, 0n, SEEK_DATA), 0n);
  });

  it('finds the end of what it called data while somebody could write, also when he has gone', () => {
    const file = holey();
    file.open(true);
    assert.equal(seek(file, 0n, SEEK_DATA), 0n);
    file.releaseHandle(1n, true, { done: () => undefined });
    const other = 10n;
    assert.equal(seek(file, 0n, SEEK_HOLE, other), 0n);
    assert.equal(seek(file, 0n, SEEK_HOLE), BigInt(SIZE));
    assert.equal(seek(file, 0n, SEEK_HOLE), 0n);
  });
});

describe('DiskFile: cut to nothing', () => {
  const OWNER = 5n;

  function cutFile(): { file: DiskFile; disk: MemoryDisk } {
    const { file, disk } = makeFile();
    disk.content.fill(0x55);
    file.open(true);
    assert.equal(file.change({ size: 0n }), 0);
    file.truncated(OWNER);
    return { file, disk };
  }

  const close = (file: DiskFile): number => codeOf((reply) => file.syncHandle(OWNER, reply));

  it('changes nothing where the start is written only', () => {
    const { file, disk } = cutFile();
    write(file, 0n, 512);
    assert.equal(close(file), 0);
    assert.deepEqual(disk.log, ['write 0+512', 'flush 0+0']);
    assert.equal(disk.content[512], 0x55);
    assert.equal(file.takeCacheStale(), false);
  });

  it('zeroes what was skipped when the one who cut it closes, before the flush', () => {
    const { file, disk } = cutFile();
    write(file, 8192n, 4096);
    assert.equal(
      codeOf((reply) => file.syncHandle(OWNER + 1n, reply)),
      0,
    );
    assert.equal(close(file), 0);
    assert.deepEqual(disk.log.slice(-2), ['zero 0+8192', 'flush 0+0']);
    assert.equal(disk.content[8191], 0);
    assert.equal(disk.content[12288], 0x55);
    assert.equal(file.takeCacheStale(), true);
    assert.equal(file.takeCacheStale(), false);
  });

  it('is all zeroes when it was made to its full length again', () => {
    const { file, disk } = cutFile();
    file.extendedTo(OWNER, BigInt(SIZE));
    assert.equal(close(file), 0);
    assert.ok(disk.content.equals(Buffer.alloc(SIZE)));
  });

  it('forgets it when the handle is gone', () => {
    const { file, disk } = cutFile();
    assert.equal(
      codeOf((reply) => file.releaseHandle(OWNER, true, reply)),
      0,
    );
    write(file, 8192n, 512);
    assert.equal(close(file), 0);
    assert.ok(!disk.log.some((line) => line.startsWith('zero')));
  });

  it('lets no write start while gaps are zeroed, and none get lost', () => {
    const { file, disk } = cutFile();
    write(file, 8192n, 4096);
    const held: (() => void)[] = [];
    const zero = disk.zero.bind(disk);
    disk.zero = (...all) => void held.push(() => zero(...all));
    const answers: string[] = [];
    file.syncHandle(OWNER, { done: () => answers.push('closed') });
    const bytes = Buffer.alloc(HEADROOM + 100, 7);
    file.write(10n, bytes, HEADROOM, 100, false, { done: () => answers.push('wrote') });
    assert.deepEqual(answers, []);
    held[0]?.();
    assert.deepEqual(answers, ['closed', 'wrote']);
    assert.equal(disk.content[9], 0);
    assert.equal(disk.content[10], 7);
  });

  it('tells at the close that zeroing failed', () => {
    const { file, disk } = cutFile();
    write(file, 8192n, 4096);
    disk.failNext.set('zero', errno.EIO);
    assert.equal(close(file), errno.EIO);
    assert.equal(disk.content[0], 0x55);
    assert.equal(close(file), 0, 'tried again');
    assert.equal(disk.content[0], 0);
  });

  it('zeroes very many gaps, also where the disk answers at once', () => {
    const { file, disk } = makeFile({ size: 512 * 1024 });
    disk.content.fill(0x55);
    file.open(true);
    file.truncated(OWNER);
    for (let at = 1n; at < 500_000n; at += 50n) write(file, at, 1);
    assert.equal(close(file), 0);
    assert.equal(disk.content.subarray(0, 499_000).indexOf(0x55), -1);
  });
});
