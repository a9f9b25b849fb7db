import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { errno } from '../../src/errno.js';
import { Fattr, InitFlag, Notify, O_DSYNC, Opcode, WriteFlag } from '../../src/fuse/constants.js';
import { FakeKernel, fields, pass, readBody, writeBody } from '../support/fake-kernel.js';

const SIZE = 64 * 1024;
const O_WRONLY = 1;
const O_RDWR = 2;

const initBody = (flags: number, minor = 45): Buffer =>
  Buffer.concat([fields([4, 7], [4, minor], [4, 131072], [4, flags >>> 0]), Buffer.alloc(48)]);

function setattr(
  valid: number,
  values: { fh?: bigint; size?: bigint; mode?: number } = {},
): Buffer {
  const body = Buffer.alloc(88);
  body.writeUInt32LE(valid, 0);
  body.writeBigUInt64LE(values.fh ?? 0n, 8);
  body.writeBigUInt64LE(values.size ?? 0n, 16);
  body.writeUInt32LE(values.mode ?? 0, 68);
  return body;
}

const ALL_FLAGS = 0x7fffffff;

describe('INIT', () => {
  it('agrees on what it wants and the kernel has', () => {
    const kernel = new FakeKernel();
    const { error, body } = kernel.ask(Opcode.INIT, initBody(ALL_FLAGS));
    assert.equal(error, 0);
    assert.equal(body.length, 64);
    assert.deepEqual([body.readUInt32LE(0), body.readUInt32LE(4)], [7, 38]);
    const flags = body.readUInt32LE(12);
    assert.ok((flags & InitFlag.ASYNC_DIO) !== 0);
    assert.ok((flags & InitFlag.WRITEBACK_CACHE) !== 0);
    assert.equal(flags & (1 << 3), 0, 'no ATOMIC_O_TRUNC');
    assert.equal(flags & (1 << 12), 0, 'no AUTO_INVAL_DATA');
    assert.equal(body.readUInt32LE(20), 1024 * 1024);
    assert.deepEqual(kernel.started, { writeback: true });
  });

  it('takes what an older kernel has', () => {
    const kernel = new FakeKernel();
    const { body } = kernel.ask(Opcode.INIT, initBody(InitFlag.ASYNC_READ, 26).subarray(0, 16));
    assert.equal(body.readUInt32LE(4), 26);
    assert.equal(body.readUInt32LE(12), InitFlag.ASYNC_READ);
    assert.deepEqual(kernel.started, { writeback: false });
  });

  it('asks for no writeback where none is wished', () => {
    const kernel = new FakeKernel({}, { writeback: false });
    const { body } = kernel.ask(Opcode.INIT, initBody(ALL_FLAGS));
    assert.equal(body.readUInt32LE(12) & InitFlag.WRITEBACK_CACHE, 0);
  });

  it('refuses a kernel that is too old, with an answer', () => {
    const kernel = new FakeKernel();
    assert.throws(() => kernel.send(Opcode.INIT, initBody(0, 22)), { name: 'MountError' });
    assert.deepEqual(
      [...kernel.replies.values()].map(({ error }) => error),
      [errno.EIO],
    );
  });
});

describe('READ', () => {
  it('gives the data, and the end of the file where it is', () => {
    const kernel = new FakeKernel();
    kernel.disk.content.write('hello', 100);
    kernel.disk.content.write('end', SIZE - 3);
    const fh = kernel.open(0);
    assert.equal(kernel.ask(Opcode.READ, readBody(fh, 100n, 5)).body.toString(), 'hello');
    assert.equal(
      kernel.ask(Opcode.READ, readBody(fh, BigInt(SIZE - 3), 4096)).body.toString(),
      'end',
    );
    assert.equal(kernel.ask(Opcode.READ, readBody(fh, BigInt(SIZE), 4096)).body.length, 0);
    assert.equal(kernel.ask(Opcode.READ, readBody(fh, 2n ** 62n, 4096)).body.length, 0);
  });

  it('passes an error on', () => {
    const kernel = new FakeKernel();
    kernel.disk.failNext.set('read', errno.EIO);
    assert.equal(kernel.ask(Opcode.READ, readBody(1n, 0n, 512)).error, errno.EIO);
  });
});

