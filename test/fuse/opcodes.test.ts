/** Each request by itself, with the sizes of linux/fuse.h, and then many at once. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errno } from '../../src/errno.js';
import { Fattr, Notify, O_DSYNC, Opcode, WriteFlag } from '../../src/fuse/constants.js';
import { Slab } from '../../src/fuse/request-arena.js';
import { FakeKernel, fields, pass, readBody, writeBody } from '../support/fake-kernel.js';
import { seeded } from '../support/memory-disk.js';

const SIZE = 64 * 1024;
const O_RDWR = 2;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;

const flushBody = (fh: bigint): Buffer => fields([8, fh], [4, 0], [4, 0], [8, 0]);
const fsyncBody = (fh: bigint): Buffer => fields([8, fh], [4, 0], [4, 0]);
const releaseBody = (fh: bigint): Buffer => fields([8, fh], [4, 0], [4, 0], [8, 0]);
const fallocateBody = (mode: number, offset: bigint, length: bigint): Buffer =>
  fields([8, 1], [8, offset], [8, length], [4, mode], [4, 0]);

/** Lets a disk answer that was held, also what it is only asked after an answer. */
function answerAll(held: (() => void)[]): void {
  while (held.length > 0) held.shift()?.();
}

/** What the kernel sends at the least, and gets an answer to. */
const BODIES: readonly (readonly [name: keyof typeof Opcode, bytes: number, reply: number])[] = [
  ['GETATTR', 16, 104],
  ['SETATTR', 88, 104],
  ['OPEN', 8, 16],
  ['READ', 40, 0],
  ['WRITE', 40, 8],
  ['STATFS', 0, 80],
  ['RELEASE', 24, 0],
  ['FSYNC', 16, 0],
  ['FLUSH', 24, 0],
  ['ACCESS', 8, 0],
  ['DESTROY', 0, 0],
  ['LSEEK', 24, 8],
];

/** What the file of a disk does not have; the kernel asks once and then no more. */
const UNKNOWN: readonly (keyof typeof Opcode)[] = [
  'READLINK',
  'SETXATTR',
  'GETXATTR',
  'LISTXATTR',
  'REMOVEXATTR',
  'GETLK',
  'SETLK',
  'SETLKW',
  'BMAP',
  'POLL',
  'READDIRPLUS',
  'COPY_FILE_RANGE',
  'SYNCFS',
  'STATX',
];

