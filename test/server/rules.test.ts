import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { DiskInfo } from '../../src/disk/disk.js';
import { errno } from '../../src/errno.js';
import { Command, CommandFlag } from '../../src/nbd/constants.js';
import { refusalOf } from '../../src/server/rules.js';
import { MemoryDisk } from '../support/memory-disk.js';

const { READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS } = Command;
const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN } = CommandFlag;
const SIZE = 1 << 20;
const agreed = { structuredReplies: true, allocation: true };

interface Question {
  readonly type: number;
  readonly flags?: number;
  readonly offset?: bigint;
  readonly length?: number;
  readonly info?: Partial<DiskInfo>;
  readonly agreed?: Partial<typeof agreed>;
}

/** The errno that a request is refused with; 0 for none. */
function code(question: Question): number {
  const { info } = new MemoryDisk({ size: SIZE });
  const { type, flags = 0, offset = 0n, length = type === FLUSH ? 0 : 512 } = question;
  const all = { ...info, ...question.info };
  const refusal = refusalOf(all, { ...agreed, ...question.agreed }, type, flags, offset, length);
  return refusal?.code ?? 0;
}

const { EINVAL, ENOSPC, EPERM } = errno;
const end = BigInt(SIZE);
const readOnly = { readOnly: true };
const blocks = { limits: { minimum: 512, preferred: 4096, maximum: 1 << 16 } };

const rows: readonly (readonly [string, number, Question])[] = [
  ['a read', 0, { type: READ }],
  ['a read up to the end', 0, { type: READ, offset: end - 512n }],
  ['a read past the end', EINVAL, { type: READ, offset: end - 511n }],
  ['a read far past the end', EINVAL, { type: READ, offset: 2n ** 64n - 1n }],
  ['a read of nothing', EINVAL, { type: READ, length: 0 }],
  ['a read that is too long', EINVAL, { type: READ, length: (1 << 16) + 512, info: blocks }],
  ['a read with DF', 0, { type: READ, flags: DF }],
  [
    'DF without structured replies',
    EINVAL,
    { type: READ, flags: DF, agreed: { structuredReplies: false } },
  ],
  ['a read with FUA', 0, { type: READ, flags: FUA }],
  ['a read with NO_HOLE', EINVAL, { type: READ, flags: NO_HOLE }],
  ['a read that is not aligned', EINVAL, { type: READ, offset: 1n, info: blocks }],
  ['a read of an odd length', EINVAL, { type: READ, length: 511, info: blocks }],
  ['a write', 0, { type: WRITE, flags: FUA }],
  ['FUA made of flush', 0, { type: WRITE, flags: FUA, info: { canFua: false } }],
  [
    'FUA where it is not offered',
    EINVAL,
    { type: WRITE, flags: FUA, info: { canFua: false, canFlush: false } },
  ],
  ['a write past the end', ENOSPC, { type: WRITE, offset: end }],
  ['a write of nothing', EINVAL, { type: WRITE, length: 0 }],
  ['a write to a read-only export', EPERM, { type: WRITE, info: readOnly }],
  ['a write with an extended payload', EINVAL, { type: WRITE, flags: PAYLOAD_LEN }],
  ['a write that is not aligned', EINVAL, { type: WRITE, offset: 256n, info: blocks }],
  ['a flush', 0, { type: FLUSH }],
  ['a flush of a range', EINVAL, { type: FLUSH, length: 512 }],
  ['a flush with REQ_ONE', EINVAL, { type: FLUSH, flags: REQ_ONE }],
  ['a flush where it is not offered', EINVAL, { type: FLUSH, info: { canFlush: false } }],
  ['a trim', 0, { type: TRIM, length: SIZE, info: blocks }],
  ['a trim past the end', EINVAL, { type: TRIM, offset: end }],
  ['a trim where it is not offered', EINVAL, { type: TRIM, info: { canTrim: false } }],
  ['a trim on a read-only export', EPERM, { type: TRIM, info: readOnly }],
  ['zeroes', 0, { type: WRITE_ZEROES, flags: NO_HOLE | FUA }],
  ['zeroes longer than a payload', 0, { type: WRITE_ZEROES, length: SIZE, info: blocks }],
  ['zeroes past the end', ENOSPC, { type: WRITE_ZEROES, offset: end }],
  ['fast zeroes', EINVAL, { type: WRITE_ZEROES, flags: FAST_ZERO }],
  ['zeroes on a read-only export', EPERM, { type: WRITE_ZEROES, info: readOnly }],
  ['block status', 0, { type: BLOCK_STATUS, flags: REQ_ONE }],
  ['block status past the end', EINVAL, { type: BLOCK_STATUS, offset: end }],
  [
    'block status that was not agreed on',
    EINVAL,
    { type: BLOCK_STATUS, agreed: { allocation: false } },
  ],
  ['cache', EINVAL, { type: CACHE }],
  ['an unknown command', EINVAL, { type: 8 }],
  [
    'another unknown command',
    EINVAL,
    { type: 0xffff, offset: 2n ** 64n - 1n, length: 2 ** 32 - 1 },
  ],
];

describe('refusalOf', () => {
  for (const [what, expected, question] of rows) {
    it(`${what}: ${expected === 0 ? 'allowed' : expected}`, () => {
      assert.equal(code(question), expected);
    });
  }
});
