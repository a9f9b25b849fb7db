/** NbdConnection and NbdDisk over real sockets, with a server that does what a test tells it. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { HEADROOM } from '../../src/disk/disk.js';
import { native } from '../../src/native.js';
import { NbdConnection } from '../../src/nbd/connection.js';
import type { NegotiatedExport, Target } from '../../src/nbd/export.js';
import { NbdDisk, connectDisk } from '../../src/nbd/nbd-disk.js';
import { FdTransport } from '../../src/transport/fd-transport.js';
import { hex } from '../support/fake-transport.js';
import { seeded } from '../support/memory-disk.js';
import { until } from '../support/mounts.js';
import {
  AGREED,
  Answers,
  NbdPeer,
  connectedPeer,
  contentAt,
  socketPair,
} from '../support/nbd-peer.js';
import type { Request } from '../support/nbd-peer.js';
import { data, errorChunk, hole, none, simpleReply, status } from '../support/nbd-replies.js';

/** Milliseconds; ends a test that hangs. */
const DEADLINE = 60_000;
const TIMED = { timeout: DEADLINE };
const KIB = 1024;
const MIB = 1024 * 1024;

const PLAIN = { fua: false };
const FUA = { fua: true };
const ZERO = { fua: false, noHole: false };
const STRUCTURED: NegotiatedExport = { ...AGREED, structuredReplies: true, allocationId: 7 };

const sockets = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
    } catch {
      return false; // the folder itself, closed by now
    }
  }).length;

let cleanups: (() => void)[] = [];
let socketsBefore = 0;
beforeEach(() => {
  cleanups = [];
  socketsBefore = sockets();
});
afterEach(async () => {
  for (const cleanup of cleanups) cleanup();
  await until('all sockets are closed', () => sockets() <= socketsBefore);
});

interface Connected {
  readonly connection: NbdConnection;
  readonly peer: NbdPeer;
  /** What `lost` was called with. */
  readonly lost: string[];
  readonly answers: Answers;
}

function connect(agreed: NegotiatedExport = AGREED): Connected {
  const { transport, peer } = connectedPeer();
  const lost: string[] = [];
  const connection = new NbdConnection(transport, agreed, (reason) => lost.push(reason));
  cleanups.push(() => {
    connection.abort();
    peer.close();
  });
  return { connection, peer, lost, answers: new Answers() };
}

/** A payload with room before it. */
function withHeadroom(content: Buffer): Buffer {
  return Buffer.concat([Buffer.alloc(HEADROOM, '!'), content]);
}

function write(
  { connection, answers }: Connected,
  name: string,
  offset: bigint,
  length: number,
  options = PLAIN,
): void {
  const bytes = withHeadroom(contentAt(offset, length));
  connection.write(offset, bytes, HEADROOM, length, options, answers.reply(name));
}

function repeat(count: number, text: string): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [String(i), text]));
}

