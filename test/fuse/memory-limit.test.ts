import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { memoryLimit } from '../../src/fuse/memory-limit.js';

const MIB = 1024 * 1024;

describe('the memory of our group of processes', () => {
  for (const [name, files, limit] of [
    ['is not limited where there are no groups', {}, Infinity],
    [
      'is that of version 2',
      {
        '/proc/self/cgroup': '0::/user.slice/job\n',
        '/sys/fs/cgroup/user.slice/job/memory.max': `${128 * MIB}\n`,
      },
      128 * MIB,
    ],
    [
      'is the least of all groups above',
      {
        '/proc/self/cgroup': '0::/a/b\n',
        '/sys/fs/cgroup/a/b/memory.max': 'max\n',
        '/sys/fs/cgroup/a/memory.max': `${64 * MIB}\n`,
        '/sys/fs/cgroup/memory.max': `${128 * MIB}\n`,
      },
      64 * MIB,
    ],
    [
      'is that of version 1',
      {
        '/proc/self/cgroup': '5:devices:/x\n4:cpu,memory:/job:1\n0::/\n',
        '/sys/fs/cgroup/memory/job:1/memory.limit_in_bytes': `${32 * MIB}\n`,
        '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
      },
      32 * MIB,
    ],
    [
      'is not limited by a group of another kind',
      {
        '/proc/self/cgroup': '5:devices:/x\n',
        '/sys/fs/cgroup/memory/x/memory.limit_in_bytes': '1',
      },
      Infinity,
    ],
  ] as const) {
    it(name, () => {
      const texts: Readonly<Record<string, string>> = files;
      assert.equal(
        memoryLimit((path) => texts[path] ?? ''),
        limit,
      );
    });
  }
});
