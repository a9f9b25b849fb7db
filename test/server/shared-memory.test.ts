/** The memory that clients share: its bound, whose turn it is, and who is cut off. */

import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { BufferPool } from '../../src/buffer-pool.js';
import type { Disk } from '../../src/disk/disk.js';
import { errno } from '../../src/errno.js';
import { Command } from '../../src/nbd/constants.js';
import { OWN_BYTES } from '../../src/server/client-memory.js';
import { Connection } from '../../src/server/connection.js';
import { SharedMemory } from '../../src/server/shared-memory.js';
import type { Holder, Lease } from '../../src/server/shared-memory.js';
import { MemoryDisk } from '../support/memory-disk.js';
import { HeldDisk, eventually } from '../support/server-held-disk.js';
import { request } from '../support/server-messages.js';
import { connectedPair } from '../support/server-peer.js';
import type { Peer } from '../support/server-peer.js';

const { READ, WRITE } = Command;
const MIB = 1024 * 1024;
/** Milliseconds: longer than any test. */
const FOR_EVER = 1_000_000;

class Client implements Holder {
  movedBytes = 0;
  freed = 0;
  evicted = 0;
  readonly leases: Lease[] = [];
  readonly #memory: SharedMemory;

  constructor(memory: SharedMemory) {
    this.#memory = memory;
  }

  memoryFree(): void {
    this.freed++;
  }

  evict(): void {
    this.evicted++;
    this.#memory.leave(this);
    for (const lease of this.leases.splice(0)) this.#memory.giveBack(lease);
  }

  /** @returns whether there was room */
  take(bytes: number): boolean {
    const fits = this.#memory.ask(this, bytes);
    if (fits) this.leases.push(this.#memory.take(this, bytes));
    return fits;
  }

  giveBack(): void {
    const lease = this.leases.pop();
    assert.ok(lease !== undefined);
    this.#memory.giveBack(lease);
  }
}

describe('shared memory', () => {
  it('is bounded, and goes to who waits longest', () => {
    const memory = new SharedMemory({ bytes: 100, patience: FOR_EVER });
    const [a, b, c] = [new Client(memory), new Client(memory), new Client(memory)];
    assert.ok(a.take(60));
    assert.ok(!b.take(50));
    // It would fit, but nobody overtakes.
    assert.ok(!c.take(10));
    assert.equal(memory.usedBytes, 60);
    a.giveBack();
    assert.deepEqual([b.freed, c.freed], [1, 0]);
    assert.ok(!c.take(10));
    assert.ok(b.take(50));
    assert.equal(c.freed, 1);
    assert.ok(c.take(10));
    assert.equal(memory.usedBytes, 60);
  });

  it('gives the turn on when somebody leaves', () => {
    const memory = new SharedMemory({ bytes: 100, patience: FOR_EVER });
    const [a, b, c] = [new Client(memory), new Client(memory), new Client(memory)];
    assert.ok(a.take(60));
    assert.ok(!b.take(50));
    assert.ok(!c.take(40));
    memory.leave(b);
    assert.equal(c.freed, 1);
    assert.ok(c.take(40));
  });

  it('lets the longest request through when there is nobody else', () => {
    const memory = new SharedMemory({ bytes: 100, patience: FOR_EVER });
    const a = new Client(memory);
    assert.ok(a.take(1000));
    assert.ok(!a.take(1));
  });

  it('is taken from clients that keep it while others wait, and not from a slow disk', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    let now = 0;
    t.mock.method(performance, 'now', () => now);
    const at = (time: number): void => {
      now = time;
      t.mock.timers.tick(500);
    };
    const memory = new SharedMemory({ bytes: 100, patience: 3_000 });
    const all = Array.from({ length: 5 }, () => new Client(memory));
    const [disk, idle, slow, later, waiting] = all;
    assert.ok(disk && idle && slow && later && waiting);
    for (const one of [disk, idle, slow, later]) assert.ok(one.take(25));
    const put = ({ leases: [lease] }: Client): void => memory.withClient(lease ?? assert.fail());
    put(idle);
    put(slow);
    at(2_000);
    put(later);
    at(100_000);
    const evicted = (): number[] => all.map((one) => one.evicted);
    assert.deepEqual(evicted(), [0, 0, 0, 0, 0], 'nobody waits: they may');

    now = 2_500;
    assert.ok(!waiting.take(25));
    at(3_000);
    assert.deepEqual(evicted(), [0, 0, 0, 0, 0]);
    slow.movedBytes += 64 * 1024;
    at(3_500);
    assert.deepEqual(evicted(), [0, 1, 0, 0, 0], 'who does nothing');
    assert.equal(waiting.freed, 1);
    assert.ok(waiting.take(25));
    at(1_000_000);
    assert.deepEqual(evicted(), [0, 1, 0, 0, 0], 'nobody waits any more');
  });

  it('is not taken from anybody for the time in which the server itself was stopped', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    let now = 0;
    t.mock.method(performance, 'now', () => now);
    const memory = new SharedMemory({ bytes: 100, patience: 3_000 });
    const [client, waiting] = [new Client(memory), new Client(memory)];
    assert.ok(client.take(100));
    memory.withClient(client.leases[0] ?? assert.fail());
    assert.ok(!waiting.take(100));
    now = 100_000;
    t.mock.timers.tick(500);
    assert.equal(client.evicted, 0);
    const evictedAt = (): number | undefined => (client.evicted > 0 ? now : undefined);
    while (evictedAt() === undefined && now < 110_000) {
      now += 500;
      t.mock.timers.tick(500);
    }
    const at = evictedAt();
    assert.ok(at !== undefined && at > 103_000);
  });