describe('WRITE', () => {
  it('writes and tells how much', () => {
    const kernel = new FakeKernel();
    const { error, body } = kernel.ask(Opcode.WRITE, writeBody(1n, 7n, Buffer.from('hello')));
    assert.deepEqual([error, body.readUInt32LE(0), body.length], [0, 5, 8]);
    assert.equal(kernel.disk.content.toString('utf8', 7, 12), 'hello');
  });

  it('is short at the end and has no room behind it', () => {
    const kernel = new FakeKernel();
    const data = Buffer.alloc(4096, 1);
    const short = kernel.ask(Opcode.WRITE, writeBody(1n, BigInt(SIZE - 10), data));
    assert.equal(short.body.readUInt32LE(0), 10);
    assert.equal(kernel.ask(Opcode.WRITE, writeBody(1n, BigInt(SIZE), data)).error, errno.ENOSPC);
    assert.equal(kernel.overruns, 0);
  });

  it('from the page cache past the end writes what is inside, and each writer is told once', () => {
    const kernel = new FakeKernel();
    // Who asks may hold the lock of the file, which whatever mends the size waits for.
    kernel.mended = new Promise(() => undefined);
    const reader = kernel.open(0);
    const writer = kernel.open(O_WRONLY);
    const data = Buffer.alloc(4096, 1);
    const body = writeBody(writer, BigInt(SIZE - 10), data, { writeFlags: WriteFlag.CACHE });
    const written = kernel.ask(Opcode.WRITE, body);
    assert.deepEqual([written.error, written.body.readUInt32LE(0)], [0, data.length]);
    assert.equal(kernel.disk.content[SIZE - 1], 1);
    assert.equal(kernel.overruns, 1);
    assert.deepEqual(
      kernel.notifications.map(({ code }) => code),
      [Notify.INVAL_INODE],
    );
    assert.equal(kernel.notifications[0]?.body.readBigInt64LE(8), -1n, 'no page is invalidated');

    const byHandle = (fh: bigint): Buffer => fields([4, 1], [4, 0], [8, fh]);
    assert.equal(kernel.ask(Opcode.GETATTR, byHandle(reader)).error, 0);
    assert.equal(kernel.ask(Opcode.GETATTR, fields([4, 0], [4, 0], [8, 0])).error, 0);
    assert.equal(kernel.ask(Opcode.GETATTR, byHandle(writer)).error, errno.ENOSPC);
    assert.equal(kernel.ask(Opcode.GETATTR, byHandle(writer)).error, 0);
  });

  it('past the end is told at the close to who does not write again, when the size is right', async () => {
    const kernel = new FakeKernel();
    let mended = (): void => undefined;
    kernel.mended = new Promise((resolve) => (mended = resolve));
    const writer = kernel.open(O_WRONLY);
    const reader = kernel.open(0);
    const cached = { writeFlags: WriteFlag.CACHE };
    const write = writeBody(writer, BigInt(SIZE), Buffer.alloc(10), cached);
    assert.equal(kernel.ask(Opcode.WRITE, write).error, 0);
    const flush = (fh: bigint): Buffer => fields([8, fh], [4, 0], [4, 0], [8, 0]);
    const told = kernel.send(Opcode.FLUSH, flush(writer));
    await nextTurn();
    assert.ok(!kernel.replies.has(told));
    assert.equal(kernel.ask(Opcode.FLUSH, flush(reader)).error, 0, 'which may be what mends it');
    mended();
    await nextTurn();
    assert.equal(kernel.replies.get(told)?.error, errno.ENOSPC);
    assert.equal(kernel.ask(Opcode.FLUSH, flush(writer)).error, 0);
  });

  it('past the end of one file is nothing to the writers of another', () => {
    const kernel = new FakeKernel({}, { directory: 'disk' });
    kernel.mended = new Promise(() => undefined);
    const writer = kernel.open(O_WRONLY);
    const { id } = kernel.node;
    kernel.nodeId = kernel.tree.add('other', kernel.file).id;
    const other = kernel.open(O_WRONLY);
    kernel.nodeId = id;
    const cached = { writeFlags: WriteFlag.CACHE };
    kernel.ask(Opcode.WRITE, writeBody(writer, BigInt(SIZE), Buffer.alloc(10), cached));
    kernel.nodeId += 1;
    assert.equal(kernel.ask(Opcode.GETATTR, fields([4, 1], [4, 0], [8, other])).error, 0);
    assert.equal(kernel.ask(Opcode.FLUSH, fields([8, other], [8, 0], [8, 0])).error, 0);
  });

  it('past the end is told by fsync, which waits for nothing that needs its lock', () => {
    const kernel = new FakeKernel();
    kernel.mended = new Promise(() => undefined);
    const writer = kernel.open(O_WRONLY);
    const cached = { writeFlags: WriteFlag.CACHE };
    kernel.ask(Opcode.WRITE, writeBody(writer, BigInt(SIZE), Buffer.alloc(10), cached));
    const fsync = fields([8, writer], [8, 0]);
    assert.equal(kernel.ask(Opcode.FSYNC, fsync).error, errno.ENOSPC);
    assert.equal(kernel.ask(Opcode.FSYNC, fsync).error, 0);
  });

  it('with O_DSYNC is durable', () => {
    const kernel = new FakeKernel();
    kernel.ask(Opcode.WRITE, writeBody(1n, 0n, Buffer.alloc(512), { flags: O_DSYNC }));
    assert.deepEqual(kernel.disk.log, ['write-fua 0+512']);
  });

  it('that tells of more data than it has is refused', () => {
    const kernel = new FakeKernel();
    const body = writeBody(1n, 0n, Buffer.alloc(512)).subarray(0, 100);
    assert.equal(kernel.ask(Opcode.WRITE, body).error, errno.EIO);
    assert.deepEqual(kernel.disk.log, []);
  });

  it('keeps its memory until the disk has answered', () => {
    const kernel = new FakeKernel();
    const held: (() => void)[] = [];
    const write = kernel.disk.write.bind(kernel.disk);
    kernel.disk.write = (...all) => void held.push(() => write(...all));
    for (let i = 0; i < 16; i++) {
      kernel.send(Opcode.WRITE, writeBody(1n, BigInt(i * 4096), Buffer.alloc(4096, i + 1)));
    }
    for (const run of held.toReversed()) run();
    for (let i = 0; i < 16; i++) {
      const part = kernel.disk.content.subarray(i * 4096, (i + 1) * 4096);
      assert.ok(part.equals(Buffer.alloc(4096, i + 1)), `write ${i}`);
    }
    assert.equal(kernel.protocol.open, 0);
  });
});

