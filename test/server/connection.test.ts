import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { BufferPool } from '../../src/buffer-pool.js';
import type { Disk } from '../../src/disk/disk.js';
import { errno } from '../../src/errno.js';
import { Command, CommandFlag } from '../../src/nbd/constants.js';
import { Connection } from '../../src/server/connection.js';
import type { Agreed } from '../../src/server/export.js';
import { MemoryDisk, seeded } from '../support/memory-disk.js';
import { HeldDisk, eventually } from '../support/server-held-disk.js';
import { request } from '../support/server-messages.js';
import { connectedPair } from '../support/server-peer.js';
import type { Peer } from '../support/server-peer.js';

const { READ, WRITE, DISC, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS } = Command;
const SIMPLE: Agreed = { structuredReplies: false, allocation: false };
const STRUCTURED: Agreed = { structuredReplies: true, allocation: true };
const MAX_HELD = 32 << 20;

const cleanup: (() => void)[] = [];
afterEach(() => {
  for (const undo of cleanup.splice(0)) undo();
});

function connect(disk: Disk, agreed = SIMPLE): { peer: Peer; connection: Connection } {
  const { transport, peer } = connectedPair();
  const connection = new Connection(transport, disk, agreed, new BufferPool(1 << 20));
  cleanup.push(() => {
    peer.close();
    connection.abort();
  });
  return { peer, connection };
}

function pattern(length: number, seed: number): Buffer {
  const random = seeded(seed);
  return Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)));
}

