import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errno } from '../../src/errno.js';
import { S_IFDIR, S_IFREG } from '../../src/disk/file-attributes.js';
import { Fattr, Opcode } from '../../src/fuse/constants.js';
import { FakeKernel, fields, readBody, writeBody } from '../support/fake-kernel.js';

const NAME = 'disk.raw';
const ROOT = 1;
const SIZE = 64 * 1024;
const O_RDWR = 2;

/** A mount of a directory whose kernel has not looked at anything yet. */
function directory(): FakeKernel {
  const kernel = new FakeKernel({}, { directory: NAME });
  kernel.nodeId = ROOT;
  return kernel;
}

const nameBody = (name: string): Buffer => Buffer.from(`${name}\0`);

/** @returns the nodeid, or 0 where the name is not there */
function lookup(kernel: FakeKernel, name: string): number {
  kernel.nodeId = ROOT;
  const { error, body } = kernel.ask(Opcode.LOOKUP, nameBody(name));
  if (error !== 0) {
    assert.equal(error, errno.ENOENT);
    return 0;
  }
  assert.equal(body.length, 128);
  return Number(body.readBigUInt64LE(0));
}

interface Listed {
  readonly name: string;
  readonly id: number;
  readonly type: number;
  readonly next: bigint;
}

function parseDirents(body: Buffer): Listed[] {
  const found: Listed[] = [];
  for (let at = 0; at < body.length;) {
    const length = body.readUInt32LE(at + 16);
    found.push({
      id: Number(body.readBigUInt64LE(at)),
      next: body.readBigUInt64LE(at + 8),
      type: body.readUInt32LE(at + 20),
      name: body.toString('utf8', at + 24, at + 24 + length),
    });
    at += (24 + length + 7) & ~7;
  }
  return found;
}

/** Lists the directory as the kernel does, with room for `room` bytes at a time. */
function list(kernel: FakeKernel, room: number, between: () => void = () => undefined): Listed[] {
  kernel.nodeId = ROOT;
  const fh = kernel.ask(Opcode.OPENDIR, fields([4, 0], [4, 0])).body.readBigUInt64LE(0);
  const all: Listed[] = [];
  for (;;) {
    const { error, body } = kernel.ask(Opcode.READDIR, readBody(fh, all.at(-1)?.next ?? 0n, room));
    assert.equal(error, 0);
    assert.ok(body.length <= room);
    if (body.length === 0) break;
    all.push(...parseDirents(body));
    between();
  }
  assert.equal(kernel.ask(Opcode.RELEASEDIR, Buffer.alloc(24)).error, 0);
  return all;
}