describe('a command', TIMED, () => {
  it('has its place in a request', async () => {
    const client = connect(STRUCTURED);
    const { connection, peer, answers } = client;
    connection.read(0x0102030405060708n, 0x1234, answers.read('read', 0n, 0));
    write(client, 'write', 512n, 4);
    write(client, 'write FUA', 513n, 1, FUA);
    connection.flush(answers.reply('flush'));
    connection.trim(0n, 0xffff0000, PLAIN, answers.reply('trim'));
    connection.trim(1n, 1, FUA, answers.reply('trim FUA'));
    connection.zero(0n, 512, ZERO, answers.reply('zero'));
    connection.zero(0n, 512, { fua: true, noHole: false }, answers.reply('zero FUA'));
    connection.zero(0n, 512, { fua: false, noHole: true }, answers.reply('zero no hole'));
    connection.extents(4096n, 0x80000000, answers.extents('extents'));
    const seen = await peer.take(10);
    // Flags, type, cookie, offset, length.
    const expected = [
      '0000 0000 0000000100000000 0102030405060708 00001234',
      '0000 0001 0000000100000001 0000000000000200 00000004',
      '0001 0001 0000000100000002 0000000000000201 00000001',
      '0000 0003 0000000100000003 0000000000000000 00000000',
      '0000 0004 0000000100000004 0000000000000000 ffff0000',
      '0001 0004 0000000100000005 0000000000000001 00000001',
      '0000 0006 0000000100000006 0000000000000000 00000200',
      '0001 0006 0000000100000007 0000000000000000 00000200',
      '0002 0006 0000000100000008 0000000000000000 00000200',
      '0000 0007 0000000100000009 0000000000001000 80000000',
    ];
    assert.deepEqual(
      seen.map(({ header }) => header.toString('hex')),
      expected.map((line) => hex(`25609513 ${line}`).toString('hex')),
    );
    assert.deepEqual(seen[1]?.payload, contentAt(512n, 4));
    assert.equal(connection.load, 10);
  });

  it('leaves together with the others of its turn, and waits for none of them', async () => {
    const { connection, peer, answers } = connect();
    for (let i = 0; i < 600; i++) {
      connection.read(BigInt(i) * 4096n, 4096, answers.read(String(i), BigInt(i) * 4096n, 4096));
    }
    assert.equal(connection.load, 600);
    const requests = await peer.take(600);
    assert.equal(new Set(requests.map(({ cookie }) => cookie)).size, 600);
    peer.answer(requests);
    assert.deepEqual(await answers.settled(), repeat(600, 'right'));
    assert.equal(connection.load, 0);
  });

  it('is answered in whatever order the server likes', async () => {
    for (const structured of [false, true]) {
      const client = connect(structured ? STRUCTURED : AGREED);
      const { connection, peer, answers } = client;
      const random = seeded(1);
      const COUNT = 200;
      const kinds: Record<string, string> = {};
      for (let i = 0; i < COUNT; i++) {
        const offset = BigInt(Math.floor(random() * 1e12));
        const length = 1 + Math.floor(random() * 20_000);
        const name = String(i);
        if (i % 3 === 0) write(client, name, offset, length);
        else if (i % 7 === 0) connection.flush(answers.reply(name));
        else connection.read(offset, length, answers.read(name, offset, length));
        kinds[name] = i % 3 === 0 || i % 7 === 0 ? 'done' : 'right';
      }
      const requests = await peer.take(COUNT);
      while (requests.length > 0) {
        const count = 1 + Math.floor(random() * 5);
        const some: Request[] = [];
        for (let i = 0; i < count && requests.length > 0; i++) {
          some.push(...requests.splice(Math.floor(random() * requests.length), 1));
        }
        peer.answer(some, structured);
        if (random() < 0.3) await turn();
      }
      assert.deepEqual(await answers.settled(), kinds);
    }
  });

  it('fails alone', async () => {
    const client = connect();
    const { connection, peer, answers, lost } = client;
    connection.read(0n, 512, answers.read('0', 0n, 512));
    write(client, '1', 0n, 512);
    connection.read(512n, 512, answers.read('2', 512n, 512));
    const [one, two, three] = await peer.take(3);
    assert.ok(one !== undefined && two !== undefined && three !== undefined);
    peer.send(simpleReply(one.cookie, 5), simpleReply(two.cookie, 28));
    peer.answer([three]);
    assert.deepEqual(await answers.settled(), { 0: 'EIO', 1: 'ENOSPC', 2: 'right' });
    assert.deepEqual(lost, []);
    assert.ok(connection.alive);
  });

  it('may come out of the answer to another one', async () => {
    const { connection, peer, answers } = connect();
    const COUNT = 1000;
    let asked = 0;
    const next = (): void => {
      if (asked === COUNT) return;
      const name = String(asked);
      const offset = BigInt(asked++) * 512n;
      connection.read(offset, 512, answers.read(name, offset, 512, next));
    };
    next();
    next();
    for (let i = 0; i < COUNT; i++) peer.answer([await peer.next()]);
    assert.deepEqual(await answers.settled(), repeat(COUNT, 'right'));
    assert.equal(connection.load, 0);
  });
});

describe('what a server sends', TIMED, () => {
  it('is received in one place, however large it is', async () => {
    for (const structured of [false, true]) {
      const { connection, peer, answers } = connect(structured ? STRUCTURED : AGREED);
      const sizes = [1, MIB, 512, 32 * MIB, 4096, 128 * KIB, MIB, 128 * KIB + 4096, 17, 3 * MIB];
      const ask = (name: number, offset: bigint): void => {
        const length = sizes[name] ?? 0;
        connection.read(offset, length, answers.read(String(name), offset, length));
      };
      for (const [i] of sizes.entries()) ask(i, BigInt(i) * 77n);
      peer.answer(await peer.take(sizes.length), structured);
      assert.deepEqual(await answers.settled(), repeat(sizes.length, 'right'));
    }
  });

  it('may be many small replies at once', async () => {
    const { connection, peer, answers } = connect();
    const COUNT = 3000;
    for (let i = 0; i < COUNT; i++) {
      const length = 1 + ((i * 37) % 600);
      connection.read(BigInt(i), length, answers.read(String(i), BigInt(i), length));
    }
    peer.answer(await peer.take(COUNT));
    assert.deepEqual(await answers.settled(), repeat(COUNT, 'right'));
  });

  it('may be a large read in small chunks, backwards', async () => {
    const { connection, peer, answers } = connect(STRUCTURED);
    const length = 2 * MIB;
    connection.read(0n, length, answers.read('0', 0n, length));
    connection.read(0n, 4096, answers.read('1', 0n, 4096));
    const [one, two] = await peer.take(2);
    assert.ok(one !== undefined && two !== undefined);
    const PART = 4096;
    const content = contentAt(0n, length);
    for (let at = length - PART; at >= 0; at -= PART) {
      peer.send(data(one.cookie, at === 0, BigInt(at), content.subarray(at, at + PART)));
      if (at === PART) peer.answer([two], true);
    }
    assert.deepEqual(await answers.settled(), { 0: 'right', 1: 'right' });
  });

  it('may be holes', async () => {
    const { connection, peer, answers } = connect(STRUCTURED);
    const got = new Promise<Buffer>((resolve, reject) => {
      connection.read(0n, MIB, {
        data: (bytes, start) => resolve(Buffer.from(bytes.subarray(start, start + MIB))),
        fail: reject,
      });
    });
    connection.flush(answers.reply('flush'));
    const [read, flush] = await peer.take(2);
    assert.ok(read !== undefined && flush !== undefined);
    peer.send(
      hole(read.cookie, false, 4096n, MIB - 4096),
      errorChunk(flush.cookie, true, 28, 'full'),
      data(read.cookie, false, 0n, Buffer.alloc(4096, 'x')),
      none(read.cookie),
    );
    const bytes = await got;
    assert.ok(bytes.subarray(0, 4096).equals(Buffer.alloc(4096, 'x')));
    assert.ok(bytes.subarray(4096).equals(Buffer.alloc(MIB - 4096)));
    assert.deepEqual(answers.all, { flush: 'ENOSPC' });
  });

  it('may be block status', async () => {
    const { connection, peer, answers } = connect(STRUCTURED);
    connection.extents(0n, 8192, answers.extents('0'));
    const { cookie } = await peer.next();
    peer.send(
      status(cookie, true, 7, [
        [4096, 0],
        [65536, 3],
      ]),
    );
    assert.deepEqual(await answers.settled(), { 0: '4096, 65536 hole zero' });
  });

  it('may come in any pieces', async () => {
    for (const structured of [false, true]) {
      const { connection, peer, answers } = connect(structured ? STRUCTURED : AGREED);
      const COUNT = 12;
      for (let i = 0; i < COUNT; i++) {
        connection.read(BigInt(i), 5, answers.read(String(i), BigInt(i), 5));
      }
      const replies = (await peer.take(COUNT)).map(({ cookie, offset, length }) =>
        structured
          ? data(cookie, true, offset, contentAt(offset, length))
          : simpleReply(cookie, 0, contentAt(offset, length)),
      );
      for (const byte of Buffer.concat(replies)) {
        peer.send(Buffer.of(byte));
        await turn();
      }
      assert.deepEqual(await answers.settled(), repeat(COUNT, 'right'));
    }
  });
});