/** Both ways of replying; what differs is told by `Peer.reply`. */
for (const agreed of [SIMPLE, STRUCTURED]) {
  describe(`connection: ${agreed.structuredReplies ? 'structured' : 'simple'} replies`, () => {
    const dataOf = (reply: { data: Buffer }): Buffer =>
      agreed.structuredReplies ? reply.data.subarray(8) : reply.data;

    it('reads, writes, zeroes, trims and flushes', async () => {
      const disk = new MemoryDisk({ size: 1 << 20 });
      const { peer } = connect(disk, agreed);
      const data = pattern(1000, 1);
      peer.send(
        request({ type: WRITE, cookie: 1n, offset: 500n, payload: data }),
        request({ type: READ, cookie: 2n, offset: 499n, length: 1002 }),
        request({ type: WRITE_ZEROES, cookie: 3n, offset: 500n, length: 10 }),
        request({ type: TRIM, cookie: 4n, offset: 0n, length: 500 }),
        request({ type: FLUSH, cookie: 2n ** 64n - 1n }),
      );
      assert.deepEqual([(await peer.reply()).cookie, (await peer.receive(0)).length], [1n, 0]);
      const read = await peer.reply(1002);
      assert.deepEqual([read.cookie, read.error], [2n, 0]);
      assert.ok(dataOf(read).subarray(1, 1001).equals(data));
      if (agreed.structuredReplies) {
        assert.deepEqual([read.chunk, read.data.readBigUInt64BE()], [1, 499n]);
      }
      for (const cookie of [3n, 4n, 2n ** 64n - 1n]) {
        assert.deepEqual(await peer.reply(), {
          chunk: undefined,
          error: 0,
          cookie,
          data: Buffer.alloc(0),
        });
      }
      assert.deepEqual(disk.log, [
        'write 500+1000',
        'read 499+1002',
        'zero 500+10',
        'trim 0+500',
        'flush 0+0',
      ]);
    });

    it('takes long payloads, and any split of requests over the stream', async () => {
      const random = seeded(7);
      const disk = new MemoryDisk({ size: 4 << 20, shuffle: random });
      const { peer } = connect(disk, agreed);
      const lengths = [1, 28, 4096, 32768, 32769, 65536, 1_000_000, 4, 200_000, 3];
      let offset = 0;
      const all: Buffer[] = [];
      const expected = Buffer.alloc(4 << 20);
      for (const [i, length] of lengths.entries()) {
        const payload = pattern(length, i);
        payload.copy(expected, offset);
        all.push(request({ type: WRITE, cookie: BigInt(i), offset: BigInt(offset), payload }));
        offset += length;
      }
      const stream = Buffer.concat(all);
      for (let at = 0; at < stream.length;) {
        const count = 1 + Math.floor(random() * random() * random() * 400_000);
        peer.send(stream.subarray(at, at + count));
        at += count;
        if (random() < 0.3) await new Promise(setImmediate);
      }
      const cookies = new Set<bigint>();
      while (cookies.size < lengths.length) {
        const { error, cookie } = await peer.reply();
        assert.deepEqual([error, cookies.has(cookie)], [0, false]);
        cookies.add(cookie);
      }
      assert.ok(disk.content.equals(expected));
      peer.send(request({ type: READ, length: offset }));
      assert.ok(dataOf(await peer.reply(offset)).equals(expected.subarray(0, offset)));
    });

    it('takes many small writes whose disk holds them, without mixing them up', async () => {
      const random = seeded(3);
      const disk = new MemoryDisk({ size: 4 << 20, shuffle: random });
      const { peer } = connect(disk, agreed);
      const count = 3000;
      for (let i = 0; i < count; i++) {
        const payload = Buffer.alloc(1000, i & 0xff);
        peer.send(request({ type: WRITE, cookie: BigInt(i), offset: BigInt(i) * 1000n, payload }));
      }
      for (let i = 0; i < count; i++) assert.equal((await peer.reply()).error, 0);
      for (let i = 0; i < count; i++) {
        const part = disk.content.subarray(i * 1000, (i + 1) * 1000);
        assert.ok(
          part.every((byte) => byte === (i & 0xff)),
          `write ${i}`,
        );
      }
    });

    it('answers out of order, as the disk does', async () => {
      const disk = new HeldDisk(1 << 20);
      const { peer } = connect(disk, agreed);
      for (let i = 1; i <= 3; i++) {
        peer.send(request({ type: READ, cookie: BigInt(i), offset: BigInt(i), length: 10 }));
      }
      await eventually(() => disk.waiting === 3, 'three requests');
      for (let i = 3; i >= 1; i--) {
        disk.answer('last');
        const reply = await peer.reply(10);
        assert.equal(reply.cookie, BigInt(i));
        assert.ok(dataOf(reply).equals(Buffer.alloc(10, i)));
      }
    });

    it('passes the errors of the disk on', async () => {
      const disk = new MemoryDisk({ size: 4096 });
      const { peer } = connect(disk, agreed);
      for (const [type, kind] of [
        [READ, 'read'],
        [WRITE, 'write'],
        [FLUSH, 'flush'],
        [TRIM, 'trim'],
        [WRITE_ZEROES, 'zero'],
      ] as const) {
        disk.failNext.set(kind, errno.ENOSPC);
        const length = type === FLUSH ? 0 : 10;
        const payload = type === WRITE ? Buffer.alloc(10) : Buffer.alloc(0);
        peer.send(request({ type, length, payload, cookie: 5n }));
        const reply = await peer.reply();
        assert.deepEqual([reply.error, reply.cookie], [errno.ENOSPC, 5n]);
        if (agreed.structuredReplies) {
          assert.equal(reply.data.subarray(6).toString(), 'no space left on device');
        }
      }
    });

    it('refuses bad requests, and goes on', async () => {
      const disk = new MemoryDisk({ size: 4096 });
      const { peer } = connect(disk, agreed);
      const bad: readonly (readonly [number, Buffer])[] = [
        [errno.EINVAL, request({ type: READ, offset: 4000n, length: 97 })],
        [errno.EINVAL, request({ type: READ, length: 0 })],
        [errno.EINVAL, request({ type: READ, length: (32 << 20) + 1 })],
        [errno.ENOSPC, request({ type: WRITE, offset: 4090n, payload: Buffer.alloc(7) })],
        // Its payload has to be skipped, and looks like requests.
        [
          errno.ENOSPC,
          request({ type: WRITE, payload: Buffer.alloc(1 << 20, request({ type: DISC })) }),
        ],
        [errno.EINVAL, request({ type: WRITE })],
        [errno.EINVAL, request({ type: 99, length: 1 })],
        [errno.EINVAL, request({ type: READ, flags: 0x8000, length: 1 })],
        [errno.EINVAL, request({ type: WRITE, flags: 2, payload: Buffer.alloc(100) })],
      ];
      for (const [i, [code, message]] of bad.entries()) {
        message.writeBigUInt64BE(BigInt(i), 8);
        peer.send(message);
        const reply = await peer.reply();
        assert.deepEqual([reply.error, reply.cookie], [code, BigInt(i)]);
      }
      assert.deepEqual(disk.log, []);
      peer.send(request({ type: READ, cookie: 77n, length: 1 }));
      assert.equal((await peer.reply(1)).cookie, 77n);
    });

    it('makes FUA of a flush where the disk knows none', async () => {
      const disk = new MemoryDisk({ size: 4096, canFua: false });
      const { peer } = connect(disk, agreed);
      const flags = CommandFlag.FUA;
      peer.send(request({ type: WRITE, flags, payload: Buffer.alloc(5, 1) }));
      assert.equal((await peer.reply()).error, 0);
      peer.send(request({ type: WRITE_ZEROES, flags, length: 5 }));
      assert.equal((await peer.reply()).error, 0);
      disk.failNext.set('flush', errno.EIO);
      peer.send(request({ type: TRIM, flags, length: 5 }));
      assert.equal((await peer.reply()).error, errno.EIO);
      disk.failNext.set('write', errno.EIO);
      peer.send(request({ type: WRITE, flags, payload: Buffer.alloc(5, 1) }));
      assert.equal((await peer.reply()).error, errno.EIO);
      peer.send(request({ type: READ, flags, length: 5 }));
      assert.equal((await peer.reply(5)).error, 0);
      assert.equal(disk.log.filter((line) => line.startsWith('flush')).length, 3);
    });

    it('passes FUA and NO_HOLE on to a disk that knows them', async () => {
      const disk = new MemoryDisk({ size: 4096 });
      const { peer } = connect(disk, agreed);
      peer.send(
        request({ type: WRITE, flags: CommandFlag.FUA, payload: Buffer.alloc(5, 1) }),
        request({ type: WRITE_ZEROES, flags: CommandFlag.NO_HOLE, length: 6 }),
      );
      await peer.reply();
      await peer.reply();
      assert.deepEqual(disk.log, ['write-fua 0+5', 'zero-nohole 0+6']);
    });
  });
}

