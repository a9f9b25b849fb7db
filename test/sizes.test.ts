import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MAX_SIZE, SizeError, parseSize } from '../src/sizes.js';

describe('parseSize', () => {
  const good: readonly (readonly [string, bigint])[] = [
    ['0', 0n],
    ['1', 1n],
    ['512', 512n],
    ['1K', 1024n],
    ['1k', 1024n],
    ['10M', 10n * 1024n ** 2n],
    ['1.5G', 3n * 512n * 1024n ** 2n],
    ['1T', 1024n ** 4n],
    ['2P', 2n * 1024n ** 5n],
    ['7E', 7n * 1024n ** 6n],
    ['0.5K', 512n],
    ['007', 7n],
    // A fraction is rounded up to whole sectors.
    ['1.1K', 1536n],
    ['0.000001G', 1536n],
    ['1.0K', 1024n],
    ['9223372036854775296', MAX_SIZE],
  ];
  for (const [text, size] of good) {
    it(`takes ${text}`, () => assert.equal(parseSize(text), size));
  }

  const bad: readonly (readonly [string, RegExp])[] = [
    ['', /empty word/],
    ['x', /is not a size/],
    ['10X', /the units are K, M, G, T, P, E/],
    ['10MB', /is not a size; sizes are written/],
    ['10 M', /is not a size/],
    ['-1', /sign/],
    ['+1', /sign/],
    ['1.5', /no part of a byte/],
    ['1.', /is not a size/],
    ['.5K', /is not a size/],
    ['1e3', /is not a size/],
    ['0x10', /is not a size/],
    ['8E', /more than a disk can have/],
    ['9223372036854775297', /more than a disk can have/],
    ['9'.repeat(100), /is not a size/],
  ];
  for (const [text, message] of bad) {
    it(`refuses ${JSON.stringify(text.slice(0, 30))}`, () => {
      assert.throws(() => parseSize(text), { name: SizeError.name, message });
    });
  }
});
