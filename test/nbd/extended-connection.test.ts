/** Connections and disks with extended headers over real sockets; the server does what a test tells it. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { HEADROOM } from '../../src/disk/disk.js';
import { NbdConnection } from '../../src/nbd/connection.js';
import { NbdDisk } from '../../src/nbd/nbd-disk.js';
import type { NegotiatedExport } from '../../src/nbd/export.js';
import { hex } from '../support/fake-transport.js';
import { seeded } from '../support/memory-disk.js';
import { AGREED, Answers, connectedPeer, contentAt } from '../support/nbd-peer.js';
import type { NbdPeer, Request } from '../support/nbd-peer.js';
import {
  data,
  errorChunk,
  extended,
  hole,
  none,
  simpleReply,
  statusExt,
} from '../support/nbd-replies.js';

const TIMED = { timeout: 60_000 };
const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const TIB = 1024 * GIB;

const PLAIN = { fua: false };
const ZERO = { fua: false, noHole: false };
const EXTENDED: NegotiatedExport = {
  ...AGREED,
  size: 2n ** 63n - 1n,
  structuredReplies: true,
  extendedHeaders: true,
  allocationId: 7,
};

let cleanups: (() => void)[] = [];
beforeEach(() => {
  cleanups = [];
});
afterEach(() => {
  for (const cleanup of cleanups) cleanup();
});

interface Connected {
  readonly connection: NbdConnection;
  readonly peer: NbdPeer;
  readonly lost: string[];
  readonly answers: Answers;
}

function connect(): Connected {
  const { transport, peer } = connectedPeer(true);
  const lost: string[] = [];
  const connection = new NbdConnection(transport, EXTENDED, (reason) => lost.push(reason));
  cleanups.push(() => {
    connection.abort();
    peer.close();
  });
  return { connection, peer, lost, answers: new Answers() };
}

function connectedDisk(agreed = EXTENDED): { disk: NbdDisk; peer: NbdPeer; answers: Answers } {
  const { transport, peer } = connectedPeer(agreed.extendedHeaders);
  const disk = new NbdDisk(agreed);
  disk.addConnection(transport, agreed);
  cleanups.push(() => {
    disk.abort();
    peer.close();
  });
  return { disk, peer, answers: new Answers() };
}

/** A payload with no more room before it than is promised, behind bytes that are somebody else's. */
function withHeadroom(content: Buffer): { bytes: Buffer; start: number } {
  const before = Buffer.alloc(4, '<');
  return {
    bytes: Buffer.concat([before, Buffer.alloc(HEADROOM, '!'), content]),
    start: before.length + HEADROOM,
  };
}

