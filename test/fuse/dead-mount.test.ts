import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { tellsOfDeath } from '../../src/fuse/dead-mount.js';

describe('a mount that may be dead', () => {
  const said = (path: string, error: string): string =>
    `stat: cannot read file system information for '${path}': ${error}\n`;

  it('is, where that is the error, as glibc and musl have it', () => {
    assert.ok(tellsOfDeath(said('/mnt/disk.raw', 'Transport endpoint is not connected')));
    assert.ok(tellsOfDeath(said('/mnt/disk.raw', 'Socket not connected')));
  });

  it('is not, where only its name says so', () => {
    assert.ok(!tellsOfDeath(said('/mnt/not connected/disk.raw', 'Permission denied')));
    assert.ok(!tellsOfDeath(''));
  });
});