describe('each request', () => {
  for (const [name, bytes, reply] of BODIES) {
    it(`${name} is answered with ${reply} bytes, and with EINVAL when it is short`, () => {
      const kernel = new FakeKernel();
      // A WRITE comes with a byte of data.
      const whole = Buffer.alloc(name === 'WRITE' ? bytes + 1 : bytes);
      if (name === 'WRITE') whole.writeUInt32LE(1, 16);
      if (name === 'LSEEK') whole.writeUInt32LE(4, 16);
      const answer = kernel.ask(Opcode[name], whole);
      assert.deepEqual([answer.error, answer.body.length], [0, reply]);
      for (let length = 0; length < bytes; length++) {
        const { error } = kernel.ask(Opcode[name], whole.subarray(0, length));
        assert.equal(error, errno.EINVAL, `${length} bytes`);
      }
      assert.equal(kernel.protocol.open, 0);
    });
  }

  it('that is unknown gets ENOSYS, whatever comes with it', () => {
    const kernel = new FakeKernel();
    for (const opcode of [...UNKNOWN.map((name) => Opcode[name]), 0, 7, 53, 4096, 0xffffffff]) {
      for (const length of [0, 1, 16, 200]) {
        assert.equal(kernel.ask(opcode, Buffer.alloc(length)).error, errno.ENOSYS, `${opcode}`);
      }
    }
  });

  it('that is no request is left alone', () => {
    const kernel = new FakeKernel();
    const fh = kernel.open(0);
    const slab = new Slab(8192);
    for (const [told, length] of [
      [40, 39],
      [41, 40],
      [0, 40],
    ] as const) {
      slab.view.setUint32(0, told, true);
      kernel.protocol.handle(slab, length);
    }
    assert.equal(kernel.replies.size, 1);
    assert.equal(kernel.ask(Opcode.READ, readBody(fh, 0n, 1)).error, 0);
  });

  it('gets its own unique back, all 64 bits of it', () => {
    const kernel = new FakeKernel();
    for (const unique of [2n, 0xffff_ffff_ffff_fffen, 0x8000_0000n, 0x20_0000_0000_0002n]) {
      kernel.unique = unique;
      kernel.ask(Opcode.STATFS);
      assert.ok(kernel.replies.has(unique));
    }
  });

  it('is answered once: a second answer is told as a bug', () => {
    const kernel = new FakeKernel();
    const { disk } = kernel;
    const read = disk.read.bind(disk);
    disk.read = (offset, length, reply) => {
      read(offset, length, reply);
      reply.fail(errno.EIO);
    };
    const ask = (): bigint => kernel.send(Opcode.READ, readBody(1n, 0n, 512));
    assert.throws(ask, /READ was answered twice/);
    disk.flush = (reply) => {
      reply.done(0);
      reply.done(0);
    };
    kernel.ask(Opcode.WRITE, writeBody(1n, 0n, Buffer.alloc(1)));
    assert.throws(() => kernel.send(Opcode.FSYNC, fsyncBody(1n)), /FSYNC was answered twice/);
    assert.equal(kernel.replies.size, 3);
  });

  it('is answered also when the disk throws', () => {
    const kernel = new FakeKernel();
    kernel.disk.read = () => {
      throw new Error('a bug');
    };
    assert.throws(() => kernel.send(Opcode.READ, readBody(1n, 0n, 512)), /a bug/);
    assert.deepEqual(
      [...kernel.replies.values()].map(({ error }) => error),
      [errno.EIO],
    );
  });
});

describe('FLUSH, FSYNC and RELEASE', () => {
  for (const [name, body] of [
    ['FLUSH', flushBody],
    ['FSYNC', fsyncBody],
    ['RELEASE', releaseBody],
  ] as const) {
    it(`${name} is answered after the disk has flushed, and asks for no second flush`, () => {
      const kernel = new FakeKernel();
      const fh = kernel.open(O_RDWR);
      kernel.ask(Opcode.WRITE, writeBody(fh, 0n, Buffer.alloc(512)));
      const held: (() => void)[] = [];
      kernel.disk.flush = (reply) => void held.push(() => reply.done(0));
      const unique = kernel.send(Opcode[name], body(fh));
      assert.ok(!kernel.replies.has(unique), 'it waits');
      assert.equal(held.length, 1);
      held[0]?.();
      assert.equal(kernel.replies.get(unique)?.error, 0);
      assert.equal(kernel.ask(Opcode[name], body(fh)).error, 0);
      assert.equal(held.length, 1);
    });
  }

  it('tell of a flush that failed, but for RELEASE, which nobody hears', () => {
    const kernel = new FakeKernel();
    const fh = kernel.open(O_RDWR);
    kernel.ask(Opcode.WRITE, writeBody(fh, 0n, Buffer.alloc(512)));
    const failing = (opcode: number, body: Buffer): number => {
      kernel.disk.failNext.set('flush', errno.ENOSPC);
      return kernel.ask(opcode, body).error;
    };
    assert.equal(failing(Opcode.FLUSH, flushBody(fh)), errno.ENOSPC);
    assert.equal(failing(Opcode.FSYNC, fsyncBody(fh)), errno.ENOSPC);
    assert.equal(failing(Opcode.RELEASE, releaseBody(fh)), 0);
  });

  it('count the writers: holes are told again when the last is gone', () => {
    const kernel = new FakeKernel();
    const seek = (): bigint =>
      kernel.ask(Opcode.LSEEK, fields([8, 1], [8, 0], [4, 4], [4, 0])).body.readBigUInt64LE(0);
    const writers = [kernel.open(O_RDWR), kernel.open(1)];
    const reader = kernel.open(0);
    for (const fh of writers) {
      assert.equal(seek(), BigInt(SIZE));
      kernel.ask(Opcode.RELEASE, releaseBody(fh));
    }
    assert.equal(seek(), 0n);
    kernel.ask(Opcode.RELEASE, releaseBody(reader));
    // The kernel does not, but a number of its own making must not count.
    kernel.ask(Opcode.RELEASE, releaseBody(4711n));
    assert.equal(seek(), 0n);
  });
});