describe('SETATTR', () => {
  it('keeps the size', () => {
    const kernel = new FakeKernel();
    const set = (size: bigint) => kernel.ask(Opcode.SETATTR, setattr(Fattr.SIZE, { size }));
    assert.equal(set(0n).body.readBigUInt64LE(24), BigInt(SIZE));
    assert.equal(set(BigInt(SIZE)).error, 0);
    assert.equal(set(4096n).error, errno.EINVAL);
  });

  it('ties a cut to the handle that the same thread opened last', () => {
    const kernel = new FakeKernel();
    kernel.disk.content.fill(0x55);
    const fh = kernel.open(O_RDWR);
    kernel.ask(Opcode.SETATTR, setattr(Fattr.SIZE));
    kernel.ask(Opcode.WRITE, writeBody(fh, 8192n, Buffer.alloc(512, 1)));
    kernel.ask(Opcode.FLUSH, fields([8, fh], [4, 0], [4, 0], [8, 0]));
    assert.deepEqual(kernel.disk.log, ['write 8192+512', 'zero 0+8192', 'flush 0+0']);
    // The next open does not keep what is cached, the one after it does.
    const flags = (): number =>
      kernel.ask(Opcode.OPEN, fields([4, 0], [4, 0])).body.readUInt32LE(8);
    assert.deepEqual([flags(), flags()], [0, 2]);
  });

  it('is not taken for ftruncate where it is the kernel after a failed direct write', () => {
    const kernel = new FakeKernel();
    const fh = kernel.open(O_RDWR);
    kernel.ask(Opcode.SETATTR, setattr(Fattr.SIZE));
    kernel.ask(Opcode.WRITE, writeBody(fh, BigInt(SIZE), Buffer.alloc(512)));
    const body = setattr(Fattr.SIZE | Fattr.FH, { fh, size: BigInt(SIZE) });
    assert.equal(kernel.ask(Opcode.SETATTR, body).error, 0);
    kernel.ask(Opcode.FLUSH, fields([8, fh], [4, 0], [4, 0], [8, 0]));
    assert.deepEqual(kernel.disk.log, []);
    kernel.ask(Opcode.SETATTR, body);
    kernel.ask(Opcode.FLUSH, fields([8, fh], [4, 0], [4, 0], [8, 0]));
    assert.deepEqual(kernel.disk.log, [`zero 0+${SIZE}`, 'flush 0+0']);
  });
});