describe('what a server does not take at once', TIMED, () => {
  it('is sent in parts', async () => {
    const client = connect();
    const { peer, answers, connection } = client;
    peer.pause();
    const sizes = [32 * MIB, 1, 4096, MIB, 3 * MIB + 7];
    for (const [i, size] of sizes.entries()) {
      write(client, String(i), BigInt(i), size);
      connection.flush(answers.reply(`flush ${i}`));
    }
    for (let i = 0; i < 10; i++) await turn();
    peer.resume();
    const requests = await peer.take(2 * sizes.length);
    for (const [i, size] of sizes.entries()) {
      const request = requests[2 * i];
      assert.equal(request?.length, size);
      assert.ok(request.payload.equals(contentAt(BigInt(i), size)), `write ${i}`);
      assert.equal(requests[2 * i + 1]?.type, 3);
    }
    peer.answer(requests);
    const all = await answers.settled();
    assert.ok(Object.values(all).every((answer) => answer === 'done'));
    assert.equal(Object.keys(all).length, 2 * sizes.length);
  });

  it('is not disturbed by thousands of commands behind it', async () => {
    const client = connect();
    const { peer, connection, answers } = client;
    const random = seeded(2);
    let asked = 0;
    const expected: { offset: bigint; length: number; type: number }[] = [];
    const ask = (count: number): void => {
      for (let i = 0; i < count; i++) {
        const offset = BigInt(asked);
        const name = String(asked++);
        if (random() < 0.02) {
          const length = 1 + Math.floor(random() * 100_000);
          write(client, name, offset, length);
          expected.push({ offset, length, type: 1 });
        } else {
          connection.trim(offset, 512 + asked, PLAIN, answers.reply(name));
          expected.push({ offset, length: 512 + asked, type: 4 });
        }
      }
    };
    peer.pause();
    // More than the socket holds.
    write(client, 'first', 0n, 4 * MIB);
    for (let i = 0; i < 20; i++) {
      ask(300);
      await turn();
    }
    // The server takes some, while more come.
    for (let i = 0; i < 20; i++) {
      peer.resume();
      for (let turns = Math.floor(random() * 3); turns > 0; turns--) await turn();
      peer.pause();
      ask(1 + Math.floor(random() * 300));
      await turn();
    }
    peer.resume();
    const [first, ...requests] = await peer.take(1 + asked);
    assert.ok(first !== undefined);
    assert.ok(first.payload.equals(contentAt(0n, 4 * MIB)));
    for (const [i, { type, offset, length, payload }] of requests.entries()) {
      assert.deepEqual({ offset, length, type }, expected[i], `request ${i}`);
      if (type === 1) assert.ok(payload.equals(contentAt(offset, length)), `write ${i}`);
    }
    assert.equal(new Set(requests.map(({ cookie }) => cookie)).size, asked);
    peer.answer([first, ...requests]);
    assert.deepEqual(await answers.settled(), { ...repeat(asked, 'done'), first: 'done' });
    // And from the start again, with the same cookies' other halves.
    ask(2000);
    const again = await peer.take(2000);
    peer.answer(again);
    await answers.settled();
    assert.equal(connection.load, 0);
  });
});

