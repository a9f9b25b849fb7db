/** What is said to the user about partitions. */

import type { PartitionTable } from './table.js';

/** A line names no more than this many. */
const MOST_NAMED = 20;

/** `1, 2, 5-9`: three and more in a row as a range. @param numbers ascending */
function listed(numbers: readonly number[]): string {
  const runs: { first: number; last: number }[] = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run !== undefined && number === run.last + 1) run.last = number;
    else runs.push({ first: number, last: number });
  }
  const words = runs.flatMap(({ first, last }) => {
    if (last - first >= 2) return [`${first}-${last}`];
    return first === last ? [`${first}`] : [`${first}`, `${last}`];
  });
  if (words.length <= MOST_NAMED) return words.join(', ');
  return `${words.slice(0, MOST_NAMED).join(', ')} and more`;
}

/** `partition 3`, `partitions 3, 4`. @param numbers at least one, in any order */
export function numbered(numbers: readonly number[]): string {
  const ascending = numbers.toSorted((a, b) => a - b);
  return `partition${numbers.length === 1 ? '' : 's'} ${listed(ascending)}`;
}

/** Says why there is no such partition, and which there are. */
export function describeAbsent(table: PartitionTable, number: number): string {
  const numbers = table.partitions.map((partition) => partition.number);
  const others = numbers.length === 0 ? 'the disk has none' : `the disk has ${listed(numbers)}`;
  if (table.extended.includes(number)) {
    return `partition ${number} is an extended one, which only holds others: ${others}`;
  }
  if (table.scheme === 'none') {
    const why = table.problems[0] ?? 'the disk has no partition table';
    return `partition ${number} does not exist: ${why}`;
  }
  if (numbers.length > 0) return `partition ${number} does not exist: ${others}`;
  return `partition ${number} does not exist: the partition table of the disk is empty`;
}
