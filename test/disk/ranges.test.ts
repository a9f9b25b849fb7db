import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Ranges } from '../../src/disk/ranges.js';

const pairs = (ranges: Ranges): [number, number][] =>
  [...ranges].map(({ start, end }) => [Number(start), Number(end)]);

/** What is set in a list of bytes, as `pairs` gives it. */
function runs(bytes: readonly boolean[]): [number, number][] {
  const found: [number, number][] = [];
  for (let at = 0; at < bytes.length; at++) {
    const last = found.at(-1);
    if (bytes[at] !== true) continue;
    if (last?.[1] === at) last[1]++;
    else found.push([at, at + 1]);
  }
  return found;
}

const writes = fc.array(
  fc.tuple(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 1, max: 40 })),
  { maxLength: 40 },
);

describe('Ranges', () => {
  it('are like a list of bytes', () => {
    fc.assert(
      fc.property(writes, (all) => {
        const ranges = new Ranges();
        const bytes = Array.from({ length: 240 }, () => false);
        for (const [start, length] of all) {
          ranges.add(BigInt(start), BigInt(start + length));
          bytes.fill(true, start, start + length);
        }
        assert.deepEqual(pairs(ranges), runs(bytes));
        assert.equal(ranges.count, runs(bytes).length);
      }),
    );
  });

  it('are no more than they may be, and then have all that was added', () => {
    fc.assert(
      fc.property(writes, (all) => {
        const ranges = new Ranges(3);
        for (const [start, length] of all) {
          ranges.add(BigInt(start), BigInt(start + length));
          assert.ok(ranges.count <= 3);
        }
        for (const [start, length] of all) {
          assert.ok(
            pairs(ranges).some(([from, to]) => from <= start && to >= start + length),
            `${start}+${length}`,
          );
        }
      }),
    );
  });

  it('become one where they are nearest', () => {
    const ranges = new Ranges(2);
    ranges.add(0n, 10n);
    ranges.add(1000n, 1010n);
    ranges.add(900n, 901n);
    assert.deepEqual(pairs(ranges), [
      [0, 10],
      [900, 1010],
    ]);
  });

  it('tell what is in none of them', () => {
    const place = fc.tuple(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 1, max: 40 }));
    fc.assert(
      fc.property(writes, place, (all, [start, length]) => {
        const ranges = new Ranges();
        const missing = Array.from({ length: 240 }, (_, at) => at >= start && at < start + length);
        for (const [from, count] of all) {
          ranges.add(BigInt(from), BigInt(from + count));
          missing.fill(false, from, from + count);
        }
        const gaps = [...ranges.gaps(BigInt(start), BigInt(start + length))];
        assert.deepEqual(
          gaps.map((gap) => [Number(gap.start), Number(gap.end)]),
          runs(missing),
        );
      }),
    );
  });
});
