import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { HEADROOM, NOT_DURABLE } from '../../src/disk/disk.js';
import type { Disk, Extent } from '../../src/disk/disk.js';
import { fitDisk } from '../../src/disk/fit.js';
import {
  diskExtents,
  flushDisk,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from '../../src/disk/promises.js';
import { windowDisk, windowOf } from '../../src/disk/window.js';
import { MemoryDisk, seeded } from '../support/memory-disk.js';

const MOST = 64 * 1024;
const SIZE = 200_000;

function limitsOf(minimum: number): { minimum: number; preferred: number; maximum: number } {
  return { minimum, preferred: 65536, maximum: 65536 };
}

type Step = Readonly<{
  kind: 'read' | 'write' | 'zero' | 'trim' | 'flush' | 'extents';
  window: number;
  /** Parts of the window, from 0 up to 1. */
  at: number;
  length: number;
  value: number;
}>;

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('read', 'write', 'zero', 'trim', 'flush', 'extents'),
  window: fc.nat({ max: 2 }),
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  length: fc.double({ min: 0, max: 1, noNaN: true }),
  value: fc.integer({ min: 1, max: 255 }),
});

describe('windowDisk', () => {
  it('is a part of the disk, whatever the blocks are and where it begins', async () => {
    const layout = fc.record({
      minimum: fc.constantFrom(1, 512, 4096, 65536),
      // Three windows beside one another, which share blocks where they meet.
      edges: fc.uniqueArray(fc.integer({ min: 0, max: SIZE }), { minLength: 4, maxLength: 4 }),
      steps: fc.array(step, { minLength: 1, maxLength: 30 }),
      seed: fc.nat(),
    });
    const one = fc.asyncProperty(layout, async ({ minimum, edges, steps, seed }) => {
      const memory = new MemoryDisk({
        size: SIZE,
        limits: limitsOf(minimum),
        shuffle: seeded(seed),
      });
      memory.content.fill(1);
      const model = Buffer.from(memory.content);
      /** What a trim has left undefined. */
      const undefinedBytes = new Uint8Array(SIZE);
      const fitted = fitDisk(memory, MOST);
      const sorted = edges.toSorted((a, b) => a - b);
      const windows = sorted.slice(0, 3).map((start, index) => {
        const size = (sorted[index + 1] ?? 0) - start;
        return { start, size, disk: windowDisk(fitted, BigInt(start), BigInt(size)) };
      });
      /** Changes run beside one another, as long as they do not overlap. */
      let jobs: Promise<unknown>[] = [];
      let busy: { start: number; end: number }[] = [];
      const settle = async (): Promise<void> => {
        await Promise.all(jobs);
        jobs = [];
        busy = [];
      };
      for (const { kind, window, at, length: part, value } of steps) {
        const chosen = windows[window] ?? assert.fail();
        const { disk, size } = chosen;
        assert.equal(disk.info.size, BigInt(size));
        const offset = Math.min(Math.floor(at * size), size - 1);
        const length = Math.min(Math.max(1, Math.floor(part * (size - offset))), MOST);
        const start = chosen.start + offset;
        const end = start + length;
        if (busy.some((other) => other.start < end && start < other.end)) await settle();
        busy.push({ start, end });
        switch (kind) {
          case 'write':
            model.fill(value, start, end);
            undefinedBytes.fill(0, start, end);
            jobs.push(writeDisk(disk, BigInt(offset), Buffer.alloc(length, value)));
            break;
          case 'zero':
            model.fill(0, start, end);
            undefinedBytes.fill(0, start, end);
            jobs.push(zeroDisk(disk, BigInt(offset), BigInt(length)));
            break;
          case 'trim':
            undefinedBytes.fill(1, start, end);
            jobs.push(trimDisk(disk, BigInt(offset), BigInt(length)));
            break;
          case 'flush':
            jobs.push(flushDisk(disk));
            break;
          case 'extents': {
            await settle();
            const extents = await diskExtents(disk, BigInt(offset), BigInt(length));
            let told = 0n;
            for (const extent of extents) {
              const from = start + Number(told);
              told += extent.length;
              const bytes = memory.content.subarray(from, start + Number(told));
              assert.ok(!extent.zero || bytes.every((byte) => byte === 0));
            }
            assert.ok(told > 0n && BigInt(offset) + told <= BigInt(size), 'within the window');
            break;
          }
          case 'read': {
            const got = await readDisk(disk, BigInt(offset), length);
            const wanted = model.subarray(start, end);
            assert.ok(
              got.every((byte, i) => byte === wanted[i] || undefinedBytes[start + i] === 1),
            );
            break;
          }
        }
      }
      await settle();
      assert.ok(
        memory.content.every((byte, i) => byte === model[i] || undefinedBytes[i] === 1),
        'also outside of the windows',
      );
    });
    await fc.assert(one, { numRuns: 200 });
  });

  it('refuses what reaches outside, and passes nothing of it on', async () => {
    const integer = fc.bigInt({ min: -(2n ** 64n), max: 2n ** 64n });
    const near = fc.bigInt({ min: -5n, max: 1005n });
    const offset = fc.oneof(integer, near);
    const range = fc.oneof(
      fc.tuple(offset, fc.oneof(integer, near)),
      // Up to the edge and one byte over it.
      fc.tuple(near, fc.constantFrom(1000n, 1001n)).map(([at, end]) => [at, end - at] as const),
    );
    const one = fc.asyncProperty(range, async ([at, length]) => {
      const memory = new MemoryDisk({ size: 5000 });
      const disk = windowDisk(memory, 1000n, 1000n);
      if (at >= 0n && length > 0n && at + length <= 1000n) {
        await zeroDisk(disk, at, length);
        assert.deepEqual(memory.log, [`zero ${(1000n + at).toString()}+${length.toString()}`]);
        return;
      }
      if (at >= 0n && length === 0n && at <= 1000n) return;
      await assert.rejects(zeroDisk(disk, at, length), { code: 'ENOSPC' });
      await assert.rejects(trimDisk(disk, at, length), { code: 'EINVAL' });
      await assert.rejects(diskExtents(disk, at, length), { code: 'EINVAL' });
      if (length >= -10_000n && length < 10_000n) {
        await assert.rejects(readDisk(disk, at, Number(length)), { code: 'EINVAL' });
      }
      if (length > 0n && length < 10_000n) {
        const data = Buffer.alloc(Number(length));
        await assert.rejects(writeDisk(disk, at, data), { code: 'ENOSPC' });
      }
      assert.deepEqual(memory.log, []);
    });
    await fc.assert(one, { numRuns: 500 });
  });

  it('hands payload on as it is, without a copy', () => {
    const bytes = Buffer.alloc(HEADROOM + 100, 7);
    const seen: unknown[] = [];
    const memory = new MemoryDisk({ size: 5000 });
    const beneath: Disk = {
      info: memory.info,
      read: (offset, length, reply) => {
        seen.push(offset, length, reply);
        reply.data(bytes, HEADROOM);
      },
      write: (offset, data, start, length, options, reply) => {
        seen.push(offset, data, start, length, options, reply);
        reply.done(0);
      },
      flush: (reply) => memory.flush(reply),
      trim: (offset, length, options, reply) => memory.trim(offset, length, options, reply),
      zero: (offset, length, options, reply) => memory.zero(offset, length, options, reply),
      extents: (offset, length, reply) => memory.extents(offset, length, reply),
      close: () => memory.close(),
    };
    const disk = windowDisk(beneath, 1000n, 1000n);
    const done = { done: (): void => undefined };
    const answer = {
      data: (got: Buffer, start: number): void => {
        assert.equal(got, bytes);
        assert.equal(start, HEADROOM);
      },
      fail: (code: number): void => assert.fail(`failed with ${code}`),
    };
    disk.write(5n, bytes, HEADROOM, 100, NOT_DURABLE, done);
    disk.read(900n, 100, answer);
    assert.deepEqual(
      seen.map((value) => typeof value),
      ['bigint', 'object', 'number', 'number', 'object', 'object', 'bigint', 'number', 'object'],
    );
    assert.equal(seen[0], 1005n);
    assert.equal(seen[1], bytes);
    assert.equal(seen[5], done);
    assert.equal(seen[6], 1900n);
    assert.equal(seen[8], answer);
  });

  it('ends extents at its own end', async () => {
    const memory = new MemoryDisk({ size: 5000 });
    const told: Extent[] = [
      { length: 300n, hole: false, zero: false },
      { length: 700n, hole: true, zero: true },
      { length: 1000n, hole: false, zero: false },
    ];
    memory.extents = (_offset, _length, reply) => reply.extents(told);
    assert.deepEqual(await diskExtents(windowDisk(memory, 0n, 900n), 0n, 10n), [
      told[0],
      { length: 600n, hole: true, zero: true },
    ]);
    assert.deepEqual(await diskExtents(windowDisk(memory, 0n, 1000n), 0n, 10n), told.slice(0, 2));
    assert.deepEqual(await diskExtents(windowDisk(memory, 0n, 3000n), 0n, 10n), told);
    assert.deepEqual(await diskExtents(windowDisk(memory, 0n, 1000n), 900n, 10n), [
      { length: 100n, hole: false, zero: false },
    ]);
  });

  it('is what the disk is, but for the size, and leaves it open', async () => {
    const memory = new MemoryDisk({ size: 5000, readOnly: true, canFua: false });
    let closed = false;
    memory.close = () => {
      closed = true;
      return Promise.resolve();
    };
    const disk = windowDisk(memory, 10n, 20n);
    assert.deepEqual(disk.info, { ...memory.info, size: 20n });
    await disk.close();
    await disk.close();
    assert.equal(closed, false);
    await readDisk(disk, 0n, 20);
  });

  it('is only of a fitted disk, and on it', () => {
    const memory = new MemoryDisk({ size: 8192, limits: limitsOf(512) });
    assert.throws(() => windowDisk(memory, 512n, 512n), RangeError);
    const fitted = fitDisk(memory, MOST);
    for (const [offset, size] of [
      [-1n, 10n],
      [0n, 8193n],
      [8192n, 1n],
      [0n, -1n],
    ] as const) {
      assert.throws(() => windowDisk(fitted, offset, size), RangeError);
    }
  });
});

