import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { viewOf } from '../../src/bytes.js';
import { S_IFREG } from '../../src/disk/file-attributes.js';
import type { Attributes } from '../../src/disk/file-attributes.js';
import { Fattr } from '../../src/fuse/constants.js';
import {
  ATTR_OUT_BYTES,
  SETATTR_IN_BYTES,
  STATFS_OUT_BYTES,
  getSetattrIn,
  putAttrOut,
  putStatfsOut,
} from '../../src/fuse/structs.js';

const NANOSECONDS = 1_000_000_000n;
/** Where a struct stands in a buffer is not always its start. */
const AT = 8;
const GUARD = 0xee;

const FILE: Attributes = {
  size: 0x0102_0304_0506_0708n,
  blocks: 0x1112_1314_1516_1718n,
  mode: S_IFREG | 0o640,
  uid: 0xfffffffe,
  gid: 34,
  atime: 5n * NANOSECONDS + 6n,
  mtime: 7n * NANOSECONDS + 8n,
  ctime: 9n * NANOSECONDS + 10n,
  blockSize: 65536,
};

/** What `put` writes, which must be all of its bytes and no others. */
function written(length: number, put: (view: DataView, at: number) => void): Buffer {
  const [zeroes, ones] = [0, 0xff].map((before) => {
    const bytes = Buffer.alloc(AT + length + AT, GUARD);
    bytes.fill(before, AT, AT + length);
    put(viewOf(bytes), AT);
    assert.ok(bytes.subarray(0, AT).equals(Buffer.alloc(AT, GUARD)), 'nothing before it');
    assert.ok(bytes.subarray(AT + length).equals(Buffer.alloc(AT, GUARD)), 'nothing behind it');
    return bytes.subarray(AT, AT + length);
  });
  assert.ok(zeroes !== undefined && ones !== undefined);
  assert.ok(zeroes.equals(ones), 'no byte is left as it was');
  return zeroes;
}

const attrOut = (file: Attributes): Buffer =>
  written(ATTR_OUT_BYTES, (view, at) => putAttrOut(view, at, 1n, file, 7n));

/** Seconds and nanoseconds as the kernel takes them, as one time. */
const timeIn = (attr: Buffer, secondsAt: number, nanosecondsAt: number): bigint =>
  attr.readBigInt64LE(secondsAt) * NANOSECONDS + BigInt(attr.readUInt32LE(nanosecondsAt));

describe('fuse_attr_out', () => {
  it('has each field in its place', () => {
    const out = attrOut(FILE);
    assert.equal(out.readBigUInt64LE(0), 7n, 'valid for so many seconds');
    assert.equal(out.readUInt32LE(8), 0);
    const attr = out.subarray(16);
    assert.deepEqual(
      [0, 8, 16, 24, 32, 40].map((at) => attr.readBigUInt64LE(at)),
      [1n, FILE.size, FILE.blocks, 5n, 7n, 9n],
    );
    assert.deepEqual(
      [48, 52, 56, 60, 64, 68, 72, 76, 80, 84].map((at) => attr.readUInt32LE(at)),
      [6, 8, 10, FILE.mode, 1, FILE.uid, 34, 0, 65536, 0],
    );
  });

  it('has nanoseconds that are never negative, also before 1970', () => {
    for (const time of [-1n, -NANOSECONDS, -NANOSECONDS - 1n, -1_500_000_000n, 0n, 1n]) {
      const attr = attrOut({ ...FILE, atime: time, mtime: time, ctime: time }).subarray(16);
      for (const [secondsAt, nanosecondsAt] of [
        [24, 48],
        [32, 52],
        [40, 56],
      ] as const) {
        assert.ok(attr.readUInt32LE(nanosecondsAt) < Number(NANOSECONDS));
        assert.equal(timeIn(attr, secondsAt, nanosecondsAt), time);
      }
    }
  });
});