describe('a server that goes', TIMED, () => {
  /** What it does while a read of 64 KiB, a write, a flush and another read wait for it. */
  const endings: readonly (readonly [
    how: string,
    act: (peer: NbdPeer, requests: Request[]) => void | Promise<void>,
    reason: RegExp,
    answers?: Record<string, string>,
  ])[] = [
    ['without a word', (peer) => peer.close(), /^closed the connection$/],
    [
      'in a header',
      (peer, [read]) => {
        peer.send(simpleReply(read?.cookie ?? 0n).subarray(0, 15));
        return peer.end();
      },
      /^closed the connection$/,
    ],
    [
      'in the middle of the data',
      async (peer, [read]) => {
        peer.send(simpleReply(read?.cookie ?? 0n, 0, Buffer.alloc(40_000)));
        await peer.end();
      },
      /^closed the connection$/,
    ],
    [
      'after some replies',
      async (peer, [, , flush, last]) => {
        if (flush !== undefined && last !== undefined) peer.answer([last, flush]);
        await peer.end();
      },
      /^closed the connection$/,
      { flush: 'done', last: 'right' },
    ],
    [
      'by breaking the protocol',
      (peer, [, , flush]) => {
        if (flush !== undefined) peer.answer([flush]);
        peer.send(hex(`'what?' 0d0a 00 0000000000000000`));
      },
      /^broke the NBD protocol: it sent a reply with the wrong magic 0x77686174$/,
      { flush: 'done' },
    ],
    [
      'by answering twice',
      (peer, [, , flush]) => {
        if (flush !== undefined) peer.answer([flush, flush]);
      },
      /^broke the NBD protocol: it sent a reply to a request that is not in flight/,
      { flush: 'done' },
    ],
    [
      'by saying that it shuts down',
      (peer, [, write]) => {
        peer.send(simpleReply(write?.cookie ?? 0n, 108));
        return peer.end();
      },
      /^is shutting down$/,
      { write: 'ESHUTDOWN' },
    ],
  ];
  for (const [how, act, reason, answered = {}] of endings) {
    it(`${how} fails each command once, and is reported once`, async () => {
      const client = connect();
      const { connection, peer, answers, lost } = client;
      connection.read(0n, 65536, answers.read('read', 0n, 65536));
      write(client, 'write', 0n, 512);
      connection.flush(answers.reply('flush'));
      connection.read(512n, 512, answers.read('last', 512n, 512));
      await act(peer, await peer.take(4));
      const left = { read: 'EIO', write: 'EIO', flush: 'EIO', last: 'EIO' };
      assert.deepEqual(await answers.settled(), { ...left, ...answered });
      assert.equal(lost.length, 1);
      assert.match(lost[0] ?? '', reason);
      assert.equal(connection.load, 0);
      assert.ok(!connection.alive);

      // Nothing waits for it any more.
      connection.read(0n, 1, answers.read('later read', 0n, 1));
      write(client, 'later write', 0n, 1);
      connection.flush(answers.reply('later flush'));
      connection.trim(0n, 1, PLAIN, answers.reply('later trim'));
      connection.zero(0n, 1, ZERO, answers.reply('later zero'));
      connection.extents(0n, 1, answers.extents('later extents'));
      assert.equal(answers.left, 0);
      for (const [name, text] of Object.entries(answers.all)) {
        if (name.startsWith('later')) assert.equal(text, 'EIO', name);
      }
      connection.abort();
      await connection.close(DEADLINE);
      for (let i = 0; i < 3; i++) await turn();
      assert.equal(lost.length, 1);
    });
  }

  it('while nothing is asked of it is reported as well', async () => {
    const { peer, connection, lost } = connect();
    peer.close();
    await until('it is noticed', () => lost.length > 0);
    assert.deepEqual(lost, ['closed the connection']);
    assert.ok(!connection.alive);
  });

  it('while much waits to be sent is heard to the end', async () => {
    const client = connect();
    const { connection, peer, answers, lost } = client;
    connection.read(0n, 512, answers.read('read', 0n, 512));
    const request = await peer.next();
    peer.pause();
    write(client, 'write', 0n, 32 * MIB);
    await turn();
    peer.answer([request]);
    await peer.end();
    peer.close();
    assert.deepEqual(await answers.settled(), { read: 'right', write: 'EIO' });
    assert.equal(lost.length, 1);
    assert.match(lost[0] ?? '', /^(closed|broke) the connection/);
  });

  it('in the middle of a large read leaves nothing behind', async () => {
    for (const structured of [false, true]) {
      const { connection, peer, answers, lost } = connect(structured ? STRUCTURED : AGREED);
      connection.read(0n, 32 * MIB, answers.read('0', 0n, 32 * MIB));
      const { cookie } = await peer.next();
      const content = Buffer.alloc(32 * MIB);
      const reply = structured ? data(cookie, true, 0n, content) : simpleReply(cookie, 0, content);
      peer.send(reply.subarray(0, reply.length - 1));
      await peer.end();
      assert.deepEqual(await answers.settled(), { 0: 'EIO' });
      assert.deepEqual(lost, ['closed the connection']);
    }
  });

  it('may make each of its commands ask for another', async () => {
    const { connection, peer, answers, lost } = connect();
    for (let i = 0; i < 100; i++) {
      connection.flush(
        answers.reply(String(i), () => connection.flush(answers.reply(`${i} again`))),
      );
    }
    await peer.take(100);
    peer.close();
    const all = await answers.settled();
    assert.equal(Object.keys(all).length, 200);
    assert.ok(Object.values(all).every((answer) => answer === 'EIO'));
    assert.equal(lost.length, 1);
  });
});

