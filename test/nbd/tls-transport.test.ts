import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createServer } from 'node:tls';
import type { ConnectionOptions, Server, TLSSocket } from 'node:tls';
import { createServer as createPlainServer } from 'node:net';
import type { Socket } from 'node:net';
import type { Owner } from '../../src/buffer-pool.js';
import { errno } from '../../src/errno.js';
import { native } from '../../src/native.js';
import { DeadlineError } from '../../src/transport/dialogue.js';
import { FdTransport } from '../../src/transport/fd-transport.js';
import { startTls } from '../../src/transport/tls-transport.js';
import type { TlsTransport } from '../../src/transport/tls-transport.js';
import type { Transport, TransportEvents } from '../../src/transport/transport.js';
import { until } from '../support/mounts.js';

const KEY = randomBytes(32);
const DEADLINE = 20_000;
/** A key that both have needs no certificates. */
const CLIENT: ConnectionOptions = {
  ciphers: 'PSK-AES128-GCM-SHA256',
  maxVersion: 'TLSv1.2',
  pskCallback: () => ({ psk: KEY, identity: 'client' }),
  checkServerIdentity: () => undefined,
};
const MIB = 1024 * 1024;

class Receiver {
  readonly chunks: Buffer[] = [];
  /** What `receive` gave when it gave no bytes, but "nothing now". */
  ended: number | undefined;
  drained = 0;
  failed: number | undefined;

  constructor(transport: TlsTransport, most = 100_000) {
    const place = Buffer.alloc(most);
    transport.open({
      readable: () => {
        for (;;) {
          const count = transport.receive(place, 0, most);
          if (count === -errno.EAGAIN) return;
          if (count <= 0) {
            this.ended = count;
            return;
          }
          this.chunks.push(Buffer.from(place.subarray(0, count)));
        }
      },
      sendFailed: (code) => (this.failed = code),
      drained: () => this.drained++,
    });
    transport.resume();
  }

  get bytes(): number {
    return this.chunks.reduce((sum, { length }) => sum + length, 0);
  }
}

/** Another kind of transport, of which no socket of Node's can be made, as one over vsock. */
class OtherTransport implements Transport {
  readonly #real: FdTransport;
  constructor(real: FdTransport) {
    this.#real = real;
  }
  get queuedBytes(): number {
    return this.#real.queuedBytes;
  }
  open = (events: TransportEvents): void => this.#real.open(events);
  receive = (...place: [Buffer, number, number]): number => this.#real.receive(...place);
  pause = (): void => this.#real.pause();
  resume = (): void => this.#real.resume();
  send = (bytes: Buffer, start: number, length: number, owner?: Owner): void =>
    this.#real.send(bytes, start, length, owner);
  flush = (): void => this.#real.flush();
  close = (): void => this.#real.close();
  reset = (): void => this.#real.reset();
}

describe('a transport with TLS over a socket', { timeout: 120_000 }, () => suite((real) => real));
describe('a transport with TLS over another transport', { timeout: 120_000 }, () =>
  suite((real) => new OtherTransport(real)),
);