describe('connection: block status', () => {
  const descriptors = (data: Buffer): [number, number][] => {
    assert.equal(data.readUInt32BE(), 1, 'context id');
    const found: [number, number][] = [];
    for (let at = 4; at < data.length; at += 8) {
      found.push([data.readUInt32BE(at), data.readUInt32BE(at + 4)]);
    }
    return found;
  };

  it('tells extents, clipped to the question, or one', async () => {
    const disk = new MemoryDisk({ size: 1 << 20 });
    disk.content.fill(1, 4096, 8192);
    const { peer } = connect(disk, STRUCTURED);
    peer.send(request({ type: BLOCK_STATUS, offset: 0n, length: 6000 }));
    const all = await peer.reply();
    assert.equal(all.chunk, 5);
    assert.deepEqual(descriptors(all.data), [
      [4096, 3],
      [1904, 0],
    ]);
    peer.send(
      request({ type: BLOCK_STATUS, flags: CommandFlag.REQ_ONE, offset: 5000n, length: 6000 }),
    );
    assert.deepEqual(descriptors((await peer.reply()).data), [[3192, 0]]);
  });

  it('clips extents that 32 bits cannot tell', async () => {
    const disk = new HeldDisk(1 << 20);
    Object.assign(disk, { info: { ...disk.info, size: 1n << 40n } });
    const { peer } = connect(disk, STRUCTURED);
    peer.send(request({ type: BLOCK_STATUS, length: 2 ** 32 - 1 }));
    await eventually(() => disk.waiting === 1, 'a request');
    disk.answer();
    assert.deepEqual(descriptors((await peer.reply()).data), [[2 ** 32 - 65536, 0]]);
  });
});