  it('is taken in the end from who gets on too slowly', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    let now = 0;
    t.mock.method(performance, 'now', () => now);
    const memory = new SharedMemory({ bytes: 100 });
    const [slow, waiting] = [new Client(memory), new Client(memory)];
    assert.ok(slow.take(100));
    memory.withClient(slow.leases[0] ?? assert.fail());
    assert.ok(!waiting.take(100));
    while (slow.evicted === 0) {
      now += 500;
      slow.movedBytes += 100_000;
      t.mock.timers.tick(500);
      assert.ok(now < 40_000);
    }
    assert.ok(now > 30_000);
    assert.equal(waiting.freed, 1);
  });
});

const cleanup: (() => void)[] = [];
afterEach(() => {
  for (const undo of cleanup.splice(0)) undo();
});

function connect(disk: Disk, memory: SharedMemory): { peer: Peer; connection: Connection } {
  const { transport, peer } = connectedPair();
  const agreed = { structuredReplies: false, allocation: false };
  const connection = new Connection(transport, disk, agreed, new BufferPool(MIB), memory);
  cleanup.push(() => {
    peer.close();
    connection.abort();
  });
  return { peer, connection };
}

/** The first half of a write that is never finished. */
const halfWrite = (length: number): Buffer =>
  request({ type: WRITE, length, payload: Buffer.alloc(length / 2) });

