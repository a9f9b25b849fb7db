/** The FUSE protocol with requests that no kernel makes: of every opcode, cut, stretched and lying. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { errno } from '../../../src/errno.js';
import { Opcode, WriteFlag } from '../../../src/fuse/constants.js';
import { opcodeRow } from '../../../src/fuse/opcodes.js';
import { FakeKernel, fields, readBody, writeBody } from '../../support/fake-kernel.js';
import { seeded } from '../../support/memory-disk.js';
import { mutate, mutations } from '../mutation.js';
import { bytes } from '../numbers.js';
import { settled } from '../target.js';
import type { Target } from '../target.js';

export interface FuseInput {
  /** The disk is a file in a directory, and not the mountpoint itself. */
  readonly directory: boolean;
  readonly readOnly: boolean;
  /** The seed of the order in which the disk answers; 0: at once. */
  readonly shuffle: number;
  /** Messages with their headers. */
  readonly requests: readonly Buffer[];
}

const DISK_BYTES = 64 * 1024;
const LARGEST = 64 * 1024;
const HEADER_BYTES = 40;
const O_RDWR = 2;
/** Requests that a FakeKernel numbers itself begin here. */
const FIRST_OF_KERNEL = 0xfedc_ba98_0000_0000n;

const name = (text: string): Buffer => Buffer.from(`${text}\0`);
/** What the kernel sends, about a file that was opened. */
const VALID: readonly (readonly [opcode: number, body: Buffer])[] = [
  [Opcode.LOOKUP, name('disk')],
  [Opcode.LOOKUP, name('none')],
  [Opcode.FORGET, fields([8, 1])],
  [Opcode.BATCH_FORGET, fields([4, 2], [4, 0], [8, 2], [8, 1], [8, 1], [8, 1])],
  [Opcode.GETATTR, fields([4, 1], [4, 0], [8, 1])],
  [Opcode.SETATTR, Buffer.concat([fields([4, 0xfff], [4, 0], [8, 1]), Buffer.alloc(72)])],
  [Opcode.OPEN, fields([4, O_RDWR], [4, 0])],
  [Opcode.READ, readBody(1n, 4096n, 4096)],
  [Opcode.WRITE, writeBody(1n, 4096n, Buffer.alloc(600))],
  [Opcode.WRITE, writeBody(1n, 60_000n, Buffer.alloc(6000), { writeFlags: WriteFlag.CACHE })],
  [Opcode.FLUSH, fields([8, 1], [4, 0], [4, 0], [8, 0])],
  [Opcode.FSYNC, fields([8, 1], [4, 0], [4, 0])],
  [Opcode.RELEASE, fields([8, 1], [4, 0], [4, 0], [8, 0])],
  [Opcode.FALLOCATE, fields([8, 1], [8, 0], [8, 4096], [4, 3], [4, 0])],
  [Opcode.FALLOCATE, fields([8, 1], [8, 512], [8, 8192], [4, 16], [4, 0])],
  [Opcode.LSEEK, fields([8, 1], [8, 0], [4, 3], [4, 0])],
  [Opcode.ACCESS, fields([4, 2], [4, 0])],
  [Opcode.IOCTL, Buffer.alloc(32)],
  [Opcode.STATFS, Buffer.alloc(0)],
  [Opcode.OPENDIR, fields([4, 0], [4, 0])],
  [Opcode.READDIR, readBody(1n, 0n, 4096)],
  [Opcode.READDIR, readBody(1n, 1n, 30)],
  [Opcode.RELEASEDIR, fields([8, 1], [4, 0], [4, 0], [8, 0])],
  [Opcode.FSYNCDIR, fields([8, 1], [4, 0], [4, 0])],
  [Opcode.INIT, fields([4, 7], [4, 45], [4, 131072], [4, 0x7fffffff], [4, 0])],
  [Opcode.DESTROY, Buffer.alloc(0)],
];
/** A timer holds on to all of its kernel for seconds, so that there are few of them. */
const INTERRUPT: readonly [number, Buffer] = [Opcode.INTERRUPT, fields([8, 3])];
const NO_REPLY = new Set<number>([Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT]);