describe('connection: its end', () => {
  it('is DISC, once what is in flight is answered', async () => {
    const disk = new HeldDisk(1 << 20);
    const { peer, connection } = connect(disk);
    peer.send(
      request({ type: READ, cookie: 1n, offset: 3n, length: 100_000 }),
      request({ type: DISC }),
      request({ type: READ, cookie: 2n, length: 1 }),
    );
    await eventually(() => disk.asked === 1, 'a request');
    disk.answerAll();
    const rest = await peer.rest();
    assert.equal(rest.length, 100_016);
    assert.equal(disk.asked, 1);
    await connection.closed;
    assert.equal(disk.handedOver, 0);
  });

  it('is the end of the stream, also within a request', async () => {
    const disk = new HeldDisk(1 << 20);
    const { peer, connection } = connect(disk);
    const write = request({ type: WRITE, cookie: 2n, payload: Buffer.alloc(100_000) });
    peer.send(request({ type: FLUSH, cookie: 1n }), write.subarray(0, 50_000));
    await eventually(() => disk.asked === 1, 'a request');
    peer.end();
    await new Promise(setImmediate);
    disk.answerAll();
    assert.equal((await peer.rest()).length, 16);
    await connection.closed;
    assert.equal(disk.asked, 1);
  });

  it('is a request with the wrong magic', async () => {
    const disk = new MemoryDisk({ size: 4096 });
    const { peer, connection } = connect(disk);
    peer.send(request({ type: READ, length: 1, magic: 0x25609514 }));
    assert.equal((await peer.rest()).length, 0);
    await connection.closed;
    assert.deepEqual(disk.log, []);
  });

  it('is a write so long that it is not worth skipping', async () => {
    const { peer, connection } = connect(new MemoryDisk({ size: 4096 }));
    peer.send(request({ type: WRITE, length: 2 ** 32 - 1 }));
    await peer.rest();
    await connection.closed;
  });

  it('is a shutdown: what is in flight is answered, nothing is started', async () => {
    const disk = new HeldDisk(1 << 20);
    const { peer, connection } = connect(disk);
    peer.send(request({ type: FLUSH, cookie: 1n }));
    await eventually(() => disk.asked === 1, 'a request');
    connection.shutdown();
    peer.send(request({ type: FLUSH, cookie: 2n }));
    await new Promise(setImmediate);
    disk.answerAll();
    assert.equal((await peer.rest()).length, 16);
    await connection.closed;
    assert.equal(disk.asked, 1);
  });

  it('may come while the disk is busy, which then answers to nobody', async () => {
    const disk = new HeldDisk(1 << 20);
    const { peer, connection } = connect(disk);
    peer.send(
      request({ type: READ, length: 4096 }),
      request({ type: WRITE, payload: Buffer.alloc(4096) }),
      request({ type: WRITE, payload: Buffer.alloc(400_000) }),
    );
    await eventually(() => disk.asked === 3, 'three requests');
    let closed = false;
    void connection.closed.then(() => (closed = true));
    connection.abort();
    await peer.rest();
    assert.equal(closed, false);
    disk.answerAll();
    await connection.closed;
    assert.equal(disk.handedOver, 0);
    assert.equal(connection.heldBytes, 0);
  });

  it('is not brought about by a disk that throws', async () => {
    const disk = new MemoryDisk({ size: 4096 });
    disk.read = () => {
      throw new Error('a bug');
    };
    const { peer } = connect(disk);
    peer.send(request({ type: READ, length: 1 }));
    assert.equal((await peer.reply(1)).error, errno.EIO);
    peer.send(request({ type: FLUSH }));
    assert.equal((await peer.reply()).error, 0);
  });
});