describe('a server that shuts down', TIMED, () => {
  it('may answer what it has, is asked nothing more, and is told goodbye', async () => {
    const client = connect();
    const { connection, peer, answers, lost } = client;
    connection.read(0n, 512, answers.read('read', 0n, 512));
    write(client, 'write', 0n, 512);
    connection.flush(answers.reply('flush'));
    const [read, wrote, flush] = await peer.take(3);
    assert.ok(read !== undefined && wrote !== undefined && flush !== undefined);
    peer.send(simpleReply(wrote.cookie, 108));
    await until('it is told', () => lost.length > 0);
    assert.deepEqual(lost, ['is shutting down']);
    connection.flush(answers.reply('too late'));
    peer.answer([flush]);
    await until('the flush is answered', () => answers.of('flush') !== undefined);
    assert.equal(peer.waiting, 0, 'DISC comes last');
    // What it may not have done any more it may refuse as well.
    peer.send(simpleReply(read.cookie, 108));
    assert.deepEqual(await answers.settled(), {
      read: 'ESHUTDOWN',
      write: 'ESHUTDOWN',
      flush: 'done',
      'too late': 'EIO',
    });
    assert.equal((await peer.next()).type, 2);
    await peer.gone();
    assert.equal(peer.waiting, 0);
    assert.ok(!connection.alive);
    assert.equal(lost.length, 1);
  });

  it('may break off all the same', async () => {
    const { connection, peer, answers, lost } = connect();
    connection.flush(answers.reply('0'));
    connection.flush(answers.reply('1'));
    const [one] = await peer.take(2);
    peer.send(simpleReply(one?.cookie ?? 0n, 108));
    await until('it is told', () => lost.length > 0);
    peer.close();
    assert.deepEqual(await answers.settled(), { 0: 'ESHUTDOWN', 1: 'EIO' });
    assert.deepEqual(lost, ['is shutting down']);
  });

  it('is not waited for when the connection is given up', async () => {
    const { connection, peer, answers, lost } = connect();
    connection.flush(answers.reply('0'));
    connection.flush(answers.reply('1'));
    const [one] = await peer.take(2);
    peer.send(simpleReply(one?.cookie ?? 0n, 108));
    await until('it is told', () => lost.length > 0);
    connection.abort();
    assert.deepEqual(answers.all, { 0: 'ESHUTDOWN', 1: 'EIO' });
    await peer.gone();
    assert.equal(peer.waiting, 0, 'no DISC: it was not idle');
  });
});

describe('a connection that is given up', TIMED, () => {
  it('fails what is in flight, and reports nothing', async () => {
    const { connection, peer, answers, lost } = connect();
    connection.flush(answers.reply('0'));
    connection.read(0n, 512, answers.read('1', 0n, 512));
    await peer.take(2);
    connection.abort();
    assert.deepEqual(answers.all, { 0: 'EIO', 1: 'EIO' });
    connection.abort();
    await peer.gone();
    assert.deepEqual(lost, []);
    assert.equal(peer.waiting, 0, 'no DISC: it was not idle');
  });

  it('may be given up by an answer, with others in the same piece', async () => {
    const { connection, peer, answers, lost } = connect();
    connection.flush(answers.reply('0', () => connection.abort()));
    connection.flush(answers.reply('1'));
    connection.read(0n, 512, answers.read('2', 0n, 512));
    peer.answer(await peer.take(3));
    assert.deepEqual(await answers.settled(), { 0: 'done', 1: 'EIO', 2: 'EIO' });
    await peer.gone();
    assert.deepEqual(lost, []);
  });
});

describe('a connection that is closed', TIMED, () => {
  const DISC = /^25609513000000020{0}[0-9a-f]{16}0{24}$/;

  /** Checks that DISC comes next, and nothing after it. */
  async function disconnected(peer: NbdPeer): Promise<void> {
    const request = await peer.next();
    assert.match(request.header.toString('hex'), DISC);
    await peer.gone();
    assert.equal(peer.waiting, 0);
    assert.equal(peer.rest.length, 0);
  }

  it('says so to the server', async () => {
    const { connection, peer, lost } = connect();
    await connection.close(DEADLINE);
    await disconnected(peer);
    assert.ok(!connection.alive);
    await connection.close(DEADLINE);
    connection.abort();
    assert.deepEqual(lost, []);
  });

  it('waits for what is in flight', async () => {
    const client = connect();
    const { connection, peer, answers, lost } = client;
    connection.read(0n, MIB, answers.read('read', 0n, MIB));
    write(client, 'write', 0n, MIB);
    connection.flush(answers.reply('flush'));
    let closed = false;
    const closing = connection.close(DEADLINE).then(() => (closed = true));
    const requests = await peer.take(3);
    for (const request of requests.toReversed()) {
      for (let i = 0; i < 3; i++) await turn();
      assert.ok(!closed);
      assert.equal(peer.waiting, 0, 'DISC comes last');
      peer.answer([request]);
    }
    await closing;
    assert.deepEqual(answers.all, { read: 'right', write: 'done', flush: 'done' });
    await disconnected(peer);
    assert.deepEqual(lost, []);
  });

  it('waits for what has not even left', async () => {
    const client = connect();
    const { connection, peer, answers } = client;
    peer.pause();
    write(client, 'write', 0n, 16 * MIB);
    await turn();
    const closing = connection.close(DEADLINE);
    await turn();
    peer.resume();
    peer.answer([await peer.next()]);
    await closing;
    assert.deepEqual(answers.all, { write: 'done' });
    await disconnected(peer);
  });

  it('waits no longer than it is told', async () => {
    const { connection, peer, answers, lost } = connect();
    connection.flush(answers.reply('0'));
    await peer.take(1);
    await connection.close(20);
    assert.deepEqual(answers.all, { 0: 'EIO' });
    await peer.gone();
    assert.deepEqual(lost, []);
  });

  it('ends with the server, if that goes first', async () => {
    const { connection, peer, answers, lost } = connect();
    connection.flush(answers.reply('0'));
    const closing = connection.close(DEADLINE);
    await peer.take(1);
    peer.close();
    await closing;
    assert.deepEqual(answers.all, { 0: 'EIO' });
    assert.deepEqual(lost, ['closed the connection']);
  });

  it('does not report a server that has hung up unnoticed', async () => {
    const [ours, theirs] = socketPair();
    const lost: string[] = [];
    const transport = new FdTransport(ours);
    const connection = new NbdConnection(transport, AGREED, (reason) => lost.push(reason));
    native.close(theirs);
    // DISC cannot be sent any more.
    await connection.close(DEADLINE);
    for (let i = 0; i < 3; i++) await turn();
    assert.deepEqual(lost, []);
  });
});