describe('WRITE', () => {
  it('with O_DSYNC is answered after a flush, where the disk has no FUA', () => {
    const kernel = new FakeKernel({ canFua: false });
    const held: (() => void)[] = [];
    kernel.disk.flush = (reply) => void held.push(() => reply.done(0));
    const body = writeBody(1n, 0n, Buffer.alloc(512), { flags: O_DSYNC });
    const unique = kernel.send(Opcode.WRITE, body);
    assert.ok(!kernel.replies.has(unique));
    held[0]?.();
    assert.equal(kernel.replies.get(unique)?.body.readUInt32LE(0), 512);
  });

  it('takes the set-id bits away when the kernel says so', () => {
    const kernel = new FakeKernel();
    kernel.file.change({ mode: 0o104755 });
    const writeFlags = WriteFlag.KILL_SUIDGID;
    kernel.ask(Opcode.WRITE, writeBody(1n, 0n, Buffer.alloc(1), { writeFlags }));
    assert.equal(kernel.file.attributes().mode & 0o7777, 0o755);
  });

  it('from the page cache that fails in the disk tells that, and not the end', () => {
    const kernel = new FakeKernel();
    kernel.disk.failNext.set('write', errno.EIO);
    const cached = { writeFlags: WriteFlag.CACHE };
    const body = writeBody(1n, BigInt(SIZE - 1), Buffer.alloc(2), cached);
    assert.equal(kernel.ask(Opcode.WRITE, body).error, errno.EIO);
  });

  it('far past the end, where offsets have 64 bits, has no room', () => {
    const kernel = new FakeKernel();
    for (const offset of [2n ** 63n - 1n, 2n ** 64n - 1n]) {
      const { error } = kernel.ask(Opcode.WRITE, writeBody(1n, offset, Buffer.alloc(1)));
      assert.equal(error, errno.ENOSPC);
    }
  });
});

describe('SETATTR and GETATTR', () => {
  it('tell of what was changed', () => {
    const kernel = new FakeKernel();
    const body = Buffer.alloc(88);
    body.writeUInt32LE(Fattr.MODE | Fattr.UID | Fattr.GID | Fattr.MTIME, 0);
    body.writeBigInt64LE(-5n, 40);
    body.writeUInt32LE(7, 60);
    body.writeUInt32LE(0o100751, 68);
    body.writeUInt32LE(21, 76);
    body.writeUInt32LE(22, 80);
    const changed = kernel.ask(Opcode.SETATTR, body).body;
    const attr = changed.subarray(16);
    assert.deepEqual([attr.readBigInt64LE(32), attr.readUInt32LE(52)], [-5n, 7]);
    assert.deepEqual(
      [attr.readUInt32LE(60), attr.readUInt32LE(68), attr.readUInt32LE(72)],
      [0o100751, 21, 22],
    );
    const asked = kernel.ask(Opcode.GETATTR, Buffer.alloc(16)).body;
    // All but what is only known when somebody asks: the blocks, at 32, and how long it is valid.
    for (const [start, end] of [
      [16, 32],
      [40, 104],
    ] as const) {
      assert.ok(asked.subarray(start, end).equals(changed.subarray(start, end)));
    }
    assert.equal(changed.readBigUInt64LE(0), 0n);
    assert.ok(asked.readBigUInt64LE(0) > 0n);
  });

  it('count the blocks for who asks by name, and keep no write waiting for them', () => {
    const kernel = new FakeKernel();
    kernel.disk.content.fill(1, 0, 1024);
    const held: (() => void)[] = [];
    const extents = kernel.disk.extents.bind(kernel.disk);
    kernel.disk.extents = (...all) => void held.push(() => extents(...all));
    const blocks = (body: Buffer | undefined): bigint | undefined => body?.readBigUInt64LE(32);
    const fh = kernel.open(O_RDWR);
    const byHandle = fields([4, 1], [4, 0], [8, fh]);
    assert.equal(blocks(kernel.ask(Opcode.GETATTR, byHandle).body), BigInt(SIZE / 512));
    assert.equal(held.length, 0);
    const unique = kernel.send(Opcode.GETATTR, Buffer.alloc(16));
    assert.ok(!kernel.replies.has(unique));
    answerAll(held);
    assert.equal(blocks(kernel.replies.get(unique)?.body), 2n);
    assert.equal(blocks(kernel.ask(Opcode.GETATTR, byHandle).body), 2n);
  });
});