function message(opcode: number, node: bigint, uid: number, body: Buffer): Buffer {
  const length = HEADER_BYTES + body.length;
  const header = fields(
    [4, length],
    [4, opcode],
    [8, 0],
    [8, node],
    [4, uid],
    [4, 0],
    [4, 77],
    [4, 0],
  );
  return Buffer.concat([header, body]);
}

const request: fc.Arbitrary<Buffer> = fc
  .tuple(
    fc.oneof(
      { arbitrary: fc.constantFrom(...VALID), weight: 60 },
      { arbitrary: fc.constant(INTERRUPT), weight: 1 },
      {
        arbitrary: fc.tuple(
          fc.oneof(fc.constantFrom(...Object.values(Opcode)), fc.nat({ max: 70 }), fc.nat()),
          bytes(200),
        ),
        weight: 20,
      },
    ),
    // The mountpoint, what is in it, and nothing of ours.
    fc.constantFrom(1n, 1n, 2n, 2n, 0n, 3n, 2n ** 32n + 1n, 2n ** 64n - 1n),
    fc.constantFrom(0, 0, 1000, 0xffffffff),
  )
  .map(([[opcode, body], node, uid]) => message(opcode, node, uid, body));

/**
 * No kernel has two requests of one number, so that each gets another one, whatever became of it.
 * @param honest each says how long it is
 */
function numbered(messages: readonly Buffer[], honest: boolean): Buffer[] {
  return messages.map((one, i) => {
    const fresh = Buffer.from(one.subarray(0, LARGEST));
    if (honest && fresh.length >= 4) fresh.writeUInt32LE(fresh.length, 0);
    if (fresh.length >= 16) fresh.writeBigUInt64LE(BigInt(i + 1) * 2n, 8);
    return fresh;
  });
}

export const fuseTarget: Target<FuseInput> = {
  name: 'fuse',
  inputs: fc.record({
    directory: fc.boolean(),
    readOnly: fc.constantFrom(false, false, true),
    shuffle: fc.constantFrom(0, 0, 1, 2, 3),
    requests: fc
      .tuple(fc.array(request, { minLength: 1, maxLength: 12 }), mutations, fc.boolean())
      .map(([requests, changes, honest]) => numbered(mutate(requests, changes), honest)),
  }),
  frames: ({ requests }) => requests.length,

  async run({ directory, readOnly, shuffle, requests }) {
    const kernel = new FakeKernel(
      { size: DISK_BYTES, shuffle: shuffle === 0 ? undefined : seeded(shuffle) },
      {
        readOnly,
        largest: LARGEST,
        denyOthers: 1000,
        ...(directory ? { directory: 'disk' } : {}),
      },
    );
    // The handle that most requests are about.
    kernel.open(readOnly ? 0 : O_RDWR);
    const wanted: bigint[] = [];
    const short: bigint[] = [];
    for (const one of requests) {
      const isRequest = one.length >= HEADER_BYTES && one.readUInt32LE(0) === one.length;
      try {
        kernel.deliver(one);
      } catch (error) {
        // A kernel that is too old is told so, and then the user is.
        if (!(error instanceof Error) || error.name !== 'MountError') throw error;
      }
      if (!isRequest) continue;
      const opcode = one.readUInt32LE(4);
      const unique = one.readBigUInt64LE(8);
      if (!NO_REPLY.has(opcode)) wanted.push(unique);
      if (one.length - HEADER_BYTES < opcodeRow(opcode).bodyBytes) short.push(unique);
    }
    await settled(idle(kernel), 'the requests');
    for (const unique of wanted) assert.ok(kernel.replies.has(unique), `a reply to ${unique}`);
    for (const unique of short) {
      assert.equal(kernel.replies.get(unique)?.error, errno.EINVAL, 'a request that is too short');
    }
    const asked = requests.filter((one) => one.length >= 16).map((one) => one.readBigUInt64LE(8));
    for (const unique of kernel.replies.keys()) {
      assert.ok(
        asked.includes(unique) || unique >= FIRST_OF_KERNEL,
        `a reply to nothing: ${unique}`,
      );
    }
    assert.equal(kernel.disk.content.length, DISK_BYTES);
  },
};

async function idle(kernel: FakeKernel): Promise<void> {
  await kernel.protocol.mended(kernel.node);
  await new Promise<void>((resolve) => kernel.protocol.whenIdle(resolve));
}