describe('a disk', TIMED, () => {
  interface Several {
    readonly disk: NbdDisk;
    readonly peers: readonly NbdPeer[];
    readonly lost: string[];
    readonly answers: Answers;
  }

  function several(count: number, agreed: NegotiatedExport = AGREED): Several {
    const disk = new NbdDisk(agreed);
    const lost: string[] = [];
    disk.onLost = (reason) => lost.push(reason);
    const peers = Array.from({ length: count }, () => {
      const { transport, peer } = connectedPeer();
      disk.addConnection(transport, agreed);
      cleanups.push(() => {
        transport.close();
        peer.close();
      });
      return peer;
    });
    return { disk, peers, lost, answers: new Answers() };
  }

  it('is what the server told', () => {
    const bits = [
      [1, 'readOnly'],
      [2, 'canFlush'],
      [3, 'canFua'],
      [4, 'rotational'],
      [5, 'canTrim'],
      [6, 'canZero'],
      [8, 'canMultiConn'],
    ] as const;
    const none = {
      size: AGREED.size,
      readOnly: false,
      canFlush: false,
      canFua: false,
      canTrim: false,
      canZero: false,
      canExtents: false,
      canMultiConn: false,
      rotational: false,
      limits: AGREED.limits,
    };
    assert.deepEqual(new NbdDisk({ ...AGREED, flags: 1 }).info, none);
    for (const [bit, name] of bits) {
      const { info } = new NbdDisk({ ...AGREED, flags: 1 | (1 << bit) });
      assert.deepEqual(info, { ...none, [name]: true });
    }
    const withStatus = new NbdDisk({ ...STRUCTURED, flags: 1, allocationId: 0 });
    assert.deepEqual(withStatus.info, { ...none, canExtents: true });
  });

  it('gives what comes to the connection with the least to do, until that is full', async () => {
    const { disk, peers, answers } = several(3);
    assert.equal(disk.connections, 3);
    const ask = (name: string): void => disk.read(0n, 512, answers.read(name, 0n, 512));
    for (let i = 0; i < 30; i++) ask(String(i));
    const requests = await Promise.all(peers.map((peer) => peer.take(10)));
    for (const peer of peers) assert.equal(peer.waiting, 0);
    // One of them is faster.
    const [, fast] = peers;
    fast?.answer(requests[1]?.splice(0, 6) ?? []);
    await until('six are answered', () => answers.left === 24);
    for (let i = 30; i < 36; i++) ask(String(i));
    requests[1]?.push(...((await fast?.take(6)) ?? []));
    for (const [i, peer] of peers.entries()) {
      assert.equal(peer.waiting, 0);
      peer.answer(requests[i] ?? []);
    }
    assert.deepEqual(await answers.settled(), repeat(36, 'right'));
  });

  it('sends what comes together over one connection, up to eight commands or 512 KiB', async () => {
    const { disk, peers, answers } = several(3);
    for (let i = 0; i < 8; i++) disk.read(0n, 512, answers.read(String(i), 0n, 512));
    const small = (await peers[0]?.take(8)) ?? [];
    for (const peer of peers) assert.equal(peer.waiting, 0);
    peers[0]?.answer(small);
    await until('they are answered', () => answers.left === 0);
    const long = 512 * 1024;
    for (let i = 0; i < 3; i++) disk.read(0n, long, answers.read(`long ${i}`, 0n, long));
    const each = await Promise.all(peers.map((peer) => peer.take(1)));
    peers.forEach((peer, i) => peer.answer(each[i] ?? []));
    const all = Object.values(await answers.settled());
    assert.deepEqual(all, Array<string>(11).fill('right'));
    await disk.close();
  });

  it('is lost as a whole when one connection is', async () => {
    const { disk, peers, answers, lost } = several(3);
    for (let i = 0; i < 27; i++) disk.flush(answers.reply(String(i)));
    await Promise.all(peers.map((peer) => peer.take(9)));
    peers[1]?.close();
    assert.deepEqual(await answers.settled(), repeat(27, 'EIO'));
    assert.deepEqual(lost, ['closed the connection']);
    await Promise.all(peers.map((peer) => peer.gone()));

    // Whoever asks later is told later.
    const late: string[] = [];
    disk.onLost = (reason) => late.push(reason);
    assert.deepEqual(late, ['closed the connection']);
    disk.read(0n, 1, answers.read('read', 0n, 1));
    disk.write(0n, Buffer.alloc(HEADROOM + 1), HEADROOM, 1, PLAIN, answers.reply('write'));
    disk.flush(answers.reply('flush'));
    disk.trim(0n, 1n, PLAIN, answers.reply('trim'));
    disk.zero(0n, 1n << 40n, ZERO, answers.reply('zero'));
    const { read, write: wrote, flush, trim, zero } = answers.all;
    assert.deepEqual([read, wrote, flush, trim, zero], Array(5).fill('EIO'));
    const { transport, peer } = connectedPeer();
    disk.addConnection(transport, AGREED);
    await peer.gone();
    peer.close();
    await disk.close();
    assert.equal(lost.length, 1);
  });

  it('is lost when one connection is told of a shutdown, and the others are closed in good order', async () => {
    const { disk, peers, answers, lost } = several(3);
    for (let i = 0; i < 30; i++) disk.read(0n, 512, answers.read(String(i), 0n, 512));
    const requests = await Promise.all(peers.map((peer) => peer.take(10)));
    peers[0]?.send(simpleReply(requests[0]?.[0]?.cookie ?? 0n, 108));
    await until('it is told', () => lost.length > 0);
    disk.flush(answers.reply('too late'));
    assert.equal(answers.of('too late'), 'EIO');
    peers[0]?.answer(requests[0]?.slice(1) ?? []);
    peers[1]?.answer(requests[1] ?? []);
    peers[2]?.answer(requests[2] ?? []);
    const all = Object.values(await answers.settled()).toSorted();
    assert.deepEqual(all, ['EIO', 'ESHUTDOWN', ...Array<string>(29).fill('right')]);
    for (const peer of peers) {
      assert.equal((await peer.next()).type, 2);
      await peer.gone();
      assert.equal(peer.waiting, 0);
    }
    assert.deepEqual(lost, ['is shutting down']);
    await disk.close();
  });

  it('is lost once, when all connections go at a time', async () => {
    const { disk, peers, answers, lost } = several(4);
    for (let i = 0; i < 40; i++) disk.flush(answers.reply(String(i)));
    await Promise.all(peers.map((peer) => peer.take(10)));
    for (const peer of peers) peer.close();
    assert.deepEqual(await answers.settled(), repeat(40, 'EIO'));
    for (let i = 0; i < 3; i++) await turn();
    assert.deepEqual(lost, ['closed the connection']);
  });

  it('asks nothing of a server that cannot do it', async () => {
    const { disk, peers, answers } = several(1, { ...AGREED, flags: 1 });
    disk.flush(answers.reply('flush'));
    disk.extents(0n, 1n << 40n, answers.extents('extents'));
    assert.deepEqual(answers.all, { flush: 'done', extents: '1099511627776' });
    disk.read(0n, 512, answers.read('read', 0n, 512));
    const [peer] = peers;
    const request = await peer?.next();
    assert.equal(request?.type, 0, 'nothing came before it');
  });

  it('splits ranges that are longer than a request can say', async () => {
    for (const kind of ['trim', 'zero'] as const) {
      const { disk, peers, answers } = several(1);
      const [peer] = peers;
      assert.ok(peer !== undefined);
      const MOST = 0xffff0000n;
      const length = 2n * MOST + 512n;
      if (kind === 'trim') disk.trim(512n, length, FUA, answers.reply('0'));
      else disk.zero(512n, length, { fua: true, noHole: true }, answers.reply('0'));
      const seen: string[] = [];
      for (let i = 0; i < 3; i++) {
        const request = await peer.next();
        seen.push(`${request.flags} ${request.offset}+${request.length}`);
        assert.equal(answers.left, 1);
        peer.answer([request]);
      }
      const flags = kind === 'trim' ? 1 : 3;
      assert.deepEqual(seen, [
        `${flags} 512+${MOST}`,
        `${flags} ${512n + MOST}+${MOST}`,
        `${flags} ${512n + 2n * MOST}+512`,
      ]);
      assert.deepEqual(await answers.settled(), { 0: 'done' });
    }
  });

  it('asks for the extents of as much as a request can say', async () => {
    const { disk, peers, answers } = several(1, STRUCTURED);
    disk.extents(4096n, 1n << 39n, answers.extents('0'));
    const [peer] = peers;
    const request = await peer?.next();
    assert.equal(request?.length, 0xffff0000);
    peer?.send(status(request.cookie, true, 7, [[4096, 3]]));
    assert.deepEqual(await answers.settled(), { 0: '4096 hole zero' });
  });

  it('is closed when all is answered, on all connections', async () => {
    const { disk, peers, answers, lost } = several(3);
    for (let i = 0; i < 24; i++) disk.read(0n, 512, answers.read(String(i), 0n, 512));
    const closing = disk.close();
    assert.equal(disk.close(), closing);
    disk.flush(answers.reply('too late'));
    assert.equal(answers.of('too late'), 'EIO');
    const { transport, peer: late } = connectedPeer();
    disk.addConnection(transport, AGREED);
    await late.gone();
    late.close();
    for (const peer of peers) peer.answer(await peer.take(8));
    await closing;
    assert.deepEqual(answers.all, { ...repeat(24, 'right'), 'too late': 'EIO' });
    for (const peer of peers) {
      assert.equal((await peer.next()).type, 2);
      await peer.gone();
      assert.equal(peer.waiting, 0);
    }
    assert.deepEqual(lost, []);
  });
});