describe('FALLOCATE', () => {
  for (const [name, mode, offset, length, error, log] of [
    ['punches', PUNCH_HOLE | KEEP_SIZE, 512n, 1024n, 0, ['zero 512+1024']],
    ['zeroes', ZERO_RANGE, 512n, 1024n, 0, ['zero-nohole 512+1024']],
    ['has no room past the end', ZERO_RANGE, 65000n, 1024n, errno.ENOSPC, []],
    ['does not allocate', 0, 0n, 1024n, errno.EOPNOTSUPP, []],
  ] as const) {
    it(name, () => {
      const kernel = new FakeKernel();
      const answer = kernel.ask(Opcode.FALLOCATE, fallocateBody(mode, offset, length));
      assert.deepEqual([answer.error, answer.body.length], [error, 0]);
      assert.deepEqual(kernel.disk.log, log);
    });
  }
});

describe('FLUSH', () => {
  it('of who can only read waits for nobody', () => {
    const kernel = new FakeKernel();
    const [reading, writing] = [kernel.open(0), kernel.open(2)];
    assert.equal(kernel.ask(Opcode.WRITE, writeBody(writing, 0n, Buffer.alloc(512))).error, 0);
    kernel.disk.flush = () => undefined;
    assert.equal(kernel.ask(Opcode.FLUSH, fields([8, reading], [8, 0], [8, 0])).error, 0);
    const unique = kernel.send(Opcode.FLUSH, fields([8, writing], [8, 0], [8, 0]));
    assert.ok(!kernel.replies.has(unique), 'the close of the writer does');
  });
});