describe('a directory with a disk', () => {
  it('has the disk in it, of its size', () => {
    const kernel = directory();
    const { error, body } = kernel.ask(Opcode.LOOKUP, nameBody(NAME));
    assert.equal(error, 0);
    assert.ok(body.readBigUInt64LE(0) > 1n, 'a number of its own');
    assert.equal(body.readBigUInt64LE(16), 0n, 'the name is asked for each time');
    const attributes = body.subarray(40);
    assert.equal(attributes.readBigUInt64LE(0), body.readBigUInt64LE(0));
    assert.equal(attributes.readBigUInt64LE(8), BigInt(SIZE));
    assert.equal(attributes.readUInt32LE(60), S_IFREG | 0o600);
    assert.equal(attributes.readUInt32LE(64), 1);
  });

  it('has nothing else in it', () => {
    const kernel = directory();
    for (const name of ['', 'disk.ra', 'disk.raw1', 'DISK.RAW', '..', 'x'.repeat(255)]) {
      assert.equal(lookup(kernel, name), 0, name);
    }
  });

  it('is a directory that its owner can list', () => {
    const { error, body } = directory().ask(Opcode.GETATTR, Buffer.alloc(16));
    assert.equal(error, 0);
    const attributes = body.subarray(16);
    assert.equal(attributes.readUInt32LE(60), S_IFDIR | 0o550);
    assert.deepEqual([attributes.readUInt32LE(68), attributes.readUInt32LE(72)], [1, 2]);
  });

  it('lists the same, however little room there is', () => {
    const kernel = directory();
    const id = lookup(kernel, NAME);
    const whole = list(kernel, 4096).map(({ name, type }) => [name, type]);
    assert.deepEqual(whole, [
      ['.', 4],
      ['..', 4],
      [NAME, 8],
    ]);
    assert.equal(list(kernel, 4096)[2]?.id, id);
    assert.deepEqual(
      list(kernel, 32).map(({ name, type }) => [name, type]),
      whole,
    );
  });

  it('gives who lists it each name once, though names come and go meanwhile', () => {
    const kernel = directory();
    for (let i = 1; i <= 5; i++) kernel.tree.add(`${NAME}${i}`, kernel.file);
    let round = 0;
    const names = list(kernel, 40, () => {
      kernel.tree.remove(`${NAME}${round++}`);
      kernel.tree.add(`new${round}`, kernel.file);
    }).map(({ name }) => name);
    assert.deepEqual(names, ['.', '..', NAME, ...[1, 2, 3, 4, 5].map((i) => `${NAME}${i}`)]);
  });

  it('reads nothing from a listing that was never opened, or far behind its end', () => {
    const kernel = directory();
    assert.equal(kernel.ask(Opcode.READDIR, readBody(77n, 0n, 4096)).body.length, 0);
    const fh = kernel.ask(Opcode.OPENDIR, fields([4, 0], [4, 0])).body.readBigUInt64LE(0);
    assert.equal(kernel.ask(Opcode.READDIR, readBody(fh, 2n ** 63n, 4096)).body.length, 0);
  });

  it('lets nobody make, rename or remove anything, nor change the directory', () => {
    const kernel = directory();
    for (const name of [
      'MKNOD',
      'MKDIR',
      'CREATE',
      'TMPFILE',
      'SYMLINK',
      'LINK',
      'UNLINK',
      'RMDIR',
      'RENAME',
      'RENAME2',
    ] as const) {
      assert.equal(kernel.ask(Opcode[name], Buffer.alloc(64)).error, errno.EPERM, name);
    }
    const mode = Buffer.alloc(88);
    mode.writeUInt32LE(Fattr.MODE, 0);
    assert.equal(kernel.ask(Opcode.SETATTR, mode).error, errno.EPERM);
    assert.equal(kernel.ask(Opcode.ACCESS, fields([4, 2], [4, 0])).error, errno.EPERM);
    assert.equal(kernel.ask(Opcode.ACCESS, fields([4, 5], [4, 0])).error, 0);
  });

  it('is no file, and a file is no directory', () => {
    const kernel = directory();
    assert.equal(kernel.ask(Opcode.OPEN, fields([4, 0], [4, 0])).error, errno.EISDIR);
    assert.equal(kernel.ask(Opcode.READ, readBody(1n, 0n, 512)).error, errno.EISDIR);
    kernel.nodeId = lookup(kernel, NAME);
    assert.equal(kernel.ask(Opcode.LOOKUP, nameBody('x')).error, errno.ENOTDIR);
    assert.equal(kernel.ask(Opcode.OPENDIR, fields([4, 0], [4, 0])).error, errno.ENOTDIR);
  });

  it('answers for what it never had with ESTALE', () => {
    const kernel = directory();
    kernel.nodeId = 77;
    for (const [opcode, body] of [
      [Opcode.GETATTR, Buffer.alloc(16)],
      [Opcode.SETATTR, Buffer.alloc(88)],
      [Opcode.OPEN, Buffer.alloc(8)],
      [Opcode.LOOKUP, nameBody('x')],
    ] as const) {
      assert.equal(kernel.ask(opcode, body).error, errno.ESTALE);
    }
  });
});

describe('a file that is taken out of its directory', () => {
  it('goes on for those who have it, until the kernel forgets it', () => {
    const kernel = directory();
    const id = lookup(kernel, NAME);
    lookup(kernel, NAME);
    kernel.nodeId = id;
    const fh = kernel.open(O_RDWR);
    kernel.tree.remove(NAME);
    assert.equal(lookup(kernel, NAME), 0);
    kernel.nodeId = id;
    assert.equal(kernel.ask(Opcode.WRITE, writeBody(fh, 0n, Buffer.from('still'))).error, 0);
    assert.equal(kernel.disk.content.toString('utf8', 0, 5), 'still');
    assert.deepEqual(
      kernel.tree.files().map((node) => node.id),
      [id],
      'and is flushed at the end',
    );
    kernel.send(Opcode.FORGET, fields([8, 1n]));
    assert.equal(kernel.ask(Opcode.GETATTR, Buffer.alloc(16)).error, 0, 'one lookup is left');
    assert.equal(kernel.ask(Opcode.RELEASE, fields([8, fh], [8, 0], [8, 0])).error, 0);
    kernel.send(
      Opcode.BATCH_FORGET,
      fields([4, 2], [4, 0], [8, 99n], [8, 5n], [8, BigInt(id)], [8, 1n]),
    );
    assert.equal(kernel.ask(Opcode.GETATTR, Buffer.alloc(16)).error, errno.ESTALE);
    assert.deepEqual(kernel.tree.files(), []);
  });

  it('never gives its number to another', () => {
    const kernel = directory();
    const first = lookup(kernel, NAME);
    kernel.tree.add(NAME, kernel.file);
    const second = lookup(kernel, NAME);
    assert.notEqual(second, first);
    kernel.nodeId = first;
    assert.equal(kernel.ask(Opcode.GETATTR, Buffer.alloc(16)).error, 0);
  });

  it('stays while it is listed, however often it is forgotten', () => {
    const kernel = directory();
    kernel.nodeId = lookup(kernel, NAME);
    kernel.send(Opcode.FORGET, fields([8, 2n ** 60n]));
    assert.equal(kernel.ask(Opcode.GETATTR, Buffer.alloc(16)).error, 0);
    assert.notEqual(lookup(kernel, NAME), 0);
  });

  it('survives a BATCH_FORGET that promises more than it has', () => {
    const kernel = directory();
    kernel.send(Opcode.BATCH_FORGET, fields([4, 0xffffffff], [4, 0], [8, 1n]));
    assert.notEqual(lookup(kernel, NAME), 0);
  });
});
