import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  isMountStatus,
  operationsStatus,
  silentStatus,
  statusJson,
} from '../../src/observe/mount-status.js';
import { makeOperations } from '../../src/observe/operations.js';
import { aStatus } from '../support/statuses.js';

describe('the status of a mount', () => {
  it('counts what succeeded, how much and how long, and what failed apart', () => {
    const operations = makeOperations();
    operations.read.succeeded(4096, performance.now() - 1000);
    operations.read.succeeded(512, performance.now() - 1000);
    operations.read.errors++;
    operations.flush.answered(0, 0, performance.now() - 2000);
    operations.flush.answered(5, 0, performance.now());
    const { read, write, flush } = operationsStatus(operations);
    assert.deepEqual([read.count, read.bytes, read.errors], [2, 4608, 1]);
    assert.ok(read.latency !== null && read.latency.p50 > 0.96 && read.latency.p999 < 1.5);
    assert.deepEqual([flush.count, flush.bytes, flush.errors], [1, 0, 1]);
    assert.ok(flush.latency !== null && flush.latency.p99 > 1.9);
    assert.deepEqual(write, { count: 0, bytes: 0, errors: 0, latency: null });
  });

  it('is JSON with every digit of the size, whatever a name looks like', () => {
    const mountpoint = 'a "size": "12",\n      "size": "34"\u001b';
    const text = statusJson([
      aStatus({ mountpoint, size: '9223372036854775807' }),
      silentStatus('/mnt', 7, 'no-answer', null),
    ]);
    assert.match(text, /"size": 9223372036854775807,/);
    const { version, mounts } = JSON.parse(text) as {
      version: number;
      mounts: Readonly<Record<string, unknown>>[];
    };
    assert.equal(version, 1);
    assert.equal(mounts[0]?.['mountpoint'], mountpoint);
    assert.equal(mounts[1]?.['size'], null);
    // Each field is there for each of them.
    assert.deepEqual(Object.keys(mounts[0]), Object.keys(mounts[1]));
  });

  it('is believed only where each field is what it has to be', () => {
    const good = JSON.parse(JSON.stringify(aStatus())) as Record<string, unknown>;
    assert.ok(isMountStatus(good));
    assert.ok(isMountStatus({ ...good, more: 'of a later version' }));
    for (const name of Object.keys(good)) {
      for (const bad of [undefined, {}, -1, 'x'.repeat(10_000), Number.NaN, [1]]) {
        assert.ok(!isMountStatus({ ...good, [name]: bad }), `${name}: ${typeof bad}`);
      }
    }
    const { operations } = aStatus();
    assert.ok(!isMountStatus({ ...good, operations: { ...operations, read: undefined } }));
    assert.ok(!isMountStatus({ ...good, operations: { ...operations, read: { count: 1 } } }));
    for (const bad of [null, 'status', [], 7]) assert.ok(!isMountStatus(bad));
  });
});
