/**
 * What a table depends on; that whatever it says is bounded is shown by the target `partitions` of the
 * fuzzing (test/fuzz).
 */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { readPartitions } from '../../src/partitions/read.js';
import { SIZE, TABLES, apply, edit } from '../fuzz/targets/partitions.js';
import { diskOf } from '../support/partition-tables.js';

describe('what is watched', () => {
  it('is all that the table depends on', async () => {
    const change = fc.record({
      at: fc.integer({ min: 0, max: SIZE - 8 }),
      value: fc.uint8Array({ minLength: 1, maxLength: 8 }),
    });
    const one = fc.asyncProperty(
      fc.constantFrom(...Object.values(TABLES)),
      fc.array(edit, { maxLength: 2 }),
      fc.array(fc.oneof(edit, change), { minLength: 1, maxLength: 20 }),
      async (made, damage, later) => {
        const content = apply(Buffer.from(made), damage);
        const table = await readPartitions(diskOf(content));
        const elsewhere = later.filter(({ at, value }) =>
          table.watched.every(
            ({ offset, length }) =>
              offset + length <= BigInt(at) || BigInt(at + value.length) <= offset,
          ),
        );
        assert.deepEqual(await readPartitions(diskOf(apply(content, elsewhere))), table);
      },
    );
    await fc.assert(one, { numRuns: 500 });
  });
});