describe('other requests', () => {
  it('refuses to open a read-only disk for writing', () => {
    const kernel = new FakeKernel({}, { readOnly: true });
    assert.equal(kernel.ask(Opcode.OPEN, fields([4, O_RDWR], [4, 0])).error, errno.EROFS);
    assert.equal(kernel.ask(Opcode.OPEN, fields([4, 0], [4, 0])).error, 0);
    assert.equal(kernel.ask(Opcode.ACCESS, fields([4, 2], [4, 0])).error, errno.EROFS);
    assert.equal(kernel.ask(Opcode.ACCESS, fields([4, 4], [4, 0])).error, 0);
    assert.equal(kernel.ask(Opcode.WRITE, writeBody(1n, 0n, Buffer.alloc(1))).error, errno.EROFS);
  });

  it('seeks data and holes', () => {
    const kernel = new FakeKernel();
    kernel.disk.content.fill(1, 4096, 8192);
    const seek = (offset: bigint, whence: number) =>
      kernel.ask(Opcode.LSEEK, fields([8, 1], [8, offset], [4, whence], [4, 0]));
    assert.equal(seek(0n, 3).body.readBigUInt64LE(0), 4096n);
    assert.equal(seek(4096n, 4).body.readBigUInt64LE(0), 8192n);
    assert.equal(seek(BigInt(SIZE), 4).error, errno.ENXIO);
    assert.equal(seek(0n, 0).error, errno.EINVAL);
  });

  it('answers what it does not know with ENOSYS, ioctl with ENOTTY', () => {
    const kernel = new FakeKernel();
    for (const opcode of [Opcode.GETXATTR, Opcode.POLL, Opcode.COPY_FILE_RANGE, 999]) {
      assert.equal(kernel.ask(opcode, Buffer.alloc(64)).error, errno.ENOSYS);
    }
    assert.equal(kernel.ask(Opcode.IOCTL, Buffer.alloc(32)).error, errno.ENOTTY);
  });

  it('passes on each error of a disk as the kernel takes it, and none that means more to it', () => {
    const kernel = new FakeKernel();
    const told = [
      [errno.ENOSPC, errno.ENOSPC],
      [511, 511],
      [512, errno.EIO],
      [4095, errno.EIO],
      [-errno.ENOSPC, errno.EIO],
      [Number.NaN, errno.EIO],
      // The kernel would never ask again, and take an fsync that failed for one that is not needed.
      [errno.ENOSYS, errno.EIO],
    ] as const;
    for (const [code, error] of told) {
      kernel.disk.read = (_offset, _length, reply) => reply.fail(code);
      assert.equal(kernel.ask(Opcode.READ, readBody(1n, 0n, 512)).error, error);
      kernel.disk.write = (_offset, _bytes, _start, _length, _options, reply) => reply.done(code);
      assert.equal(kernel.ask(Opcode.WRITE, writeBody(1n, 0n, Buffer.alloc(512))).error, error);
    }
    assert.equal(kernel.protocol.open, 0);
  });

  it('answers nothing to FORGET and INTERRUPT', () => {
    const kernel = new FakeKernel();
    kernel.send(Opcode.FORGET, Buffer.alloc(8));
    kernel.send(Opcode.INTERRUPT, Buffer.alloc(8));
    assert.equal(kernel.replies.size, 0);
    assert.equal(kernel.protocol.open, 0);
  });

  it('gives a reader that waits for long EINTR, and drops the late data', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const kernel = new FakeKernel();
    const held: (() => void)[] = [];
    const read = kernel.disk.read.bind(kernel.disk);
    kernel.disk.read = (...all) => void held.push(() => read(...all));
    const unique = kernel.send(Opcode.READ, readBody(1n, 0n, 512));
    kernel.send(Opcode.INTERRUPT, fields([8, unique]));
    pass(t, 1000);
    assert.equal(kernel.replies.size, 0, 'a signal alone does not fail a read');
    pass(t, 10_000);
    assert.equal(kernel.replies.get(unique)?.error, errno.EINTR);
    held[0]?.();
    assert.equal(kernel.replies.size, 1);
    assert.equal(kernel.protocol.open, 0);
  });
});