describe('a command with an extended header', TIMED, () => {
  it('has its place in a request', async () => {
    const { connection, peer, answers } = connect();
    const { bytes, start } = withHeadroom(contentAt(513n, 4));
    connection.read(0x0102030405060708n, 0x1234, answers.read('read', 0n, 0));
    connection.write(513n, bytes, start, 4, PLAIN, answers.reply('write'));
    connection.flush(answers.reply('flush'));
    connection.trim(1n, 0xffffffff, { fua: true }, answers.reply('trim'));
    connection.zero(2n, 6 * GIB, { fua: false, noHole: true }, answers.reply('zero'));
    connection.zero(0n, 2 ** 53 - 65536, ZERO, answers.reply('all'));
    connection.extents(4096n, TIB + 512, answers.extents('extents'));
    const seen = await peer.take(7);
    // Flags, type, cookie, offset, length.
    const expected = [
      '0000 0000 0000000100000000 0102030405060708 0000000000001234',
      '0020 0001 0000000100000001 0000000000000201 0000000000000004', // PAYLOAD_LEN
      '0000 0003 0000000100000002 0000000000000000 0000000000000000',
      '0001 0004 0000000100000003 0000000000000001 00000000ffffffff',
      '0002 0006 0000000100000004 0000000000000002 0000000180000000',
      '0000 0006 0000000100000005 0000000000000000 001fffffffff0000',
      '0000 0007 0000000100000006 0000000000001000 0000010000000200',
    ];
    assert.deepEqual(
      seen.map(({ header }) => header.toString('hex')),
      expected.map((line) => hex(`21e41c71 ${line}`).toString('hex')),
    );
    assert.deepEqual(seen[1]?.payload, contentAt(513n, 4));
    assert.equal(bytes.subarray(0, 4).toString(), '<<<<', 'no more than the headroom was used');
  });

  it('is a FUA write with both flags', async () => {
    const { connection, peer, answers } = connect();
    const { bytes, start } = withHeadroom(contentAt(0n, 512));
    connection.write(0n, bytes, start, 512, { fua: true }, answers.reply('write'));
    assert.equal((await peer.next()).flags, 0x21);
  });

  it('is one of thousands, and is answered in whatever order the server likes', async () => {
    const { connection, peer, answers } = connect();
    const random = seeded(1);
    const COUNT = 1500;
    const kinds: Record<string, string> = {};
    for (let i = 0; i < COUNT; i++) {
      const offset = BigInt(Math.floor(random() * 1e15));
      const length = 1 + Math.floor(random() * 5_000);
      const name = String(i);
      if (i % 3 === 0) {
        const { bytes, start } = withHeadroom(contentAt(offset, length));
        connection.write(offset, bytes, start, length, PLAIN, answers.reply(name));
      } else if (i % 7 === 0) connection.trim(offset, 8 * GIB, PLAIN, answers.reply(name));
      else connection.read(offset, length, answers.read(name, offset, length));
      kinds[name] = i % 3 === 0 || i % 7 === 0 ? 'done' : 'right';
    }
    const requests = await peer.take(COUNT);
    for (const { type, offset, length, payload } of requests) {
      if (type === 1) assert.ok(payload.equals(contentAt(offset, length)));
    }
    while (requests.length > 0) {
      const some: Request[] = [];
      for (let i = 0; i < 40 && requests.length > 0; i++) {
        some.push(...requests.splice(Math.floor(random() * requests.length), 1));
      }
      peer.answer(some);
    }
    assert.deepEqual(await answers.settled(), kinds);
  });

  it('reads and writes as much as there may be at once', async () => {
    const { connection, peer, answers } = connect();
    const length = 32 * MIB;
    const { bytes, start } = withHeadroom(contentAt(77n, length));
    connection.write(77n, bytes, start, length, PLAIN, answers.reply('write'));
    connection.read(77n, length, answers.read('read', 77n, length));
    const [wrote, read] = await peer.take(2);
    assert.ok(wrote !== undefined && read !== undefined);
    assert.ok(wrote.payload.equals(contentAt(77n, length)));
    peer.answer([read, wrote]);
    assert.deepEqual(await answers.settled(), { write: 'done', read: 'right' });
  });

  it('may be answered by chunks in any order, holes, and errors with offsets', async () => {
    const { connection, peer, answers } = connect();
    const got = new Promise<Buffer>((resolve, reject) => {
      connection.read(1n << 40n, MIB, {
        data: (bytes, start) => resolve(Buffer.from(bytes.subarray(start, start + MIB))),
        fail: reject,
      });
    });
    connection.read(4096n, 512, answers.read('error', 4096n, 512));
    const [read, failing] = await peer.take(2);
    assert.ok(read !== undefined && failing !== undefined);
    const at = (offset: bigint, chunk: Buffer): Buffer => extended(chunk, offset);
    peer.send(
      at(read.offset, hole(read.cookie, false, read.offset + 4096n, MIB - 4096)),
      at(4096n, data(failing.cookie, false, 4096n, contentAt(4096n, 256))),
      at(read.offset, data(read.cookie, false, read.offset, Buffer.alloc(4096, 'x'))),
      at(4096n, errorChunk(failing.cookie, true, 28, 'bad', 4352n)),
      at(read.offset, none(read.cookie)),
    );
    const bytes = await got;
    assert.ok(bytes.subarray(0, 4096).equals(Buffer.alloc(4096, 'x')));
    assert.ok(bytes.subarray(4096).equals(Buffer.alloc(MIB - 4096)));
    assert.deepEqual(await answers.settled(), { error: 'ENOSPC' });
  });

  it('is the last word too', async () => {
    const { connection, peer } = connect();
    await connection.close(TIMED.timeout);
    const { header } = await peer.next();
    assert.match(header.toString('hex'), /^21e41c71000000020{0}[0-9a-f]{16}0{32}$/);
    await peer.gone();
    assert.equal(peer.rest.length, 0);
  });
});

describe('a server that breaks the rules of extended headers', TIMED, () => {
  const faults: readonly (readonly [string, (request: Request) => Buffer, RegExp])[] = [
    [
      'by a simple reply',
      ({ cookie }) => simpleReply(cookie),
      /it sent a simple reply although extended headers were agreed on$/,
    ],
    [
      'by a header without them',
      ({ cookie }) => none(cookie),
      /it sent a structured reply although extended headers were agreed on$/,
    ],
    [
      'by an offset of its own',
      ({ cookie, offset }) => extended(none(cookie), offset + 1n),
      /it sent a reply with offset 513 to a request with offset 512$/,
    ],
  ];
  for (const [how, reply, reason] of faults) {
    it(`${how} is lost`, async () => {
      const { connection, peer, lost, answers } = connect();
      connection.trim(512n, 512, PLAIN, answers.reply('trim'));
      connection.flush(answers.reply('flush'));
      const [trim] = await peer.take(2);
      assert.ok(trim !== undefined);
      peer.send(reply(trim));
      assert.deepEqual(await answers.settled(), { trim: 'EIO', flush: 'EIO' });
      assert.equal(lost.length, 1);
      assert.match(lost[0] ?? '', reason);
    });
  }
});

