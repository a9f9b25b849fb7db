/** How much memory our group of processes (cgroups(7)) may have. */

import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** Where the groups of both versions of cgroups(7) are, and what their limit is called. */
const HIERARCHIES = [
  {
    line: /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(\/.*)$/m,
    root: '/memory',
    file: 'memory.limit_in_bytes',
  },
  { line: /^0::(\/.*)$/m, root: '', file: 'memory.max' },
];

/**
 * How much memory our group of processes may have, in bytes; Infinity where it has no limit, or it cannot be
 * told.
 * @param read the text of a file, for tests
 */
export function memoryLimit(read: (path: string) => string = readText): number {
  const groups = read('/proc/self/cgroup');
  let least = Number.POSITIVE_INFINITY;
  for (const { line, root, file } of HIERARCHIES) {
    let group = line.exec(groups)?.[1];
    // Each group above has a limit of its own.
    while (group !== undefined) {
      const limit = Number.parseInt(
        read(`/sys/fs/cgroup${root}${group === '/' ? '' : group}/${file}`),
        10,
      );
      if (limit < least) least = limit;
      group = group === '/' ? undefined : dirname(group);
    }
  }
  return least;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
