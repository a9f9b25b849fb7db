/** Disks made of functions. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { diskOf } from '../../src/disk/custom-disk.js';
import type { CustomDisk, CustomExtent } from '../../src/disk/custom-disk.js';
import type { Disk } from '../../src/disk/disk.js';
import {
  diskExtents,
  flushDisk,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from '../../src/disk/promises.js';

/** A disk over a buffer, which notes what it is asked. */
function bufferDisk(more: Partial<CustomDisk<number>> = {}): {
  disk: Disk;
  content: Buffer;
  asked: unknown[][];
} {
  const content = Buffer.alloc(8192);
  const asked: unknown[][] = [];
  const disk = diskOf({
    size: content.length,
    read: (offset, length) => content.subarray(offset, offset + length),
    write(offset, data) {
      asked.push(['write', offset, data.length]);
      data.copy(content, offset);
    },
    ...more,
  });
  return { disk, content, asked };
}

const error = (fields: object): Error => Object.assign(new Error('x'), fields);

describe('a disk made of functions', () => {
  it('reads and writes', async () => {
    const { disk, content, asked } = bufferDisk();
    await writeDisk(disk, 4096n, Buffer.from('hello'));
    assert.equal(content.toString('latin1', 4096, 4101), 'hello');
    assert.deepEqual(asked, [['write', 4096, 5]]);
    assert.equal((await readDisk(disk, 4096n, 5)).toString(), 'hello');
  });

  it('is what its functions can do', () => {
    const { info } = bufferDisk().disk;
    assert.equal(info.size, 8192n);
    assert.equal(info.readOnly, false);
    // What is written is durable, where there is nothing that would flush it.
    assert.deepEqual([info.canFlush, info.canFua], [false, true]);
    assert.deepEqual([info.canTrim, info.canZero, info.canExtents], [false, false, false]);
    const all = bufferDisk({
      flush: () => undefined,
      trim: () => undefined,
      zero: () => undefined,
      extents: () => [],
      blockSize: 512,
      maximumSize: 65536,
    }).disk.info;
    assert.deepEqual([all.canFlush, all.canFua], [true, false]);
    assert.deepEqual([all.canTrim, all.canZero, all.canExtents], [true, true, true]);
    assert.deepEqual(all.limits, { minimum: 512, preferred: 4096, maximum: 65536 });
  });

  it('is read-only without a write, or where it says so', async () => {
    const reader = diskOf({ size: 512, read: (_offset, length) => Buffer.alloc(length) });
    const { disk, asked } = bufferDisk({ readOnly: true, zero: () => undefined });
    for (const one of [reader, disk]) {
      assert.equal(one.info.readOnly, true);
      assert.equal(one.info.canZero, false);
      await assert.rejects(writeDisk(one, 0n, Buffer.alloc(1)), { code: 'EROFS' });
      await assert.rejects(zeroDisk(one, 0n, 1n), { code: 'EROFS' });
      await assert.rejects(trimDisk(one, 0n, 1n), { code: 'EROFS' });
      await flushDisk(one);
    }
    assert.deepEqual(asked, []);
  });

  it('passes on ranges and options as its size is given', async () => {
    const asked: unknown[][] = [];
    const note =
      (what: string) =>
      (...args: unknown[]): void =>
        void asked.push([what, ...args]);
    const size = 2n ** 62n;
    const disk = diskOf({
      size,
      read: (offset, length) => {
        asked.push(['read', offset, length]);
        return Promise.resolve(new Uint8Array(length));
      },
      write: (offset, data) => void asked.push(['write', offset, data.length]),
      flush: note('flush'),
      trim: note('trim'),
      zero: note('zero'),
    });
    const at = size - 4096n;
    await readDisk(disk, at, 16);
    await writeDisk(disk, at, Buffer.alloc(3));
    await trimDisk(disk, at, 4096n);
    await zeroDisk(disk, at, 4096n, { fua: false, noHole: true });
    await flushDisk(disk);
    assert.deepEqual(asked, [
      ['read', at, 16],
      ['write', at, 3],
      ['trim', at, 4096n],
      ['zero', at, 4096n, { noHole: true }],
      ['flush'],
    ]);
  });

  it('calls its functions as methods', async () => {
    class Filled implements CustomDisk<number> {
      readonly size = 512;
      readonly #byte = 7;
      read(_offset: number, length: number): Buffer {
        return Buffer.alloc(length, this.#byte);
      }
    }
    assert.deepEqual(await readDisk(diskOf(new Filled()), 0n, 2), Buffer.from([7, 7]));
  });

  it('gives a write its own copy of the data', async () => {
    const kept: Buffer[] = [];
    const { disk } = bufferDisk({ write: (_offset, data) => void kept.push(data) });
    const bytes = Buffer.alloc(64, 'a');
    await new Promise<void>((resolve) => {
      disk.write(0n, bytes, 32, 4, { fua: false }, { done: () => resolve() });
      // What is behind it in a reply is free for others by then.
    });
    bytes.fill('b');
    assert.equal(kept[0]?.toString(), 'aaaa');
  });

  for (const [what, thrown, code] of [
    ['its code', error({ code: 'ENOSPC' }), 'ENOSPC'],
    ['its errno', error({ errno: 122 }), 'EDQUOT'],
    ['the negated errno of a system error', error({ errno: -13 }), 'EACCES'],
    ['the code rather than the errno', error({ code: 'EPERM', errno: -5 }), 'EPERM'],
  ] as const) {
    it(`passes an error on by ${what}`, async () => {
      const told: unknown[] = [];
      const { disk } = bufferDisk({
        read: () => Promise.reject(thrown),
        write: () => {
          throw thrown;
        },
        onError: (one) => told.push(one),
      });
      await assert.rejects(readDisk(disk, 0n, 1), { code });
      await assert.rejects(writeDisk(disk, 0n, Buffer.alloc(1)), { code });
      await turn();
      assert.deepEqual(told, []);
    });
  }

  for (const [what, thrown] of [
    ['that has none', new Error('a bug')],
    ['that is of Node alone', error({ code: 'ERR_INVALID_ARG_TYPE' })],
    ['that no errno is', error({ code: 'ENOTFOUND', errno: -3008 })],
    ['that is no error', 'a text'],
    ['that is nothing', undefined],
  ] as const) {
    it(`makes EIO of an error ${what}, and tells of it`, async () => {
      const told: unknown[] = [];
      const { disk } = bufferDisk({
        read() {
          // What is no error can be thrown as well.
          // eslint-disable-next-line @typescript-eslint/only-throw-error
          throw thrown;
        },
        onError: (one) => told.push(one),
      });
      await assert.rejects(readDisk(disk, 0n, 1), { code: 'EIO' });
      await turn();
      assert.deepEqual(told, [thrown]);
    });
  }

  for (const [what, bytes] of [
    ['too few bytes', Buffer.alloc(9)],
    ['too many bytes', Buffer.alloc(11)],
    ['no bytes', undefined],
    ['a text', '0123456789'],
    ['other numbers', new Uint16Array(10)],
  ] as const) {
    it(`does not take ${what} for what was read`, async () => {
      const told: unknown[] = [];
      const { disk } = bufferDisk({
        read: () => bytes as Uint8Array,
        onError: (one) => told.push(one),
      });
      await assert.rejects(readDisk(disk, 0n, 10), { code: 'EIO' });
      await turn();
      assert.match(String(told[0]), /^TypeError: read\(0, 10\) .* a Uint8Array of 10 bytes$/);
    });
  }

  it('runs so many of its functions at once, and all of them in the end', async () => {
    let running = 0;
    let most = 0;
    const { disk } = bufferDisk({
      concurrency: 3,
      async read(_offset, length) {
        most = Math.max(most, ++running);
        await turn();
        running--;
        return Buffer.alloc(length);
      },
    });
    await Promise.all(Array.from({ length: 20 }, (_, i) => readDisk(disk, BigInt(i), 1)));
    assert.equal(most, 3);
  });

  it('tells extents, up to the end of what was asked', async () => {
    const told: CustomExtent[][] = [
      [{ length: 4096, hole: true, zero: true }, { length: 10_000n }, { length: 5 }],
      [],
      [{ length: 0 }],
      [{ length: 0.5 }],
    ];
    const { disk } = bufferDisk({ extents: () => told.shift() ?? [] });
    assert.deepEqual(await diskExtents(disk, 0n, 8192n), [
      { length: 4096n, hole: true, zero: true },
      { length: 10_000n, hole: false, zero: false },
    ]);
    for (let i = 0; i < 3; i++) {
      await assert.rejects(diskExtents(disk, 0n, 8192n), { code: 'EIO' });
    }
    assert.deepEqual(await diskExtents(bufferDisk().disk, 0n, 8192n), [
      { length: 8192n, hole: false, zero: false },
    ]);
  });

  it('closes once, when nothing runs any more, and refuses what comes then', async () => {
    const order: string[] = [];
    const { disk } = bufferDisk({
      async read(_offset, length) {
        await turn();
        order.push('read');
        return Buffer.alloc(length);
      },
      close: () => void order.push('close'),
    });
    const reading = readDisk(disk, 0n, 1);
    await Promise.all([disk.close(), disk.close()]);
    await reading;
    assert.deepEqual(order, ['read', 'close']);
    await assert.rejects(readDisk(disk, 0n, 1), { code: 'EIO' });
  });

  it('closes also where that fails, and tells of it', async () => {
    const told: unknown[] = [];
    const failure = new Error('cannot close');
    const { disk } = bufferDisk({
      close: () => Promise.reject(failure),
      onError: (one) => told.push(one),
    });
    await disk.close();
    await turn();
    assert.deepEqual(told, [failure]);
  });

  for (const [what, wrong] of [
    ['a fraction', { size: 1.5 }],
    ['a negative one', { size: -1 }],
    ['one that is not exact', { size: 2 ** 60 }],
    ['a block that is no power of two', { blockSize: 1000 }],
    ['a block of 0', { blockSize: 0 }],
    ['a huge block', { blockSize: 131072 }],
    ['a maximum that is no multiple of the block', { blockSize: 512, maximumSize: 1000 }],
    ['a maximum of 0', { maximumSize: 0 }],
    ['nothing at once', { concurrency: 0 }],
  ] as const) {
    it(`cannot have ${what} for a size or a number`, () => {
      assert.throws(() => bufferDisk(wrong), RangeError);
    });
  }

  it('is no longer than a disk can be', () => {
    const read = (_offset: bigint, length: number): Buffer => Buffer.alloc(length);
    assert.equal(diskOf({ size: 2n ** 63n - 1n, read }).info.size, 2n ** 63n - 1n);
    assert.throws(() => diskOf({ size: 2n ** 63n, read }), RangeError);
  });
});