describe('connection: limits', () => {
  it('starts a limited number of requests', async () => {
    const disk = new HeldDisk(1 << 20);
    const { peer } = connect(disk);
    for (let i = 0; i < 1000; i++) peer.send(request({ type: READ, length: 1 }));
    await eventually(() => disk.waiting === 128, 'a full house');
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    assert.equal(disk.waiting, 128);
    let answered = 0;
    while (answered < 1000) {
      await eventually(() => disk.waiting > 0, 'the next request');
      disk.answer();
      await peer.reply(1);
      answered++;
    }
    assert.equal(disk.asked, 1000);
  });

  it('holds a limited amount for a client that asks and does not read', async () => {
    const disk = new HeldDisk(64 << 20);
    const { peer, connection } = connect(disk);
    peer.pause();
    const length = 1 << 20;
    const count = 400;
    for (let i = 0; i < count; i++) {
      peer.send(request({ type: READ, cookie: BigInt(i), offset: BigInt(i), length }));
    }
    for (let turn = 0; turn < 500; turn++) {
      await new Promise(setImmediate);
      disk.answerAll();
      assert.ok(connection.heldBytes <= MAX_HELD + length, `${connection.heldBytes} held`);
      assert.ok(disk.handedOver <= MAX_HELD + length, `${disk.handedOver} handed over`);
    }
    assert.ok(disk.asked < count / 2, `${disk.asked} of ${count} asked`);
    peer.resume();
    const timer = setInterval(() => disk.answerAll(), 1);
    for (let i = 0; i < count; i++) {
      const reply = await peer.reply(length);
      assert.deepEqual([reply.error, reply.cookie], [0, BigInt(i)]);
    }
    clearInterval(timer);
    assert.equal(disk.handedOver, 0);
  });

  it('reads ahead little of what a disk has at once, and sends all of it', async () => {
    const disk = new MemoryDisk({ size: 64 << 20 });
    const { peer, connection } = connect(disk);
    const length = 256 << 10;
    const blocks = Array.from({ length: 200 }, (_, i) => i);
    const content = blocks.map((i) => pattern(64, i));
    for (const i of blocks) {
      peer.send(
        request({
          type: WRITE,
          offset: BigInt(i * length),
          payload: content[i] ?? Buffer.alloc(0),
        }),
      );
    }
    await peer.receive(16 * blocks.length);
    disk.log.length = 0;
    peer.pause();
    for (const i of blocks) {
      peer.send(request({ type: READ, cookie: BigInt(i), offset: BigInt(i * length), length }));
    }
    for (let turn = 0; turn < 100; turn++) {
      await new Promise(setImmediate);
      assert.ok(connection.heldBytes <= 1 << 20, `${connection.heldBytes} held`);
    }
    assert.ok(disk.log.length < 50, `${disk.log.length} asked`);
    peer.resume();
    for (const i of blocks) {
      const { cookie, data } = await peer.reply(length);
      assert.equal(cookie, BigInt(i));
      assert.ok(data.subarray(0, 64).equals(content[i] ?? Buffer.alloc(0)), `block ${i}`);
    }
    assert.equal(connection.heldBytes, 0);
  });

  it('holds a limited amount of small replies that nobody reads', async () => {
    const disk = new MemoryDisk({ size: 4096 });
    const { peer, connection } = connect(disk);
    peer.pause();
    const flushes = Buffer.concat(Array.from({ length: 1000 }, () => request({ type: FLUSH })));
    for (let i = 0; i < 20; i++) peer.send(flushes);
    for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate);
    peer.resume();
    for (let i = 0; i < 20_000; i++) await peer.receive(16);
    assert.equal(connection.heldBytes, 0);
  });

  it('holds a limited amount of writes for a disk that is slow', async () => {
    const disk = new HeldDisk(64 << 20);
    const { peer, connection } = connect(disk);
    const length = 2 << 20;
    for (let i = 0; i < 60; i++) {
      peer.send(request({ type: WRITE, cookie: BigInt(i), payload: Buffer.alloc(length) }));
    }
    await eventually(() => disk.waiting >= 16, 'a full house');
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    assert.ok(connection.heldBytes <= MAX_HELD + length, `${connection.heldBytes} held`);
    const timer = setInterval(() => disk.answerAll(), 1);
    for (let i = 0; i < 60; i++) assert.equal((await peer.reply()).cookie, BigInt(i));
    clearInterval(timer);
    assert.equal(connection.heldBytes, 0);
  });

  it('answers ENOMEM where there is no memory for a payload, and goes on', async () => {
    const disk = new MemoryDisk({ size: 1 << 20 });
    const { transport, peer } = connectedPair();
    const pool = new BufferPool(0);
    const take = pool.take.bind(pool);
    pool.take = (length) => {
      if (length > 500_000) throw new RangeError('Array buffer allocation failed');
      return take(length);
    };
    const connection = new Connection(transport, disk, SIMPLE, pool);
    cleanup.push(() => {
      peer.close();
      connection.abort();
    });
    peer.send(request({ type: WRITE, cookie: 1n, payload: Buffer.alloc(600_000, 1) }));
    assert.equal((await peer.reply()).error, errno.ENOMEM);
    peer.send(request({ type: READ, cookie: 2n, length: 600_000 }));
    assert.equal((await peer.reply()).error, errno.ENOMEM);
    peer.send(request({ type: READ, cookie: 3n, length: 10 }));
    assert.equal((await peer.reply(10)).error, 0);
  });
});