describe('clients of one server', () => {
  const LONG = 8 * MIB;

  it('hold no more than there is together, and all are served', async () => {
    const memory = new SharedMemory({ bytes: 2 * LONG, patience: FOR_EVER });
    const disk = new HeldDisk(64 * MIB);
    const clients = Array.from({ length: 8 }, () => connect(disk, memory));
    for (const { peer } of clients) peer.send(request({ type: READ, length: LONG }));
    await eventually(() => disk.waiting === 2, 'two of them');
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    assert.deepEqual([disk.asked, memory.usedBytes], [2, 2 * LONG]);
    const timer = setInterval(() => disk.answerAll(), 1);
    await Promise.all(clients.map(({ peer }) => peer.reply(LONG)));
    clearInterval(timer);
    await eventually(() => memory.usedBytes === 0, 'all is given back');
  });

  it('have a share of their own for ordinary requests, whatever others keep', async () => {
    const memory = new SharedMemory({ bytes: LONG, patience: FOR_EVER });
    const disk = new MemoryDisk({ size: 64 * MIB });
    const hostile = connect(disk, memory);
    hostile.peer.send(halfWrite(LONG));
    await eventually(() => memory.usedBytes === LONG, 'nothing is left');
    const honest = connect(disk, memory);
    for (let i = 0; i < 20; i++) {
      honest.peer.send(request({ type: READ, length: OWN_BYTES }));
      assert.equal((await honest.peer.reply(OWN_BYTES)).error, 0);
    }
  });

  it('are cut off when they keep what others need: a payload that does not come', async () => {
    const memory = new SharedMemory({ bytes: LONG, patience: 20 });
    const disk = new MemoryDisk({ size: 64 * MIB });
    const hostile = connect(disk, memory);
    hostile.peer.send(halfWrite(LONG));
    await eventually(() => memory.usedBytes === LONG, 'nothing is left');
    const honest = connect(disk, memory);
    honest.peer.send(request({ type: READ, length: LONG }));
    assert.equal((await honest.peer.reply(LONG)).error, 0);
    await hostile.connection.closed;
    assert.equal(hostile.connection.heldBytes, 0);
  });

  it('are cut off when they keep what others need: a reply that is not read', async () => {
    const memory = new SharedMemory({ bytes: LONG, patience: 20 });
    const disk = new MemoryDisk({ size: 64 * MIB });
    const hostile = connect(disk, memory);
    hostile.peer.pause();
    hostile.peer.send(request({ type: READ, length: LONG }));
    await eventually(() => memory.usedBytes === LONG, 'nothing is left');
    const honest = connect(disk, memory);
    honest.peer.send(request({ type: WRITE, payload: Buffer.alloc(LONG, 1) }));
    assert.equal((await honest.peer.reply()).error, 0);
    await hostile.connection.closed;
    assert.equal(disk.content[LONG - 1], 1);
  });

  it('are not in the way when they wait and cannot go on for another reason', async () => {
    const memory = new SharedMemory({ bytes: LONG, patience: FOR_EVER });
    const disk = new HeldDisk(64 * MIB);
    const first = connect(disk, memory);
    first.peer.send(request({ type: READ, length: LONG }));
    await eventually(() => disk.waiting === 1, 'the first');
    // It has its own share full of what it does not read, and then waits for more.
    const hostile = connect(disk, memory);
    hostile.peer.pause();
    hostile.peer.send(request({ type: READ, length: MIB }), request({ type: READ, length: LONG }));
    await eventually(() => disk.waiting === 2, 'the second');
    const honest = connect(disk, memory);
    honest.peer.send(request({ type: READ, length: LONG }));
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    disk.answer('last');
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    disk.answer('first');
    await first.peer.reply(LONG);
    const timer = setInterval(() => disk.answerAll(), 1);
    await honest.peer.reply(LONG);
    clearInterval(timer);
  });

  it('give their turn on when what they waited for is refused', async () => {
    const memory = new SharedMemory({ bytes: LONG, patience: FOR_EVER });
    const disk = new HeldDisk(64 * MIB);
    const [first, second, third] = Array.from({ length: 3 }, () => connect(disk, memory));
    assert.ok(first && second && third);
    first.peer.send(request({ type: READ, length: LONG }));
    await eventually(() => disk.waiting === 1, 'the first');
    // Past the end, and nothing more comes of it.
    second.peer.send(request({ type: READ, offset: BigInt(64 * MIB), length: LONG }));
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    third.peer.send(request({ type: READ, length: LONG }));
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    disk.answer();
    await first.peer.reply(LONG);
    assert.equal((await second.peer.reply()).error, errno.EINVAL);
    await eventually(() => disk.waiting === 1, 'the third');
    disk.answer();
    await third.peer.reply(LONG);
  });

  it('give their turn on when they are gone', async () => {
    const memory = new SharedMemory({ bytes: LONG, patience: FOR_EVER });
    const disk = new HeldDisk(64 * MIB);
    const [first, second, third] = Array.from({ length: 3 }, () => connect(disk, memory));
    assert.ok(first && second && third);
    first.peer.send(request({ type: READ, length: LONG }));
    await eventually(() => disk.waiting === 1, 'the first');
    second.peer.send(request({ type: READ, length: LONG }));
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    third.peer.send(request({ type: READ, length: LONG }));
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    second.connection.abort();
    disk.answer();
    await first.peer.reply(LONG);
    await eventually(() => disk.waiting === 1, 'the third');
    disk.answer();
    await third.peer.reply(LONG);
  });
});