/** @param over what TLS is put over */
function suite(over: (real: FdTransport) => Transport): void {
  let folder = '';
  let path = '';
  let server: Server;
  let peers: TLSSocket[];
  /** What is underneath them. */
  let sockets: Socket[];

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
  });
  after(() => rm(folder, { recursive: true }));
  beforeEach(async () => {
    path = join(folder, 'socket');
    peers = [];
    sockets = [];
    server = createServer({ ciphers: 'PSK-AES128-GCM-SHA256', pskCallback: () => KEY }, (socket) =>
      peers.push(socket.on('error', () => undefined)),
    );
    server
      .on('tlsClientError', () => undefined)
      .on('connection', (socket: Socket) => sockets.push(socket));
    await new Promise<void>((resolve) => server.listen(path, resolve));
  });
  afterEach(async () => {
    for (const peer of peers) peer.destroy();
    await new Promise((resolve) => server.close(resolve));
  });

  const plain = (): Transport => {
    const fd = native.unixConnect(path);
    assert.ok(fd >= 0);
    return over(new FdTransport(fd));
  };
  const open = async (): Promise<{ transport: TlsTransport; peer: TLSSocket }> => {
    const transport = await startTls(plain(), CLIENT, DEADLINE);
    await until('the server has it', () => peers.length > 0);
    const peer = peers.at(-1);
    assert.ok(peer !== undefined);
    return { transport, peer };
  };

  it('carries what is sent, large and small, in order', async () => {
    const { transport, peer } = await open();
    const receiver = new Receiver(transport);
    const got: Buffer[] = [];
    peer.on('data', (data: Buffer) => got.push(data));
    const data = randomBytes(8 * MIB);
    let released = 0;
    let pieces = 0;
    for (let at = 0; at < data.length; pieces++) {
      const length = Math.min([28, 4096, MIB, 1, 65_537][pieces % 5] ?? 1, data.length - at);
      transport.send(data, at, length, { release: () => released++ });
      at += length;
    }
    assert.equal(transport.queuedBytes, data.length);
    await until(
      'all has come',
      () => got.reduce((sum, { length }) => sum + length, 0) === data.length,
    );
    assert.ok(Buffer.concat(got).equals(data));
    await until('its owners know', () => released === pieces);
    assert.equal(transport.queuedBytes, 0);
    assert.ok(receiver.drained > 0);
    transport.close();
  });

  for (const most of [1, 1000, 3 * MIB]) {
    it(`gives what comes in pieces of up to ${most} bytes`, async () => {
      const { transport, peer } = await open();
      const receiver = new Receiver(transport, most);
      const data = randomBytes(most === 1 ? 3000 : 5 * MIB);
      peer.end(data);
      await until('the end has come', () => receiver.ended !== undefined);
      assert.equal(receiver.ended, 0);
      assert.ok(Buffer.concat(receiver.chunks).equals(data));
      transport.close();
    });
  }

  /** Receives once for each time it is told to, as a connection does that got less than it had room for. */
  class PatientReceiver {
    readonly told: (string | number)[] = [];

    constructor(transport: TlsTransport) {
      const place = Buffer.alloc(100_000);
      transport.open({
        readable: () => {
          const count = transport.receive(place, 0, place.length);
          if (count === -errno.EAGAIN) return;
          this.told.push(count > 0 ? place.toString('latin1', 0, count) : count);
        },
        sendFailed: () => undefined,
        drained: () => undefined,
      });
      transport.resume();
    }
  }

  for (const [how, leave] of [
    ['hangs up', (peer: TLSSocket) => peer.end('last words')],
    ['vanishes', (peer: TLSSocket) => peer.write('last words', () => peer.destroy())],
  ] as const) {
    it(`tells of a peer that ${how} with its last words, and of them before`, async () => {
      const { transport, peer } = await open();
      // Both are there before any of it is looked at.
      const closed = new Promise((resolve) => peer.once('close', resolve));
      leave(peer);
      if (how === 'vanishes') await closed;
      const receiver = new PatientReceiver(transport);
      await until('the end is told', () => typeof receiver.told.at(-1) === 'number');
      assert.deepEqual(receiver.told, ['last words', 0]);
      transport.close();
    });
  }

  for (const length of [10, 200_000, 500_000]) {
    it(`tells of what is no TLS, and of the ${length} bytes before`, async () => {
      const { transport, peer } = await open();
      const receiver = new PatientReceiver(transport);
      transport.pause();
      peer.write(Buffer.alloc(length, 'a'), () => sockets.at(-1)?.write('rubbish, and no record'));
      transport.resume();
      await until('the end is told', () => typeof receiver.told.at(-1) === 'number');
      assert.equal(receiver.told.pop(), -errno.EIO);
      assert.ok(receiver.told.join('') === 'a'.repeat(length));
      assert.ok(transport.failure !== undefined);
      transport.close();
    });
  }

  it('sends what is small and of one turn in one record', async () => {
    const { transport, peer } = await open();
    const records: string[] = [];
    peer.on('data', (data: Buffer) => records.push(data.toString()));
    for (let i = 0; i < 100; i++) transport.send(Buffer.from('small '), 0, 6);
    await until('it has come', () => records.length > 0);
    assert.deepEqual(records, ['small '.repeat(100)]);
    transport.close();
  });

  it('sends what is sent, whatever becomes of the memory once its owner has it back', async () => {
    const { transport, peer } = await open();
    const receiver = new Receiver(transport);
    const got: Buffer[] = [];
    // It says all of it again: both ways are tested at once.
    peer.on('data', (data: Buffer) => got.push(data)).pipe(peer);
    const expected: Buffer[] = [];
    const random = randomBytes(4);
    const below = (most: number): number => {
      random.writeUInt32LE((Math.imul(random.readUInt32LE(), 1664525) + 1013904223) >>> 0);
      return Math.floor((random.readUInt32LE() / 2 ** 32) * most);
    };
    const edges = [1, 28, 4124, 16_383, 16_384, 16_385, 65_536, 131_100, MIB];
    let owned = 0;
    for (let i = 0; i < 600; i++) {
      const length = Math.max(
        1,
        (edges[below(edges.length - (i % 50 === 0 ? 0 : 1))] ?? 1) - below(3),
      );
      const bytes = randomBytes(length + 8);
      expected.push(Buffer.from(bytes.subarray(4, 4 + length)));
      owned++;
      transport.send(bytes, 4, length, {
        release: () => {
          owned--;
          bytes.fill(0);
        },
      });
      if (below(10) === 0) transport.flush();
      // A turn has one request, or many.
      if (below(4) === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    const all = Buffer.concat(expected);
    await until('all has come back', () => receiver.bytes >= all.length);
    assert.ok(Buffer.concat(got).equals(all), 'there');
    assert.ok(Buffer.concat(receiver.chunks).equals(all), 'and back');
    await until('its owners know', () => owned === 0);
    assert.equal(transport.queuedBytes, 0);
    transport.close();
  });

  it('takes no more than it has room for while nobody reads', async () => {
    const { transport, peer } = await open();
    const receiver = new Receiver(transport);
    transport.pause();
    const data = randomBytes(16 * MIB);
    let gone = false;
    peer.write(data, () => (gone = true));
    // As long as it takes to be sure, and no measure of anything.
    await delay(300);
    assert.equal(receiver.bytes, 0);
    assert.ok(!gone, 'the peer is held back');
    transport.resume();
    await until('all has come', () => receiver.bytes === data.length);
    assert.ok(Buffer.concat(receiver.chunks).equals(data));
    transport.close();
  });

  it('leaves the last small message to go when it is closed', async () => {
    const { transport, peer } = await open();
    const got: Buffer[] = [];
    let ended = false;
    peer.on('data', (data: Buffer) => got.push(data)).on('end', () => (ended = true));
    const message = Buffer.from('goodbye');
    transport.send(message, 0, message.length);
    transport.flush();
    transport.close();
    message.fill(0);
    await until('the peer has heard it', () => ended);
    assert.equal(Buffer.concat(got).toString(), 'goodbye');
  });

  it('sends nothing of a large one that is given up, and lets go of its memory', async () => {
    const { transport, peer } = await open();
    peer.pause();
    const data = Buffer.alloc(32 * MIB, 'a');
    let released = 0;
    transport.send(data, 0, data.length, { release: () => released++ });
    transport.close();
    transport.close();
    data.fill('b');
    let wrong = false;
    let closed = false;
    peer
      .on('data', (chunk: Buffer) => (wrong ||= chunk.includes('b')))
      .on('close', () => (closed = true));
    peer.resume();
    await until('the connection is gone', () => closed);
    assert.ok(!wrong, 'nothing that was changed afterwards');
    await until('its owner knows', () => released === 1);
    transport.send(data, 0, 10, { release: () => released++ });
    assert.equal(released, 2);
    assert.equal(transport.receive(data, 0, 10), -errno.EBADF);
  });

  it('ends when the peer vanishes', async () => {
    const { transport, peer } = await open();
    const receiver = new Receiver(transport);
    peer.destroy();
    await until('the end is seen', () => receiver.ended !== undefined);
    transport.close();
  });

  it('gives up a handshake that is not answered in time, or not wanted any more', async () => {
    const silent = createPlainServer((socket) => socket.on('error', () => undefined).resume());
    const other = join(folder, 'silent');
    await new Promise<void>((resolve) => silent.listen(other, resolve));
    path = other;
    try {
      await assert.rejects(startTls(plain(), CLIENT, 50), DeadlineError);
      const reason = new Error('not wanted');
      const ends = new AbortController();
      const starting = startTls(plain(), CLIENT, DEADLINE, ends.signal);
      ends.abort(reason);
      await assert.rejects(starting, reason);
      await assert.rejects(startTls(plain(), CLIENT, DEADLINE, ends.signal), reason);
      const nonsense = { ...CLIENT, ciphers: 'nonsense' };
      await assert.rejects(startTls(plain(), nonsense, DEADLINE), /cipher/);
    } finally {
      // Which waits until each connection is closed from here.
      await new Promise((resolve) => silent.close(resolve));
    }
  });

  it('is not made with another key', async () => {
    const options = {
      ...CLIENT,
      pskCallback: () => ({ psk: randomBytes(32), identity: 'client' }),
    };
    await assert.rejects(startTls(plain(), options, DEADLINE));
  });
}
