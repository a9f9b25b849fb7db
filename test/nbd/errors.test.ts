import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { errno, errnoName } from '../../src/errno.js';
import { NbdError, errnoFromWire, wireFromErrno } from '../../src/nbd/errors.js';

/** What a server sends, and what becomes of it here. */
const FROM_WIRE: readonly (readonly [wire: number, code: number])[] = [
  [1, errno.EPERM],
  [5, errno.EIO],
  [12, errno.ENOMEM],
  [22, errno.EINVAL],
  [28, errno.ENOSPC],
  [75, errno.EOVERFLOW],
  [95, errno.EOPNOTSUPP],
  [108, errno.ESHUTDOWN],
  // Unknown ones, also where Linux has an error of that number.
  [2, errno.EINVAL],
  [11, errno.EINVAL],
  [30, errno.EINVAL],
  [511, errno.EINVAL],
  [0x7fffffff, errno.EINVAL],
  [0x80000000, errno.EINVAL],
  [0xffffffff, errno.EINVAL],
];

/** What went wrong here, and what a client is told. */
const TO_WIRE: readonly (readonly [code: number, wire: number])[] = [
  [errno.EPERM, 1],
  [errno.EACCES, 1],
  [errno.EROFS, 1],
  [errno.EIO, 5],
  [errno.ENOMEM, 12],
  [errno.EINVAL, 22],
  [errno.ENOSPC, 28],
  [errno.EDQUOT, 28],
  [errno.EFBIG, 28],
  [errno.EOVERFLOW, 75],
  [errno.EOPNOTSUPP, 95],
  [errno.ENOTSUP, 95],
  [errno.ESHUTDOWN, 108],
  // Those without a counterpart.
  [errno.ENOENT, 5],
  [errno.EAGAIN, 5],
  [errno.ENODEV, 5],
  [errno.ETIMEDOUT, 5],
  [errno.ENXIO, 5],
  [errno.EPIPE, 5],
  [999, 5],
];

describe('an error of a server', () => {
  for (const [wire, code] of FROM_WIRE) {
    it(`${wire} is ${errnoName(code)}`, () => assert.equal(errnoFromWire(wire), code));
  }

  it('is one that the kernel takes, whatever it is', () =>
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 0xffffffff }), (wire) => {
        const code = errnoFromWire(wire);
        // A reply of FUSE carries -511 to 0.
        assert.ok(code > 0 && code < 512);
        // It would never ask again.
        assert.notEqual(code, errno.ENOSYS);
      }),
    ));
});

describe('an error for a client', () => {
  for (const [code, wire] of TO_WIRE) {
    it(`${errnoName(code)} is ${wire}`, () => assert.equal(wireFromErrno(code), wire));
  }

  it('is one of the protocol, whatever it is', () => {
    const known = new Set<number>(Object.values(NbdError));
    for (let code = 1; code < 4096; code++) assert.ok(known.has(wireFromErrno(code)));
  });

  it('is the same when it has gone there and back', () => {
    for (const wire of Object.values(NbdError)) {
      assert.equal(wireFromErrno(errnoFromWire(wire)), wire);
    }
  });
});
