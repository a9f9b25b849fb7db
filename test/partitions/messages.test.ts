import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeAbsent, numbered } from '../../src/partitions/messages.js';
import type { PartitionTable } from '../../src/partitions/table.js';

function table(numbers: readonly number[], more: Partial<PartitionTable> = {}): PartitionTable {
  return {
    scheme: 'mbr',
    sectorSize: 512,
    partitions: numbers.map((number) => ({ number, offset: 0n, size: 512n, type: '', name: '' })),
    extended: [],
    watched: [],
    complete: true,
    problems: [],
    ...more,
  };
}

describe('describeAbsent', () => {
  it('names the partitions that there are', () => {
    assert.equal(
      describeAbsent(table([1, 2, 5]), 7),
      'partition 7 does not exist: the disk has 1, 2, 5',
    );
    assert.equal(
      describeAbsent(table([1, 2, 3, 5, 6, 8, 9, 10, 11]), 7),
      'partition 7 does not exist: the disk has 1-3, 5, 6, 8-11',
    );
  });

  it('says that there are none', () => {
    assert.equal(
      describeAbsent(table([]), 1),
      'partition 1 does not exist: the partition table of the disk is empty',
    );
    assert.equal(
      describeAbsent(table([], { scheme: 'none' }), 1),
      'partition 1 does not exist: the disk has no partition table',
    );
    assert.equal(
      describeAbsent(table([], { scheme: 'none', problems: ['the GPT is broken'] }), 1),
      'partition 1 does not exist: the GPT is broken',
    );
  });

  it('says what an extended partition is', () => {
    assert.equal(
      describeAbsent(table([1, 5], { extended: [2] }), 2),
      'partition 2 is an extended one, which only holds others: the disk has 1, 5',
    );
    assert.equal(
      describeAbsent(table([], { extended: [2] }), 2),
      'partition 2 is an extended one, which only holds others: the disk has none',
    );
  });

  it('does not get long', () => {
    const odd = Array.from({ length: 4000 }, (_, index) => 2 * index + 1);
    assert.ok(describeAbsent(table(odd), 2).length < 200);
    assert.match(describeAbsent(table(odd), 2), /37, 39 and more$/);
  });
});

describe('numbered', () => {
  it('has one or more, in any order', () => {
    assert.equal(numbered([4]), 'partition 4');
    assert.equal(numbered([9, 4]), 'partitions 4, 9');
  });
});
