import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import { Allocation } from '../../src/disk/allocation.js';
import type { Extent, ExtentsReply } from '../../src/disk/disk.js';
import { errno } from '../../src/errno.js';
import { MemoryDisk } from '../support/memory-disk.js';
import type { MemoryDiskOptions } from '../support/memory-disk.js';

const SIZE = 64 * 1024;
const PIECE = 4096;

/** A disk with data in every other piece, whose answers tell of a few of them each. */
function pieces(options: Partial<MemoryDiskOptions> = {}): MemoryDisk {
  const disk = new MemoryDisk({ size: SIZE, ...options });
  for (let at = PIECE; at < SIZE; at += 2 * PIECE) disk.content.fill(1, at, at + PIECE);
  return disk;
}

function made(
  disk: MemoryDisk,
  underWay = 0,
): { allocation: Allocation; clock: { now: number }; count: () => number } {
  const clock = { now: 1000 };
  const allocation = new Allocation(
    disk,
    () => underWay,
    () => clock.now,
  );
  /** What is counted after a refresh that is answered at once. */
  const count = (): number => {
    let told = 0;
    allocation.refresh(() => told++);
    assert.equal(told, 1, 'told once, and at once');
    return Number(allocation.bytes);
  };
  return { allocation, clock, count };
}

/** Makes the disk answer by hand. */
function holdExtents(disk: MemoryDisk): (() => void)[] {
  const held: (() => void)[] = [];
  const extents = disk.extents.bind(disk);
  disk.extents = (...all) => void held.push(() => extents(...all));
  return held;
}

/** Also what is only asked after an answer. */
function answerAll(held: (() => void)[]): void {
  while (held.length > 0) held.shift()?.();
}

/** Makes the disk answer with these, each of them 4096 bytes. */
function answer(disk: MemoryDisk, kinds: readonly Omit<Extent, 'length'>[]): void {
  disk.extents = (offset: bigint, _length: bigint, reply: ExtentsReply) => {
    reply.extents(
      kinds.slice(Number(offset) / PIECE).map((kind) => ({ ...kind, length: BigInt(PIECE) })),
    );
  };
}

const asked = (disk: MemoryDisk): number =>
  disk.log.filter((line) => line.startsWith('extents')).length;

describe('what is allocated', () => {
  it('is all of the disk before anybody asked, and then what is no hole', () => {
    const disk = pieces();
    const { allocation, count } = made(disk);
    assert.equal(allocation.bytes, BigInt(SIZE));
    assert.equal(asked(disk), 0);
    assert.equal(count(), SIZE / 2);
    assert.ok(asked(disk) > 1, 'over several answers');
  });

  it('goes by holes, and not by what a read gives', () => {
    const disk = new MemoryDisk({ size: 4 * PIECE });
    answer(disk, [
      { hole: true, zero: true },
      { hole: false, zero: true },
      { hole: true, zero: false },
      { hole: false, zero: false },
    ]);
    assert.equal(made(disk).count(), 2 * PIECE);
  });

  it('is counted no further than the disk, where an extent reaches further', () => {
    const disk = new MemoryDisk({ size: PIECE + 100 });
    answer(disk, [
      { hole: false, zero: false },
      { hole: true, zero: true },
    ]);
    assert.equal(made(disk).count(), PIECE);
  });

  it('is all where the disk cannot tell, which is not asked then', () => {
    const disk = pieces({ canExtents: false });
    const { allocation, count } = made(disk);
    allocation.changed();
    assert.equal(count(), SIZE);
    assert.equal(asked(disk), 0);
  });

  it('counts as allocated what a disk fails to tell', () => {
    const disk = pieces();
    disk.failNext.set('extents', errno.EIO);
    const { count } = made(disk);
    assert.equal(count(), SIZE);
    const half = pieces();
    const extents = half.extents.bind(half);
    half.extents = (offset, length, reply) => {
      if (offset > 0n) reply.fail(errno.EIO);
      else extents(offset, length, reply);
    };
    assert.equal(made(half).count(), SIZE - 2 * PIECE);
  });

  it('is not counted again while nothing changes', () => {
    const disk = pieces();
    const { clock, count } = made(disk);
    count();
    const before = asked(disk);
    clock.now += 1e9;
    assert.equal(count(), SIZE / 2);
    assert.equal(asked(disk), before);
  });

  it('grows with what is written, at most to all, and is exact when counted again', () => {
    const disk = pieces();
    const { allocation, clock, count } = made(disk);
    count();
    allocation.written(BigInt(PIECE));
    assert.equal(Number(allocation.bytes), SIZE / 2 + PIECE);
    for (let i = 0; i < 100; i++) allocation.written(BigInt(PIECE));
    assert.equal(Number(allocation.bytes), SIZE);
    disk.content.fill(1, 0, PIECE);
    clock.now += 1;
    assert.equal(count(), SIZE / 2 + PIECE);
  });

  it('shrinks when holes were made, once it is counted again', () => {
    const disk = pieces();
    const { allocation, clock, count } = made(disk);
    count();
    disk.content.fill(0, 0, SIZE / 2);
    allocation.changed();
    clock.now += 1;
    assert.equal(count(), SIZE / 4);
  });

  it('is counted again after a count that may have missed a change under way', () => {
    const disk = pieces();
    const { clock, count } = made(disk, 1);
    assert.equal(count(), SIZE / 2);
    disk.content.fill(1);
    clock.now += 1;
    assert.equal(count(), SIZE);
  });
});

