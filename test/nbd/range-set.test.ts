import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { MAX_STRETCHES, RangeSet } from '../../src/nbd/range-set.js';

/** A set and its model: which bytes were added. */
class Both {
  readonly set = new RangeSet();
  readonly model: boolean[];

  constructor(readonly size: number) {
    this.model = Array<boolean>(size).fill(false);
  }

  add(start: number, end: number): void {
    const free = !this.model.slice(start, end).includes(true);
    assert.equal(this.set.add(start, end), free, `${start} to ${end}`);
    if (free) this.model.fill(true, start, end);
    this.check();
  }

  clear(): void {
    this.set.clear();
    this.model.fill(false);
    this.check();
  }

  check(): void {
    assert.equal(this.set.empty, !this.model.includes(true));
    const first = this.model.indexOf(false);
    const whole = first < 0 ? this.size : first;
    for (let length = 1; length <= this.size + 1; length++) {
      const covered = length === whole && !this.model.slice(length).includes(true);
      assert.equal(this.set.covers(length), covered, `covers ${length}`);
    }
  }
}

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((item, i) =>
    permutations(items.toSpliced(i, 1)).map((others) => [item, ...others]),
  );
}

describe('a set of ranges', () => {
  it('is empty and covers nothing at first', () => {
    const set = new RangeSet();
    assert.ok(set.empty);
    assert.ok(!set.covers(1));
  });

  it('takes the parts of a whole in any order', () => {
    const edges = [0, 3, 4, 9, 10, 12];
    const parts = edges.slice(1).map((end, i) => [edges[i] ?? 0, end] as const);
    for (const order of permutations(parts)) {
      const both = new Both(12);
      for (const [start, end] of order) both.add(start, end);
      assert.ok(both.set.covers(12));
    }
  });

  it('refuses what overlaps in any way, and stays as it was', () => {
    const both = new Both(40);
    both.add(10, 20);
    both.add(30, 35);
    for (let start = 0; start < 40; start++) {
      for (let end = start + 1; end <= 40; end++) {
        const before = both.model.slice(start, end);
        if (before.includes(true)) both.add(start, end);
      }
    }
    both.add(0, 10);
    both.add(20, 30);
    both.add(35, 40);
    assert.ok(both.set.covers(40));
  });

  it('does not cover what has a gap, or does not start at 0, or goes on', () => {
    const both = new Both(20);
    both.add(1, 10);
    both.add(11, 20);
    both.add(0, 1);
    both.add(10, 11);
    assert.ok(both.set.covers(20));
    assert.ok(!both.set.covers(19));
    assert.ok(!both.set.covers(21));
  });

  it('can be used again', () => {
    const both = new Both(8);
    both.add(0, 8);
    both.clear();
    both.add(4, 8);
    both.add(0, 4);
  });

  it('tells so many separate stretches apart, and says when there are more', () => {
    const set = new RangeSet();
    for (let i = 0; i < MAX_STRETCHES; i++) assert.ok(set.add(2 * i, 2 * i + 1));
    assert.ok(!set.overfull);
    // In between and at the front, where the list has to be moved.
    assert.ok(set.add(1, 2));
    assert.ok(set.add(2 * MAX_STRETCHES, 2 * MAX_STRETCHES + 1));
    assert.ok(!set.overfull);
    assert.ok(set.add(2 * MAX_STRETCHES + 2, 2 * MAX_STRETCHES + 3));
    assert.ok(set.overfull);
    set.clear();
    assert.ok(!set.overfull);
  });

  it('counts as far as a read may reach', () => {
    const set = new RangeSet();
    const most = 2 ** 32;
    assert.ok(set.add(most - 1, most));
    assert.ok(set.add(0, most - 1));
    assert.ok(set.covers(most));
  });

  it('is like an array of booleans', () => {
    const size = 24;
    const range = fc
      .tuple(fc.nat({ max: size - 1 }), fc.integer({ min: 1, max: 8 }))
      .map(([start, length]) => ({ start, end: Math.min(start + length, size) }));
    const step = fc.oneof({ arbitrary: range, weight: 20 }, fc.constant('clear' as const));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const both = new Both(size);
        for (const one of steps) {
          if (one === 'clear') both.clear();
          else both.add(one.start, one.end);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
