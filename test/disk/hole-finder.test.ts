import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Extent } from '../../src/disk/disk.js';
import { HoleFinder } from '../../src/disk/hole-finder.js';
import { errno } from '../../src/errno.js';
import { MemoryDisk } from '../support/memory-disk.js';

const BLOCK = 512;

/** One character for each block: '.' is a hole. */
function diskOf(map: string): MemoryDisk {
  const disk = new MemoryDisk({ size: map.length * BLOCK });
  for (let i = 0; i < map.length; i++) {
    if (map[i] !== '.') disk.content.fill(1, i * BLOCK, (i + 1) * BLOCK);
  }
  return disk;
}

function find(finder: HoleFinder, from: number, wantHole: boolean): number | 'none' {
  const results: (number | 'none')[] = [];
  finder.find(BigInt(from), wantHole, (code, at) => {
    assert.ok(code === 0 || code === errno.ENXIO);
    results.push(code === 0 ? Number(at) : 'none');
  });
  assert.equal(results.length, 1, 'answered once');
  return results[0] ?? 'none';
}

/** As the map has it. */
function expected(map: string, from: number, wantHole: boolean): number | 'none' {
  for (let at = from; at < map.length * BLOCK; at = (Math.floor(at / BLOCK) + 1) * BLOCK) {
    if ((map[Math.floor(at / BLOCK)] === '.') === wantHole) return at;
  }
  return wantHole ? map.length * BLOCK : 'none';
}

describe('the next hole, and the next data', () => {
  it('are where the disk has them, in whatever order they are asked for', () => {
    const steps = fc.array(fc.tuple(fc.nat(), fc.boolean()), { minLength: 1, maxLength: 30 });
    const maps = fc.string({ unit: fc.constantFrom('.', 'x'), minLength: 1, maxLength: 60 });
    fc.assert(
      fc.property(maps, steps, (map, list) => {
        const finder = new HoleFinder(diskOf(map));
        for (const [place, wantHole] of list) {
          const from = place % (map.length * BLOCK);
          assert.equal(find(finder, from, wantHole), expected(map, from, wantHole));
        }
      }),
    );
  });

  it('are not asked for again where the disk has told of them', () => {
    const map = '.x'.repeat(32);
    const disk = diskOf(map);
    const finder = new HoleFinder(disk);
    let at = 0;
    for (let wantHole = false; ; wantHole = !wantHole) {
      const next = find(finder, at, wantHole);
      if (next === 'none' || next === map.length * BLOCK) break;
      at = next;
    }
    assert.equal(at, (map.length - 1) * BLOCK);
    for (let block = 0; block < map.length; block++) find(finder, block * BLOCK, block % 3 === 0);
    // An answer of this disk tells of four extents.
    assert.equal(disk.log.length, map.length / 4);
  });

  it('are looked for once behind a hole that takes many answers to pass', () => {
    const disk = new MemoryDisk({ size: 256 * BLOCK });
    disk.content.fill(1, 255 * BLOCK);
    disk.extents = (offset, _length, reply) => {
      disk.log.push('extents');
      const zero = offset < 255n * BigInt(BLOCK);
      reply.extents([{ length: BigInt(BLOCK), hole: zero, zero }]);
    };
    const finder = new HoleFinder(disk);
    for (let block = 0; block < 256; block++) {
      assert.equal(find(finder, block * BLOCK, false), 255 * BLOCK);
    }
    assert.equal(disk.log.length, 256);
  });

  it('are asked for again after a change, also by an answer that was on its way', () => {
    const disk = diskOf('....');
    const finder = new HoleFinder(disk);
    assert.equal(find(finder, 0, false), 'none');
    disk.content.fill(1, BLOCK, 2 * BLOCK);
    finder.forget();
    assert.equal(find(finder, 0, false), BLOCK);

    const held: (() => void)[] = [];
    const extents = disk.extents.bind(disk);
    finder.forget();
    disk.extents = (...all) => void held.push(() => extents(...all));
    let answers = 0;
    finder.find(0n, true, () => answers++);
    finder.forget();
    held[0]?.();
    assert.equal(answers, 1);
    disk.extents = extents;
    const before = disk.log.length;
    find(finder, 0, true);
    assert.equal(disk.log.length, before + 1);
  });

  it('are not known from before a change to a search that goes on after it', () => {
    const disk = diskOf('x.x.x.x.x.x.');
    const held: (() => void)[] = [];
    const extents = disk.extents.bind(disk);
    disk.extents = (offset, _length, reply) =>
      void held.push(() => extents(offset, BigInt(BLOCK), reply));
    const finder = new HoleFinder(disk);
    finder.find(0n, true, (code, at) => assert.deepEqual([code, at], [0, BigInt(BLOCK)]));
    held[0]?.();
    disk.content.fill(0, 0, BLOCK);
    finder.forget();
    held[1]?.();
    disk.extents = extents;
    assert.equal(find(finder, 0, true), 0);
  });

  it('are those that read as zeroes, whether they are allocated or not', () => {
    const disk = new MemoryDisk({ size: 3 * BLOCK });
    const length = BigInt(BLOCK);
    disk.extents = (offset, _length, reply) => {
      const all: Extent[] = [
        { length, hole: true, zero: false },
        { length, hole: false, zero: true },
        { length, hole: false, zero: false },
      ];
      reply.extents(all.slice(Number(offset) / BLOCK));
    };
    const finder = new HoleFinder(disk);
    assert.equal(find(finder, 0, false), 0);
    assert.equal(find(finder, 0, true), BLOCK);
    assert.equal(find(finder, BLOCK, false), 2 * BLOCK);
  });

  it('are all data from where the disk fails', () => {
    const disk = diskOf('........x.x.x.x.x.x.');
    disk.failNext.set('extents', errno.EIO);
    const finder = new HoleFinder(disk);
    assert.equal(find(finder, 100, false), 100);
    disk.failNext.set('extents', errno.EIO);
    assert.equal(find(finder, 100, true), disk.content.length);
  });

  it('end on a disk too large to be asked about, at a place that is then data', () => {
    const disk = new MemoryDisk({ size: 4096 });
    const size = 2n ** 63n - 1n;
    Object.defineProperty(disk, 'info', { value: { ...disk.info, size } });
    let now = 0;
    disk.extents = (_offset, _length, reply) => {
      now++;
      reply.extents([{ length: 1n << 32n, hole: true, zero: true }]);
    };
    const finder = new HoleFinder(disk, () => now);
    const places: bigint[] = [];
    for (const wantHole of [false, true, false]) {
      finder.find(places.at(-1) ?? 0n, wantHole, (code, at) => {
        assert.equal(code, 0);
        places.push(at);
      });
    }
    const [data = 0n, hole = 0n, next = 0n] = places;
    assert.ok(data > 1n << 32n);
    assert.equal(hole, data + 4096n);
    assert.ok(next > hole + (1n << 32n));
  });
});
