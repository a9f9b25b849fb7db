/** The status of a mount that is well, for tests of what is made of it. */

import { operationsStatus } from '../../src/observe/mount-status.js';
import type { MountStatus } from '../../src/observe/mount-status.js';
import { makeOperations } from '../../src/observe/operations.js';

export function aStatus(changes: Partial<MountStatus> = {}): MountStatus {
  const operations = makeOperations();
  for (let i = 0; i < 1000; i++) operations.read.succeeded(4096, performance.now() - 0.2);
  operations.write.succeeded(1024 * 1024, performance.now() - 3);
  operations.zero.answered(5, 0, performance.now());
  return {
    mountpoint: '/mnt/disk.raw',
    pid: 4711,
    state: 'healthy',
    server: 'nbd://server.example/export',
    file: '/mnt/disk.raw',
    problem: null,
    captive: false,
    since: '2026-01-02T03:04:05.000Z',
    size: '1073741824',
    readOnly: false,
    cache: 'writeback',
    connections: 4,
    reconnects: 0,
    inFlight: 0,
    unflushedBytes: 0,
    operations: operationsStatus(operations),
    ...changes,
  };
}