describe('counting what is allocated', () => {
  it('lets nobody wait for long, tells what it has seen by then, and goes on', () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const disk = pieces();
      const held = holdExtents(disk);
      const { allocation, clock } = made(disk);
      const told: [string, number][] = [];
      const ask = (who: string): void =>
        allocation.refresh(() => told.push([who, Number(allocation.bytes)]));
      ask('first');
      ask('second');
      held.shift()?.();
      assert.deepEqual(told, []);
      mock.timers.tick(1000);
      clock.now += 1000;
      const seen = SIZE - 2 * PIECE;
      assert.deepEqual(told.splice(0), [
        ['first', seen],
        ['second', seen],
      ]);
      ask('late');
      assert.deepEqual(told.splice(0), [['late', seen]], 'who comes later does not wait at all');
      answerAll(held);
      assert.equal(Number(allocation.bytes), SIZE / 2);
      assert.deepEqual(told, []);
    } finally {
      mock.timers.reset();
    }
  });

  it('rests in proportion to what it takes', () => {
    const disk = pieces();
    const { allocation, clock } = made(disk);
    const extents = disk.extents.bind(disk);
    disk.extents = (...all) => {
      clock.now += 100;
      extents(...all);
    };
    const ask = (): number => {
      const before = asked(disk);
      allocation.changed();
      allocation.refresh(() => undefined);
      return asked(disk) - before;
    };
    const requests = ask();
    assert.ok(requests > 1);
    clock.now += 100 * requests;
    assert.equal(ask(), 0);
    clock.now += 100 * requests * 20;
    assert.equal(ask(), requests);
  });

  it('keeps what is written meanwhile', () => {
    const disk = pieces();
    const held = holdExtents(disk);
    const { allocation } = made(disk);
    let told = 0;
    allocation.refresh(() => told++);
    allocation.written(100n);
    answerAll(held);
    assert.equal(told, 1);
    assert.equal(Number(allocation.bytes), SIZE / 2 + 100);
    // It may have been missed, so that the next one counts again.
    allocation.refresh(() => told++);
    assert.equal(told, 1);
    assert.equal(held.length, 1);
    answerAll(held);
    assert.equal(told, 2);
    assert.equal(Number(allocation.bytes), SIZE / 2);
  });

  it('ends on a disk that is too large to be asked about', () => {
    const disk = new MemoryDisk({ size: 4096 });
    const huge = { ...disk.info, size: 2n ** 63n - 1n };
    Object.defineProperty(disk, 'info', { value: huge });
    let requests = 0;
    disk.extents = (_offset, length, reply) => {
      requests++;
      const most = 2n ** 32n - 65536n;
      reply.extents([{ length: length < most ? length : most, hole: true, zero: true }]);
    };
    const { allocation } = made(disk);
    allocation.refresh(() => undefined);
    assert.equal(requests, 65536);
    assert.equal(allocation.bytes, huge.size - 65536n * (2n ** 32n - 65536n));
  });

  it('stops when told to, and lets nobody wait', () => {
    const disk = pieces();
    const held = holdExtents(disk);
    const { allocation } = made(disk);
    let told = 0;
    allocation.refresh(() => told++);
    allocation.stop();
    assert.equal(told, 1);
    held.shift()?.();
    assert.deepEqual(held, [], 'the disk is asked nothing more');
    allocation.changed();
    allocation.refresh(() => told++);
    assert.equal(told, 2);
    assert.deepEqual(held, []);
  });
});