describe('windowOf', () => {
  const info = { size: 1000n };

  it('goes from the start and to the end, unless it is told otherwise', () => {
    assert.deepEqual(windowOf(info, {}), { offset: 0n, size: 1000n });
    assert.deepEqual(windowOf(info, { offset: 10n }), { offset: 10n, size: 990n });
    assert.deepEqual(windowOf(info, { size: 10n }), { offset: 0n, size: 10n });
    assert.deepEqual(windowOf(info, { offset: 999n, size: 1n }), { offset: 999n, size: 1n });
  });

  const wrong: readonly [{ offset?: bigint; size?: bigint }, string][] = [
    [{ offset: 1000n }, 'offset 1000 is not on the disk, which has 1000 bytes'],
    [{ offset: 2000n, size: 1n }, 'offset 2000 is not on the disk, which has 1000 bytes'],
    [{ size: 0n }, 'size 0 leaves nothing to show; give 1 or more'],
    [{ offset: -1n }, 'offset -1 is before the disk'],
    [
      { offset: 900n, size: 101n },
      'offset 900 and size 101 reach past the end of the disk: there it has 100 bytes',
    ],
    [{ size: 1001n }, 'size 1001 is more than the disk has, which is 1000 bytes'],
  ];
  for (const [asked, message] of wrong) {
    it(`says: ${message}`, () => {
      assert.throws(() => windowOf(info, asked), { name: 'WindowError', message });
    });
  }

  it('has nothing of an empty disk', () => {
    assert.throws(() => windowOf({ size: 0n }, {}), {
      message: 'offset 0 is not on the disk, which has 0 bytes',
    });
  });
});
