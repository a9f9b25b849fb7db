import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { median, ratios, spread } from '../../bench/statistics.js';

describe('the statistics of the bench', () => {
  it('take the middle value, or the mean of the two in the middle', () => {
    assert.equal(median([3]), 3);
    assert.equal(median([10, 1, 3]), 3);
    assert.equal(median([4, 1, 3, 100]), 3.5);
    assert.ok(Number.isNaN(median([])));
  });

  it('leave the order of the values as it was', () => {
    const values = [3, 1, 2];
    median(values);
    assert.deepEqual(values, [3, 1, 2]);
  });

  it('tell the least and the most beside the median', () => {
    assert.deepEqual(spread([5, 1, 3]), { median: 3, least: 1, most: 5 });
    assert.equal(spread([]), undefined);
  });

  it('divide round by round, and leave out rounds in which one has no figure', () => {
    assert.deepEqual(ratios([10, 30, 8], [5, 10, 4]), [2, 3, 2]);
    assert.deepEqual(ratios([10, undefined, 8, 6], [5, 10, undefined]), [2]);
    assert.deepEqual(ratios([1], [0]), []);
  });
});
