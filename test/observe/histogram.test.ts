import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Histogram } from '../../src/observe/histogram.js';

/** Half the width of a bucket, by which a quantile may be off. */
const RESOLUTION = 1 + 1 / 32;

/** From a microsecond to the longest that is told apart, each order of magnitude as likely. */
const milliseconds = fc.double({ min: -2.999, max: 6.6, noNaN: true }).map((power) => 10 ** power);

function histogramOf(values: readonly number[]): Histogram {
  const histogram = new Histogram();
  for (const value of values) histogram.add(value);
  return histogram;
}

/** The least value that the part of all values does not exceed. */
function exactQuantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(1, Math.ceil(part * sorted.length)) - 1] ?? Number.NaN;
}

describe('a histogram', () => {
  it('tells each quantile to 3 %', () => {
    const values = fc.array(milliseconds, { minLength: 1, maxLength: 300 });
    const part = fc.oneof(fc.constantFrom(0, 0.5, 0.99, 0.999, 1), fc.double({ min: 0, max: 1 }));
    fc.assert(
      fc.property(values, part, (all, wanted) => {
        fc.pre(!Number.isNaN(wanted));
        const exact = exactQuantile(all, wanted);
        const found = histogramOf(all).quantile(wanted);
        assert.ok(found !== undefined);
        const ratio = found / exact;
        assert.ok(
          ratio <= RESOLUTION * 1.0001 && ratio >= 1 / (RESOLUTION * 1.0001),
          `${found} for ${exact}`,
        );
      }),
    );
  });

  it('counts what is below a power of two exactly, and sums what there is', () => {
    fc.assert(
      fc.property(fc.array(milliseconds, { maxLength: 300 }), (all) => {
        const histogram = histogramOf(all);
        const below = histogram.below(4, 25);
        assert.equal(below.length, 22);
        for (const [i, count] of below.entries()) {
          const bound = 2 ** (4 + i);
          assert.equal(count, all.filter((value) => value * 1000 < bound).length);
        }
        assert.equal(histogram.count, all.length);
        const sum = all.reduce((total, value) => total + value, 0);
        assert.ok(Math.abs(histogram.sum - sum) <= 1e-9 * sum);
      }),
    );
  });

  it('has no quantile where there is nothing', () => {
    assert.equal(new Histogram().quantile(0.5), undefined);
    assert.deepEqual(new Histogram().below(0, 2), [0, 0, 0]);
  });

  it('takes what is out of its range, as of a clock that was set back', () => {
    const odd = [0, -1, 1e-9, 1e12, Number.POSITIVE_INFINITY];
    const histogram = histogramOf(odd);
    assert.equal(histogram.count, odd.length);
    const [least, most] = [histogram.quantile(0), histogram.quantile(1)];
    assert.ok(least !== undefined && least < 0.0011, String(least));
    // 2^32 microseconds.
    assert.ok(most !== undefined && most > 4e6 && most < 4.4e6, String(most));
  });
});