describe('RELEASE', () => {
  it('does not wait for the caches of others, which may wait for it', () => {
    const kernel = new FakeKernel();
    const fh = kernel.open(O_RDWR);
    kernel.settled = new Promise(() => undefined);
    const flush = kernel.send(Opcode.FLUSH, fields([8, fh], [8, 0], [8, 0]));
    assert.equal(kernel.ask(Opcode.RELEASE, fields([8, fh], [8, 0], [8, 0])).error, 0);
    assert.ok(!kernel.replies.has(flush), 'the close does');
  });
});

describe('a mount of its owner and root alone', () => {
  const OWNER = 1000;
  const owned = (): FakeKernel => new FakeKernel({}, { denyOthers: OWNER });
  const body = Buffer.alloc(128);

  it('lets both of them in, and nobody else', () => {
    const kernel = owned();
    for (const [uid, error] of [
      [OWNER, 0],
      [0, 0],
      [OWNER + 1, errno.EACCES],
      [0xfffffffe, errno.EACCES],
    ] as const) {
      kernel.uid = uid;
      for (const opcode of [Opcode.OPEN, Opcode.GETATTR, Opcode.SETATTR, Opcode.STATFS]) {
        assert.equal(kernel.ask(opcode, body).error, error, `${opcode} of ${uid}`);
      }
    }
  });

  it('asks nobody who has the file open', () => {
    const kernel = owned();
    kernel.uid = OWNER;
    const fh = kernel.open(O_RDWR);
    kernel.uid = OWNER + 1;
    assert.equal(kernel.ask(Opcode.READ, readBody(fh, 0n, 10)).error, 0);
    assert.equal(kernel.ask(Opcode.WRITE, writeBody(fh, 0n, Buffer.from('x'))).error, 0);
    assert.equal(kernel.ask(Opcode.FLUSH, fields([8, fh], [8, 0], [8, 0])).error, 0);
    // For the size, which a write asks for, and to set it, as ftruncate(2) does.
    assert.equal(kernel.ask(Opcode.GETATTR, fields([4, 1], [4, 0], [8, fh])).error, 0);
    const size = setattr(Fattr.SIZE | Fattr.FH, { fh, size: BigInt(SIZE) });
    assert.equal(kernel.ask(Opcode.SETATTR, size).error, 0);
    assert.equal(kernel.ask(Opcode.COPY_FILE_RANGE, body).error, errno.ENOSYS);
    // By its path it is none of theirs.
    assert.equal(kernel.ask(Opcode.GETATTR, fields([4, 0], [4, 0], [8, 0])).error, errno.EACCES);
    assert.equal(kernel.ask(Opcode.SETATTR, setattr(Fattr.SIZE)).error, errno.EACCES);
    assert.equal(kernel.ask(Opcode.RELEASE, fields([8, fh], [8, 0], [8, 0])).error, 0);
  });

  it('is not that unless it is told so', () => {
    const kernel = new FakeKernel();
    kernel.uid = OWNER + 1;
    assert.equal(kernel.ask(Opcode.OPEN, body).error, 0);
  });
});
