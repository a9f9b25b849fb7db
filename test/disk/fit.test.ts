import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fitDisk } from '../../src/disk/fit.js';
import { readDisk, trimDisk, writeDisk, zeroDisk, diskExtents } from '../../src/disk/promises.js';
import { errno } from '../../src/errno.js';
import { MemoryDisk, seeded } from '../support/memory-disk.js';

const MOST = 64 * 1024;

describe('fitDisk', () => {
  it('passes on what the disk takes as it is', async () => {
    const disk = new MemoryDisk({ size: 4096 });
    await writeDisk(fitDisk(disk, MOST), 3n, Buffer.alloc(7));
    await readDisk(fitDisk(disk, MOST), 1n, 2);
    assert.deepEqual(disk.log, ['write 3+7', 'read 1+2']);
  });

  for (const minimum of [1, 512, 4096, 65536]) {
    for (const canZero of [true, false]) {
      for (const odd of [0, 100]) {
        it(`is like plain memory: blocks of ${minimum}, ${canZero ? 'with' : 'without'} zero, ${odd} bytes over`, async () => {
          const random = seeded(minimum + odd + Number(canZero));
          const size = 512 * 1024 + odd;
          const disk = new MemoryDisk({
            size,
            canZero,
            limits: { minimum, preferred: 65536, maximum: 65536 },
            shuffle: random,
          });
          const fitted = fitDisk(disk, MOST);
          const model = Buffer.alloc(size);
          const pick = (below: number): number => Math.floor(random() * below);
          for (let round = 0; round < 150; round++) {
            // Several at once on disjoint ranges that share blocks: none may undo another.
            const jobs: Promise<void>[] = [];
            let at = pick(100_000);
            for (let i = 0; i < 6 && at < size; i++) {
              const length = Math.min(
                1 + pick(round % 3 === 0 ? 100_000 : 700),
                size - at,
                MOST * 2,
              );
              const offset = at;
              at += length;
              if (pick(3) > 0) {
                const data = Buffer.alloc(Math.min(length, MOST), pick(256));
                data.copy(model, offset);
                jobs.push(writeDisk(fitted, BigInt(offset), data));
              } else {
                model.fill(0, offset, offset + length);
                jobs.push(zeroDisk(fitted, BigInt(offset), BigInt(length)));
              }
            }
            await Promise.all(jobs);
            const from = pick(size - 1);
            const length = 1 + pick(Math.min(MOST, size - from));
            const got = await readDisk(fitted, BigInt(from), length);
            assert.ok(got.equals(model.subarray(from, from + length)), `round ${round}`);
          }
          assert.ok(disk.content.equals(model));
        });
      }
    }
  }

  it('lets the last of overlapping writers win whole, in the order of asking', async () => {
    const disk = new MemoryDisk({
      size: 65536,
      limits: { minimum: 4096, preferred: 4096, maximum: 65536 },
      shuffle: seeded(7),
    });
    const fitted = fitDisk(disk, MOST);
    const model = Buffer.alloc(65536);
    const jobs: Promise<void>[] = [];
    const random = seeded(8);
    for (let i = 1; i < 200; i++) {
      const offset = Math.floor(random() * 60_000);
      const data = Buffer.alloc(1 + Math.floor(random() * 5000), i);
      data.copy(model, offset);
      jobs.push(writeDisk(fitted, BigInt(offset), data));
    }
    await Promise.all(jobs);
    assert.ok(disk.content.equals(model));
  });

  it('writes zeroes where the server cannot zero this range after all', async () => {
    const disk = new MemoryDisk({
      size: 8192,
      limits: { minimum: 512, preferred: 4096, maximum: 8192 },
    });
    disk.content.fill(1);
    disk.failNext.set('zero', errno.EOPNOTSUPP);
    await zeroDisk(fitDisk(disk, MOST), 512n, 4096n);
    assert.deepEqual(disk.log, ['zero 512+4096', 'write 512+4096']);
    assert.equal(disk.content.indexOf(0), 512);
    assert.equal(disk.content.lastIndexOf(0), 4607);
  });

  it('passes errors on and lets go of its locks', async () => {
    const disk = new MemoryDisk({
      size: 8192,
      limits: { minimum: 4096, preferred: 4096, maximum: 8192 },
    });
    const fitted = fitDisk(disk, MOST);
    disk.failNext.set('read', errno.EIO);
    await assert.rejects(writeDisk(fitted, 10n, Buffer.alloc(10)), { code: 'EIO' });
    disk.failNext.set('write', errno.ENOSPC);
    await assert.rejects(writeDisk(fitted, 10n, Buffer.alloc(10)), { code: 'ENOSPC' });
    await writeDisk(fitted, 10n, Buffer.alloc(10, 1));
    assert.equal(disk.content[19], 1);
  });

  it('trims whole blocks only', async () => {
    const disk = new MemoryDisk({
      size: 65536,
      limits: { minimum: 4096, preferred: 4096, maximum: 65536 },
    });
    const fitted = fitDisk(disk, MOST);
    await trimDisk(fitted, 100n, 8192n);
    await trimDisk(fitted, 100n, 200n);
    assert.deepEqual(disk.log, ['trim 4096+4096']);
  });

  it('cuts the first extent to what was asked', async () => {
    const disk = new MemoryDisk({
      size: 65536,
      limits: { minimum: 4096, preferred: 4096, maximum: 65536 },
    });
    disk.content.fill(1, 8192, 12288);
    const [first] = await diskExtents(fitDisk(disk, MOST), 5000n, 1000n);
    assert.deepEqual(first, { length: 3192n, hole: true, zero: true });
  });
});
