import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  diskExtents,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from '../../../src/disk/promises.js';
import { MemoryDisk, openMemory } from '../../../src/server/plugins/memory.js';
import { exerciseDisk } from '../../support/server-model.js';

const PAGE = 32 * 1024;
const T = 1n << 40n;
const zero = { length: 0n, hole: true, zero: true };
const data = { length: 0n, hole: false, zero: false };
const kept = { length: 0n, hole: false, zero: true };

describe('memory: beside a model', () => {
  for (let seed = 1; seed <= 6; seed++) {
    it(`does what a buffer does (seed ${seed})`, async () => {
      const size = 5 * PAGE + 1000;
      const disk = new MemoryDisk(BigInt(size));
      await exerciseDisk(disk, Buffer.alloc(size), { seed, steps: 600, longest: 3 * PAGE });
    });
  }

  it('does so across the border of two directories, and far out', async () => {
    for (const base of [32n * 1024n * 1024n - 70_000n, 9n * 10n ** 18n]) {
      const disk = new MemoryDisk(2n ** 63n - 512n);
      const model = Buffer.alloc(5 * PAGE);
      await exerciseDisk(disk, model, { seed: 9, steps: 400, longest: 3 * PAGE, base });
    }
  });
});

describe('memory: what it takes', () => {
  it('is pages for what was written, and none for zeroes', async () => {
    const disk = new MemoryDisk(T);
    await writeDisk(disk, T - 5n, Buffer.from('hello'));
    assert.equal(disk.allocatedBytes, PAGE);
    await writeDisk(disk, 0n, Buffer.alloc(4 * PAGE));
    assert.equal(disk.allocatedBytes, PAGE);
    await writeDisk(disk, BigInt(PAGE - 1), Buffer.from('ab'));
    assert.equal(disk.allocatedBytes, 3 * PAGE);
    assert.equal((await readDisk(disk, T - 5n, 5)).toString(), 'hello');
  });

  it('is given back by trim and zero', async () => {
    const disk = new MemoryDisk(T);
    for (let i = 0n; i < 4n; i++) await writeDisk(disk, (i * T) / 4n, Buffer.alloc(2 * PAGE, 1));
    assert.equal(disk.allocatedBytes, 8 * PAGE);
    await trimDisk(disk, 0n, BigInt(PAGE));
    assert.equal(disk.allocatedBytes, 7 * PAGE);
    await zeroDisk(disk, 0n, T / 2n);
    assert.equal(disk.allocatedBytes, 4 * PAGE);
    await zeroDisk(disk, 0n, T, { fua: false, noHole: true });
    assert.equal(disk.allocatedBytes, 0);
  });

  it('is not for the edges that a trim leaves alone', async () => {
    const disk = new MemoryDisk(T);
    await writeDisk(disk, 0n, Buffer.alloc(2 * PAGE, 1));
    await trimDisk(disk, 1n, BigInt(2 * PAGE - 2));
    assert.equal(disk.allocatedBytes, 2 * PAGE);
  });

  it('may not be there: ENOMEM, and not the end of the server', async (context) => {
    const disk = new MemoryDisk(T);
    context.mock.method(Buffer, 'allocUnsafeSlow', () => {
      throw new RangeError('Array buffer allocation failed');
    });
    await assert.rejects(writeDisk(disk, 0n, Buffer.from('x')), { code: 'ENOMEM' });
    await assert.rejects(readDisk(disk, 0n, 1), { code: 'ENOMEM' });
    context.mock.restoreAll();
    assert.equal((await readDisk(disk, 0n, 1))[0], 0);
  });
});

describe('memory: extents', () => {
  it('are one hole where nothing was written', async () => {
    assert.deepEqual(await diskExtents(new MemoryDisk(T), 7n, 1n << 32n), [
      { ...zero, length: 1n << 32n },
    ]);
  });

  it('tell pages, merged, clipped to the question', async () => {
    const disk = new MemoryDisk(T);
    const page = BigInt(PAGE);
    await writeDisk(disk, 2n * page, Buffer.alloc(2 * PAGE, 1));
    await zeroDisk(disk, 4n * page, page, { fua: false, noHole: true });
    assert.deepEqual(await diskExtents(disk, 10n, 6n * page), [
      { ...zero, length: 2n * page - 10n },
      { ...data, length: 2n * page },
      { ...kept, length: page },
      { ...zero, length: page + 10n },
    ]);
    assert.deepEqual(await diskExtents(disk, 3n * page + 1n, 5n), [{ ...data, length: 5n }]);
  });

  it('are a bounded number', async () => {
    const disk = new MemoryDisk(1n << 30n);
    for (let i = 0; i < 2000; i++) await writeDisk(disk, BigInt(2 * i * PAGE), Buffer.from([1]));
    const first = await diskExtents(disk, 0n, 1n << 30n);
    assert.equal(first.length, 1024);
    const end = first.reduce((sum, { length }) => sum + length, 0n);
    assert.equal((await diskExtents(disk, end, 1n)).length, 1);
  });

  it('of what is zeroed without a hole are no holes, without taking memory', async () => {
    const disk = new MemoryDisk(16n * T);
    await zeroDisk(disk, 0n, 16n * T, { fua: false, noHole: true });
    assert.equal(disk.allocatedBytes, 0);
    const [extent] = await diskExtents(disk, 0n, 1n << 32n);
    assert.deepEqual(extent, { ...kept, length: 1n << 32n });
    await writeDisk(disk, 5n, Buffer.from('x'));
    assert.equal((await readDisk(disk, 0n, 10)).toString(), '\0\0\0\0\0x\0\0\0\0');
    await zeroDisk(disk, 0n, 16n * T);
    assert.deepEqual(await diskExtents(disk, 0n, 1n << 32n), [{ ...zero, length: 1n << 32n }]);
  });
});

describe('memory: opening', () => {
  it('takes a size', async () => {
    assert.equal((await openMemory('1.5G', { readOnly: false })).info.size, 1610612736n);
    assert.equal((await openMemory('1T', { readOnly: true })).info.readOnly, true);
  });

  it('refuses 0 and what is no size', () => {
    assert.throws(() => openMemory('0', { readOnly: false }), /size 0/);
    assert.throws(() => openMemory('much', { readOnly: false }), /is not a size/);
  });
});