describe('connecting to a disk', TIMED, () => {
  let folder = '';
  let server: Server | undefined;
  let peers: NbdPeer[] = [];
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
  });
  after(() => rm(folder, { recursive: true }));
  afterEach(async () => {
    for (const peer of peers) peer.close();
    peers = [];
    if (server === undefined) return;
    server.close();
    await once(server, 'close');
    server = undefined;
  });

  const MULTI_CONN = '00000101';
  /** The greeting that asks for no answer. */
  const oldstyle = (size: string, flags: string): Buffer =>
    Buffer.concat([hex(`'NBDMAGIC' 0000420281861253 ${size} ${flags}`), Buffer.alloc(124)]);
  const MIB_SIZE = '0000000000100000';

  /** @param greet gives what each connection is greeted with, or undefined to hang up */
  async function serve(greet: (index: number) => Buffer | undefined): Promise<Target> {
    server = createServer((socket: Socket) => {
      const greeting = greet(peers.length);
      peers.push(new NbdPeer(socket));
      if (greeting === undefined) socket.destroy();
      else socket.write(greeting);
    });
    const path = join(folder, 'socket');
    server.listen(path);
    await once(server, 'listening');
    return { address: { kind: 'unix', path }, exportName: '' };
  }

  const options = { deadline: DEADLINE, connections: 4 };

  it('makes as many connections as are wanted, where the server allows several', async () => {
    const target = await serve(() => oldstyle(MIB_SIZE, MULTI_CONN));
    const disk = await connectDisk(target, options);
    assert.equal(disk.connections, 4);
    assert.equal(disk.info.size, BigInt(MIB));
    const closing = disk.close();
    assert.equal(peers.length, 4);
    for (const peer of peers) assert.equal((await peer.next()).type, 2);
    await closing;
  });

  it('makes one where it does not, or one is enough', async () => {
    for (const [flags, connections] of [
      ['00000001', 4],
      [MULTI_CONN, 1],
    ] as const) {
      const target = await serve(() => oldstyle(MIB_SIZE, flags));
      const disk = await connectDisk(target, { ...options, connections });
      assert.equal(disk.connections, 1);
      assert.equal(peers.length, 1);
      await disk.close();
      for (const peer of peers) peer.close();
      peers = [];
      server?.close();
    }
  });

  it('is content with those that it gets', async () => {
    const target = await serve((i) => (i < 2 ? oldstyle(MIB_SIZE, MULTI_CONN) : undefined));
    const disk = await connectDisk(target, options);
    assert.equal(disk.connections, 2);
    await disk.close();
  });

  // An empty greeting keeps a client waiting. With the deadline of a day the test would hang if any
  // of that were waited for to its end.
  const PATIENT = { deadline: 24 * 3600 * 1000, connections: 4 };

  it('does not wait for those that the server keeps waiting, which join in later', async () => {
    const target = await serve((i) => (i < 2 ? oldstyle(MIB_SIZE, MULTI_CONN) : Buffer.alloc(0)));
    const disk = await connectDisk(target, PATIENT);
    assert.equal(disk.connections, 2);
    await until('the others have connected', () => peers.length === 4);
    peers[2]?.send(oldstyle(MIB_SIZE, MULTI_CONN));
    await until('one has joined', () => disk.connections === 3);
    await disk.close();
    // The one that still waits is given up with the disk.
    await peers[3]?.gone();
  });

  it('ends early when it is not wanted any more', async () => {
    const target = await serve(() => Buffer.alloc(0));
    const stop = new AbortController();
    const connecting = connectDisk(target, { ...PATIENT, signal: stop.signal });
    await until('it has connected', () => peers.length === 1);
    stop.abort();
    await assert.rejects(connecting);
    await peers[0]?.gone();
  });

  it('does not mix exports that differ', async () => {
    const others = [
      oldstyle(MIB_SIZE, MULTI_CONN),
      oldstyle('0000000000200000', MULTI_CONN), // another size
      oldstyle(MIB_SIZE, '00000103'), // read-only
      oldstyle(MIB_SIZE, MULTI_CONN),
    ];
    const target = await serve((i) => others[i]);
    const disk = await connectDisk(target, options);
    assert.equal(disk.connections, 2);
    await peers[1]?.gone();
    await peers[2]?.gone();
    await disk.close();
  });

  it('fails with the first one', async () => {
    const target = await serve(() => undefined);
    await assert.rejects(connectDisk(target, options), /closed the connection/);
    assert.equal(peers.length, 1);
  });
});