interface SetattrFields {
  readonly valid: number;
  readonly size?: bigint;
  /** Seconds and nanoseconds. */
  readonly atime?: readonly [bigint, number];
  readonly mtime?: readonly [bigint, number];
  readonly ctime?: readonly [bigint, number];
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** As the kernel writes it; what is not given is filled with what must not be taken for it. */
function setattrIn(from: SetattrFields): DataView {
  const bytes = Buffer.alloc(AT + SETATTR_IN_BYTES, GUARD);
  const view = viewOf(bytes);
  view.setUint32(AT, from.valid, true);
  if (from.size !== undefined) view.setBigUint64(AT + 16, from.size, true);
  for (const [time, secondsAt, nanosecondsAt] of [
    [from.atime, 32, 56],
    [from.mtime, 40, 60],
    [from.ctime, 48, 64],
  ] as const) {
    if (time === undefined) continue;
    view.setBigInt64(AT + secondsAt, time[0], true);
    view.setUint32(AT + nanosecondsAt, time[1], true);
  }
  if (from.mode !== undefined) view.setUint32(AT + 68, from.mode, true);
  if (from.uid !== undefined) view.setUint32(AT + 76, from.uid, true);
  if (from.gid !== undefined) view.setUint32(AT + 80, from.gid, true);
  return view;
}

const NOTHING = {
  size: undefined,
  atime: undefined,
  mtime: undefined,
  ctime: undefined,
  mode: undefined,
  uid: undefined,
  gid: undefined,
  dropSetId: false,
};

describe('fuse_setattr_in', () => {
  const rows: [name: string, fields: SetattrFields, change: Partial<typeof NOTHING> | object][] = [
    ['nothing', { valid: 0 }, {}],
    ['a handle, which changes nothing', { valid: Fattr.FH }, {}],
    ['size', { valid: Fattr.SIZE, size: 2n ** 63n - 1n }, { size: 2n ** 63n - 1n }],
    ['mode', { valid: Fattr.MODE, mode: 0o100755 }, { mode: 0o100755 }],
    ['uid', { valid: Fattr.UID, uid: 0xfffffffe }, { uid: 0xfffffffe }],
    ['gid', { valid: Fattr.GID, gid: 0 }, { gid: 0 }],
    ['atime', { valid: Fattr.ATIME, atime: [3n, 4] }, { atime: 3_000_000_004n }],
    ['mtime', { valid: Fattr.MTIME, mtime: [-1n, 999_999_999] }, { mtime: -1n }],
    ['ctime', { valid: Fattr.CTIME, ctime: [-2n, 500_000_000] }, { ctime: -1_500_000_000n }],
    ['atime now', { valid: Fattr.ATIME | Fattr.ATIME_NOW, atime: [3n, 4] }, { atime: 'now' }],
    ['mtime now', { valid: Fattr.MTIME | Fattr.MTIME_NOW, mtime: [3n, 4] }, { mtime: 'now' }],
    ['set-id bits', { valid: Fattr.KILL_SUIDGID }, { dropSetId: true }],
  ];
  for (const [name, fields, change] of rows) {
    it(`tells ${name} and nothing else`, () => {
      assert.deepEqual(getSetattrIn(setattrIn(fields), AT), { ...NOTHING, ...change });
    });
  }

  it('gives times back as attributes, whatever they are', () => {
    const time = fc.bigInt({ min: -(2n ** 61n), max: 2n ** 61n });
    fc.assert(
      fc.property(time, time, time, (atime, mtime, ctime) => {
        const attr = attrOut({ ...FILE, atime, mtime, ctime }).subarray(16);
        const pair = (secondsAt: number, nanosecondsAt: number): readonly [bigint, number] => [
          attr.readBigInt64LE(secondsAt),
          attr.readUInt32LE(nanosecondsAt),
        ];
        const change = getSetattrIn(
          setattrIn({
            valid: Fattr.ATIME | Fattr.MTIME | Fattr.CTIME,
            atime: pair(24, 48),
            mtime: pair(32, 52),
            ctime: pair(40, 56),
          }),
          AT,
        );
        assert.deepEqual([change.atime, change.mtime, change.ctime], [atime, mtime, ctime]);
      }),
    );
  });
});

describe('fuse_statfs_out', () => {
  it('is a file system that one file fills', () => {
    const out = written(STATFS_OUT_BYTES, (view, at) => putStatfsOut(view, at, 10_000n, 4096));
    const fields = [0, 8, 16, 24, 32].map((at) => out.readBigUInt64LE(at));
    assert.deepEqual(fields, [3n, 0n, 0n, 1n, 0n], 'blocks, free, available, files, free files');
    assert.deepEqual(
      [40, 44, 48].map((at) => out.readUInt32LE(at)),
      [4096, 255, 4096],
    );
  });
});