describe('INTERRUPT', () => {
  it('finds a request whose unique has all bits in use, and no other', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const kernel = new FakeKernel();
    const held: (() => void)[] = [];
    const read = kernel.disk.read.bind(kernel.disk);
    kernel.disk.read = (...all) => void held.push(() => read(...all));
    const uniques = [0xffff_ffff_ffff_fffcn, 0xffff_fffen, 0xffff_fffe_ffff_fffcn];
    for (const unique of uniques) {
      kernel.unique = unique;
      kernel.send(Opcode.READ, readBody(1n, 0n, 512));
    }
    kernel.unique = 0x1000n;
    kernel.send(Opcode.INTERRUPT, fields([8, 0xffff_ffff_ffff_fffdn]));
    pass(t, 60_000);
    assert.deepEqual([...kernel.replies.keys()], [0xffff_ffff_ffff_fffcn]);
    for (const run of held) run();
    assert.deepEqual(
      uniques.map((unique) => kernel.replies.get(unique)?.error),
      [errno.EINTR, 0, 0],
    );
    assert.equal(kernel.protocol.open, 0);
  });

  it('never gives up a WRITE', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const kernel = new FakeKernel();
    const held: (() => void)[] = [];
    const write = kernel.disk.write.bind(kernel.disk);
    kernel.disk.write = (...all) => void held.push(() => write(...all));
    const unique = kernel.send(Opcode.WRITE, writeBody(1n, 0n, Buffer.alloc(512, 7)));
    kernel.send(Opcode.INTERRUPT, fields([8, unique + 1n]));
    pass(t, 60_000);
    assert.equal(kernel.replies.size, 0);
    held[0]?.();
    assert.equal(kernel.replies.get(unique)?.error, 0);
    assert.equal(kernel.disk.content[511], 7);
  });

  /** Sends a request that the disk keeps waiting. @returns its unique, and the disk's answer */
  function waiting(kernel: FakeKernel, opcode: number): { unique: bigint; answer: () => void } {
    const held: (() => void)[] = [];
    const { disk } = kernel;
    const read = disk.read.bind(disk);
    const write = disk.write.bind(disk);
    const flush = disk.flush.bind(disk);
    const extents = disk.extents.bind(disk);
    disk.read = (...all) => void held.push(() => read(...all));
    disk.write = (...all) => void held.push(() => write(...all));
    disk.flush = (...all) => void held.push(() => flush(...all));
    disk.extents = (...all) => void held.push(() => extents(...all));
    const bodies = new Map<number, Buffer>([
      [Opcode.READ, readBody(1n, 0n, 512)],
      [Opcode.WRITE, writeBody(1n, 0n, Buffer.alloc(512, 7))],
      [Opcode.FSYNC, fields([8, 1], [8, 0])],
      [Opcode.LSEEK, fields([8, 1], [8, 0], [4, 3], [4, 0])],
    ]);
    const unique = kernel.send(opcode, bodies.get(opcode));
    assert.ok(held.length > 0, 'the disk was asked');
    return { unique, answer: () => held.splice(0).forEach((run) => run()) };
  }

  /** A write that is answered, so that there is something to flush. */
  function writeSomething(kernel: FakeKernel): void {
    assert.equal(kernel.ask(Opcode.WRITE, writeBody(1n, 0n, Buffer.alloc(512))).error, 0);
  }

  for (const [name, opcode] of [
    ['READ', Opcode.READ],
    ['FSYNC', Opcode.FSYNC],
    ['LSEEK', Opcode.LSEEK],
  ] as const) {
    it(`lets who is being killed go at once: ${name}`, () => {
      const kernel = new FakeKernel();
      writeSomething(kernel);
      kernel.fate = 'dying';
      const { unique, answer } = waiting(kernel, opcode);
      kernel.send(Opcode.INTERRUPT, fields([8, unique]));
      assert.equal(kernel.replies.get(unique)?.error, errno.EINTR);
      answer();
      assert.equal(kernel.protocol.open, 0);
    });

    it(`lets who goes on after a signal wait for as long as it takes: ${name}`, (t) => {
      t.mock.timers.enable({ apis: ['setTimeout'] });
      const kernel = new FakeKernel();
      writeSomething(kernel);
      kernel.fate = 'living';
      const { unique, answer } = waiting(kernel, opcode);
      kernel.send(Opcode.INTERRUPT, fields([8, unique]));
      pass(t, 600_000);
      assert.ok(!kernel.replies.has(unique));
      answer();
      assert.notEqual(kernel.replies.get(unique)?.error, errno.EINTR);
      assert.ok(kernel.replies.has(unique));
    });

    it(`is told once or never, and who is killed is seen all the same: ${name}`, (t) => {
      t.mock.timers.enable({ apis: ['setTimeout'] });
      for (const told of [true, false]) {
        const kernel = new FakeKernel();
        writeSomething(kernel);
        kernel.fate = 'living';
        const { unique, answer } = waiting(kernel, opcode);
        if (told) kernel.send(Opcode.INTERRUPT, fields([8, unique]));
        pass(t, 60_000);
        assert.ok(!kernel.replies.has(unique));
        kernel.fate = 'dying';
        pass(t, 1000);
        assert.equal(kernel.replies.get(unique)?.error, errno.EINTR);
        answer();
      }
    });
  }

  it('gives up no WRITE of who is being killed: it would be done later, over what is newer', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const kernel = new FakeKernel();
    kernel.fate = 'dying';
    const { unique, answer } = waiting(kernel, Opcode.WRITE);
    kernel.send(Opcode.INTERRUPT, fields([8, unique]));
    pass(t, 60_000);
    assert.ok(!kernel.replies.has(unique));
    answer();
    assert.equal(kernel.replies.get(unique)?.error, 0);
  });

  it('gives up nothing but a READ where it cannot be told who is being killed', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const kernel = new FakeKernel();
    writeSomething(kernel);
    const { unique, answer } = waiting(kernel, Opcode.FSYNC);
    kernel.send(Opcode.INTERRUPT, fields([8, unique]));
    pass(t, 600_000);
    assert.ok(!kernel.replies.has(unique));
    answer();
    assert.equal(kernel.replies.get(unique)?.error, 0);
  });

  it('comes too late for a READ that was answered, also when its place serves the next', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const kernel = new FakeKernel();
    const first = kernel.send(Opcode.READ, readBody(1n, 0n, 512));
    kernel.send(Opcode.INTERRUPT, fields([8, first + 1n]));
    const held: (() => void)[] = [];
    const read = kernel.disk.read.bind(kernel.disk);
    kernel.disk.read = (...all) => void held.push(() => read(...all));
    const second = kernel.send(Opcode.READ, readBody(1n, 0n, 512));
    pass(t, 60_000);
    assert.ok(!kernel.replies.has(second));
    held[0]?.();
    assert.equal(kernel.replies.get(second)?.error, 0);
  });
});