describe('a disk with extended headers', TIMED, () => {
  it('zeroes and trims any range with one request', async () => {
    const { disk, peer, answers } = connectedDisk();
    disk.zero(512n, 6n * BigInt(GIB), { fua: true, noHole: true }, answers.reply('zero'));
    disk.trim(1n << 50n, BigInt(TIB), PLAIN, answers.reply('trim'));
    const [zero, trim] = await peer.take(2);
    assert.deepEqual([zero?.type, zero?.flags, zero?.offset, zero?.length], [6, 3, 512n, 6 * GIB]);
    assert.deepEqual([trim?.type, trim?.offset, trim?.length], [4, 1n << 50n, TIB]);
    peer.answer([zero, trim].filter((each) => each !== undefined));
    assert.deepEqual(await answers.settled(), { zero: 'done', trim: 'done' });
    assert.equal(peer.waiting, 0);
  });

  it('asks for the extents of all of it, and is told by one', async () => {
    const { disk, peer, answers } = connectedDisk();
    disk.extents(4096n, BigInt(TIB), answers.extents('extents'));
    const request = await peer.next();
    assert.equal(request.length, TIB);
    peer.send(statusExt(request.cookie, 4096n, 7, [[1n << 62n, 3]]));
    assert.deepEqual(await answers.settled(), { extents: `${1n << 62n} hole zero` });
  });

  it('splits what is longer than a number can count, at multiples of any block', async () => {
    const MOST = 2n ** 53n - 65536n;
    const { disk, peer, answers } = connectedDisk();
    disk.zero(65536n, 2n * MOST, ZERO, answers.reply('zero'));
    for (const [offset, length] of [
      [65536n, MOST],
      [65536n + MOST, MOST],
    ] as const) {
      const request = await peer.next();
      assert.deepEqual([request.offset, BigInt(request.length)], [offset, length]);
      peer.answer([request]);
    }
    assert.deepEqual(await answers.settled(), { zero: 'done' });
    disk.extents(0n, 2n * MOST, answers.extents('extents'));
    assert.equal(BigInt((await peer.next()).length), MOST);
  });

  for (const [name, error] of [
    ['EOVERFLOW', 75],
    ['EINVAL', 22],
  ] as const) {
    it(`does with less where the server finds that too long (${name})`, async () => {
      const { disk, peer, answers } = connectedDisk();
      const COMPACT = 0xffff0000;
      disk.zero(0n, 6n * BigInt(GIB), ZERO, answers.reply('zero'));
      const long = await peer.next();
      assert.equal(long.length, 6 * GIB);
      peer.send(extended(errorChunk(long.cookie, true, error), 0n));
      for (const [offset, length] of [
        [0n, COMPACT],
        [BigInt(COMPACT), 6 * GIB - COMPACT],
      ] as const) {
        const request = await peer.next();
        assert.deepEqual([request.offset, request.length], [offset, length]);
        peer.answer([request]);
      }
      assert.deepEqual(await answers.settled(), { zero: 'done' });

      // It is not asked again; and what it refuses even then is an error.
      disk.trim(4096n, BigInt(TIB), PLAIN, answers.reply('trim'));
      const next = await peer.next();
      assert.equal(next.length, COMPACT);
      peer.send(extended(errorChunk(next.cookie, true, error), 4096n));
      assert.equal((await answers.settled())['trim'], name);
      assert.equal(peer.waiting, 0);
    });
  }

  for (const error of [75, 22]) {
    it(`asks for less block status where the server finds that too long (${error})`, async () => {
      const { disk, peer, answers } = connectedDisk();
      const COMPACT = 0xffff0000;
      disk.extents(4096n, BigInt(TIB), answers.extents('extents'));
      disk.extents(8192n, BigInt(TIB), answers.extents('others'));
      const asked = [await peer.next(), await peer.next()];
      for (const { cookie, offset, length } of asked) {
        assert.equal(length, TIB);
        peer.send(extended(errorChunk(cookie, true, error), offset));
      }
      for (const { offset } of asked) {
        const request = await peer.next();
        assert.deepEqual([request.offset, request.length], [offset, COMPACT]);
        peer.send(extended(errorChunk(request.cookie, true, error), offset));
      }
      const { extents, others } = await answers.settled();
      assert.match(`${String(extents)} ${String(others)}`, /^(E\w+) \1$/);
      assert.equal(peer.waiting, 0);
    });
  }

  it('tells other errors of a long range as they are', async () => {
    const { disk, peer, answers } = connectedDisk();
    disk.zero(0n, 6n * BigInt(GIB), ZERO, answers.reply('zero'));
    const request = await peer.next();
    peer.send(extended(errorChunk(request.cookie, true, 95), 0n));
    assert.match((await answers.settled())['zero'] ?? '', /^E(NOTSUP|OPNOTSUPP)$/);
    assert.equal(peer.waiting, 0);
  });
});
