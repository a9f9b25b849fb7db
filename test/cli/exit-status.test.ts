/** Scripts count on the numbers: they are written out here once more. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CommandError, InternalError, Interrupted, UsageError } from '../../src/cli/errors.js';
import { ExitStatus, interruptedStatus, statusOf } from '../../src/cli/exit-status.js';
import { WindowError } from '../../src/disk/window.js';
import { ErrnoError, errno } from '../../src/errno.js';
import { MountError } from '../../src/fuse/errors.js';
import { HandshakeError, SetupError } from '../../src/nbd/errors.js';
import { UriError } from '../../src/nbd/uri.js';
import { PartError } from '../../src/partitions/part.js';
import { PartitionTableError } from '../../src/partitions/table.js';

describe('the exit status', () => {
  it('is a number of its own for each kind of end', () => {
    assert.deepEqual(ExitStatus, {
      SAFE: 0,
      FAILED: 1,
      USAGE: 2,
      MOUNTPOINT: 3,
      SERVER: 4,
      EXPORT: 5,
      TLS: 6,
      LOST: 7,
      FORCED: 8,
    });
  });

  for (const [error, status] of [
    [new UriError('x'), 2],
    [new MountError('x'), 3],
    [new CommandError('x', { failure: 'mountpoint' }), 3],
    [new HandshakeError('x'), 4],
    [new CommandError('x', { failure: 'unreachable' }), 4],
    [new HandshakeError('x', { failure: 'refused' }), 5],
    [new CommandError('x', { failure: 'refused' }), 5],
    [new PartError('x'), 5],
    [new PartitionTableError('x'), 5],
    [new WindowError('x'), 5],
    [new HandshakeError('x', { failure: 'tls' }), 6],
    [new SetupError('x'), 6],
    [new CommandError('x'), 1],
    [new ErrnoError(errno.ENOSPC, 'x'), 1],
  ] as const) {
    const kind = 'failure' in error && error.failure !== undefined ? ` (${error.failure})` : '';
    it(`is ${status} for a ${error.constructor.name}${kind}`, () => {
      assert.equal(statusOf(error), status);
    });
  }

  it('is none for what is not expected', () => {
    for (const error of [new TypeError('x'), new InternalError('x'), new UsageError('x')]) {
      assert.equal(statusOf(error), undefined);
    }
  });

  it('is that of a shell for a signal before the mount', () => {
    assert.equal(interruptedStatus(new Interrupted('SIGINT')), 130);
    assert.equal(interruptedStatus(new Interrupted('SIGTERM')), 143);
    assert.equal(interruptedStatus(new Interrupted('SIGHUP')), 129);
  });
});