describe('notifications', () => {
  it('STORE puts data into the page cache of the file', () => {
    const kernel = new FakeKernel();
    const data = Buffer.from('the end');
    assert.equal(kernel.protocol.notifyStore(kernel.node, 0x1_2345_6000n, data), 0);
    const [{ code, body } = { code: 0, body: Buffer.alloc(0) }] = kernel.notifications;
    assert.equal(code, Notify.STORE);
    assert.deepEqual([body.readBigUInt64LE(0), body.readBigUInt64LE(8)], [1n, 0x1_2345_6000n]);
    assert.deepEqual([body.readUInt32LE(16), body.readUInt32LE(20)], [data.length, 0]);
    assert.ok(body.subarray(24).equals(data));
  });
});

describe('many requests at once', () => {
  for (const [name, options] of [
    ['any alignment', {}],
    ['blocks of 4096', { limits: { minimum: 4096, preferred: 4096, maximum: 8192 } }],
    ['a disk that can neither zero nor FUA', { canZero: false, canFua: false }],
  ] as const) {
    it(`leave the disk as plain memory would be: ${name}`, async () => {
      const random = seeded(name.length);
      const pick = (below: number): number => Math.floor(random() * below);
      const size = SIZE + 100;
      const kernel = new FakeKernel({ size, shuffle: random, ...options });
      const model = Buffer.alloc(size);
      const fh = kernel.open(O_RDWR);
      for (let round = 0; round < 200; round++) {
        const checks: (() => void)[] = [];
        // Ranges that are disjoint but share blocks.
        for (let at = pick(4000); at < size - 1;) {
          const length = Math.min(1 + pick(round % 2 === 0 ? 9000 : 300), size - at);
          const [offset, kind] = [BigInt(at), pick(5)];
          if (kind === 0) {
            const expected = Buffer.from(model.subarray(at, at + length));
            const unique = kernel.send(Opcode.READ, readBody(fh, offset, length));
            checks.push(() => assert.ok(kernel.replies.get(unique)?.body.equals(expected)));
          } else if (kind === 1) {
            const mode = random() < 0.5 ? ZERO_RANGE : PUNCH_HOLE | KEEP_SIZE;
            const unique = kernel.send(
              Opcode.FALLOCATE,
              fallocateBody(mode, offset, BigInt(length)),
            );
            model.fill(0, at, at + length);
            checks.push(() => assert.equal(kernel.replies.get(unique)?.error, 0));
          } else {
            const flags = random() < 0.2 ? O_DSYNC : 0;
            const data = Buffer.alloc(length, 1 + pick(255));
            const unique = kernel.send(Opcode.WRITE, writeBody(fh, offset, data, { flags }));
            data.copy(model, at);
            checks.push(() =>
              assert.equal(kernel.replies.get(unique)?.body.readUInt32LE(0), length),
            );
          }
          at += length + (random() < 0.5 ? 0 : pick(3000));
        }
        const synced = kernel.send(Opcode.FSYNC, fsyncBody(fh));
        while (kernel.protocol.open > 0) await new Promise((resolve) => setImmediate(resolve));
        assert.equal(kernel.replies.get(synced)?.error, 0);
        for (const check of checks) check();
      }
      assert.ok(kernel.disk.content.equals(model));
    });
  }
});
