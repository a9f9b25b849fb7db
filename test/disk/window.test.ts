import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { errno } from '../../src/errno.js';
import { HEADROOM, NOT_DURABLE } from '../../src/disk/disk.js';
import { fitDisk } from '../../src/disk/fit.js';
import {
  diskExtents,
  flushDisk,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from '../../src/disk/promises.js';
import { windowDisk } from '../../src/disk/window.js';
import { MemoryDisk } from '../support/memory-disk.js';

const SIZE = 64 * 1024;

describe('a window of a disk', () => {
  it('is what the disk has there', async () => {
    const disk = new MemoryDisk({ size: SIZE });
    const window = windowDisk(disk, 1000n, 500n);
    assert.deepEqual(window.info, { ...disk.info, size: 500n });
    await writeDisk(window, 0n, Buffer.from('first'));
    await writeDisk(window, 496n, Buffer.from('last'));
    assert.equal(disk.content.toString('latin1', 1000, 1005), 'first');
    assert.equal(disk.content.toString('latin1', 1496, 1500), 'last');
    assert.equal((await readDisk(window, 496n, 4)).toString(), 'last');
    await zeroDisk(window, 1n, 3n);
    assert.equal(disk.content.toString('latin1', 1000, 1005), 'f\0\0\0t');
    disk.log.length = 0;
    await trimDisk(window, 10n, 20n);
    await flushDisk(window);
    await diskExtents(window, 0n, 500n);
    assert.deepEqual(disk.log, ['trim 1010+20', 'flush 0+0', 'extents 1000+500']);
  });

  it('lets nothing reach out of it', async () => {
    const disk = new MemoryDisk({ size: SIZE });
    const window = windowDisk(disk, 1000n, 500n);
    const code = { errno: errno.EINVAL };
    for (const [offset, length] of [
      [500n, 1],
      [0n, 501],
      [-1n, 1],
      [2n ** 63n, 1],
    ] as const) {
      await assert.rejects(readDisk(window, offset, length), code);
      await assert.rejects(writeDisk(window, offset, Buffer.alloc(length)), code);
      await assert.rejects(zeroDisk(window, offset, BigInt(length)), code);
      await assert.rejects(trimDisk(window, offset, BigInt(length)), code);
      await assert.rejects(diskExtents(window, offset, BigInt(length)), code);
    }
    await assert.rejects(zeroDisk(window, 10n, -5n), code);
    assert.deepEqual(disk.log, []);
  });

  it('is on the disk, and on its blocks', () => {
    const disk = new MemoryDisk({ size: SIZE });
    for (const [offset, size] of [
      [0n, 0n],
      [-1n, 10n],
      [0n, BigInt(SIZE) + 1n],
      [BigInt(SIZE), 1n],
    ] as const) {
      assert.throws(() => windowDisk(disk, offset, size), RangeError);
    }
    const limits = { minimum: 4096, preferred: 4096, maximum: 65536 };
    const blocks = new MemoryDisk({ size: SIZE, limits });
    assert.throws(() => windowDisk(blocks, 512n, 4096n), RangeError);
    assert.equal(windowDisk(fitDisk(blocks, 65536), 512n, 4096n).info.size, 4096n);
  });

  it('does not close the disk', async () => {
    const disk = new MemoryDisk({ size: SIZE });
    let closed = 0;
    disk.close = () => {
      closed++;
      return Promise.resolve();
    };
    await windowDisk(disk, 0n, 10n).close();
    assert.equal(closed, 0);
  });

  it('hands payload on without a copy', () => {
    const disk = new MemoryDisk({ size: SIZE });
    let seen: Buffer | undefined;
    disk.write = (_offset, bytes) => void (seen = bytes);
    const bytes = Buffer.alloc(HEADROOM + 10);
    const reply = { done: () => undefined };
    windowDisk(disk, 100n, 100n).write(0n, bytes, HEADROOM, 10, NOT_DURABLE, reply);
    assert.equal(seen, bytes);
  });

  it('behaves as a disk of its own, whatever the blocks of the disk are', () =>
    fc.assert(
      fc.asyncProperty(
        fc.constantFrom(1, 512, 4096),
        fc.nat(20_000),
        fc.integer({ min: 1, max: 40_000 }),
        fc.array(
          fc.tuple(
            fc.constantFrom('read', 'write', 'zero'),
            fc.nat(39_999),
            fc.nat(9000),
            fc.nat(255),
          ),
          { maxLength: 30 },
        ),
        async (minimum, offset, size, steps) => {
          const limits = { minimum, preferred: 4096, maximum: 8192 };
          const disk = new MemoryDisk({ size: SIZE, limits });
          disk.content.fill(0xee);
          const window = windowDisk(fitDisk(disk, 16384), BigInt(offset), BigInt(size));
          const model = Buffer.alloc(size, 0xee);
          for (const [what, at, wanted, value] of steps) {
            const from = at % size;
            const length = Math.min(wanted + 1, size - from);
            if (what === 'read') {
              const got = await readDisk(window, BigInt(from), length);
              assert.ok(got.equals(model.subarray(from, from + length)));
            } else if (what === 'write') {
              await writeDisk(window, BigInt(from), Buffer.alloc(length, value));
              model.fill(value, from, from + length);
            } else {
              await zeroDisk(window, BigInt(from), BigInt(length));
              model.fill(0, from, from + length);
            }
          }
          const around = Buffer.alloc(SIZE, 0xee);
          model.copy(around, offset);
          assert.ok(disk.content.equals(around), 'nothing around it has changed');
        },
      ),
      { numRuns: 150 },
    ));
});
