import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { errno } from '../../src/errno.js';
import { native } from '../../src/native.js';
import { FdTransport } from '../../src/transport/fd-transport.js';
import { until } from '../support/mounts.js';
import { socketPair } from '../support/nbd-peer.js';

/** Milliseconds; ends a test that hangs. */
const TIMED = { timeout: 60_000 };
const MIB = 1024 * 1024;

describe('a transport over a socket', TIMED, () => {
  let transport: FdTransport;
  let peer = -1;
  let events: string[] = [];
  beforeEach(() => {
    const [ours, theirs] = socketPair();
    transport = new FdTransport(ours);
    peer = theirs;
    events = [];
  });
  afterEach(() => {
    transport.close();
    if (peer >= 0) native.close(peer);
  });

  const listen = (readable: () => void = () => undefined): void =>
    transport.open({
      readable: () => {
        events.push('readable');
        readable();
      },
      sendFailed: (code) => events.push(`failed ${code}`),
      drained: () => events.push('drained'),
    });

  /** All that can be received now. */
  function receive(): Buffer {
    const parts: Buffer[] = [];
    for (;;) {
      const part = Buffer.alloc(65536);
      const count = native.read(peer, part, 0, part.length);
      if (count <= 0) return Buffer.concat(parts);
      parts.push(part.subarray(0, count));
    }
  }

  async function receiveAll(length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    let count = 0;
    await until(`${length} bytes are here`, async () => {
      for (let i = 0; i < 100 && count < length; i++) {
        const part = receive();
        parts.push(part);
        count += part.length;
        await turn();
      }
      return count >= length;
    });
    return Buffer.concat(parts);
  }

  function hangUp(): void {
    native.close(peer);
    peer = -1;
  }

  /** Tells when a piece is released. */
  const owned = (name: string): { release: () => void } => ({
    release: () => events.push(`released ${name}`),
  });

  it('sends what is queued when the turn ends, in order', async () => {
    listen();
    const bytes = Buffer.from('abcdefgh');
    transport.send(bytes, 0, 2);
    transport.send(bytes, 2, 3);
    transport.send(Buffer.from('-'), 0, 1);
    transport.send(bytes, 5, 3);
    transport.send(bytes, 0, 1);
    assert.equal(transport.queuedBytes, 10);
    assert.equal(receive().length, 0);
    await turn();
    assert.equal(receive().toString(), 'abcde-fgha');
    assert.equal(transport.queuedBytes, 0);
    assert.deepEqual(events, ['drained']);
  });

  it('sends at once when it is told to', () => {
    listen();
    transport.send(Buffer.from('now'), 0, 3, owned('it'));
    transport.flush();
    assert.equal(receive().toString(), 'now');
    assert.deepEqual(events, ['released it', 'drained']);
    transport.flush();
    assert.equal(events.length, 2);
  });

  it('takes nothing for sent at once', async () => {
    listen();
    const nothing = Buffer.alloc(0);
    transport.send(nothing, 0, 0, owned('nothing'));
    transport.flush();
    assert.deepEqual(events, ['released nothing']);
    transport.send(Buffer.from('x'), 0, 1);
    transport.send(nothing, 0, 0);
    transport.send(Buffer.from('y'), 1, 0, owned('the end'));
    await turn();
    assert.equal(receive().toString(), 'x');
    assert.equal(transport.queuedBytes, 0);
  });

  it('sends more pieces than one call takes, and releases each once it has left', async () => {
    listen();
    const COUNT = 5000;
    const pieces = Array.from({ length: COUNT }, (_, i) => Buffer.from(`${i},`));
    for (const [i, piece] of pieces.entries()) {
      transport.send(piece, 0, piece.length, i % 7 === 0 ? owned(String(i)) : undefined);
    }
    const whole = Buffer.concat(pieces);
    assert.ok((await receiveAll(whole.length)).equals(whole));
    const released = events.filter((event) => event.startsWith('released'));
    assert.deepEqual(
      released,
      pieces.flatMap((_, i) => (i % 7 === 0 ? [`released ${i}`] : [])),
    );
    assert.equal(events.at(-1), 'drained');
  });

  it('goes on where the socket was full, while more is queued', async () => {
    listen();
    let seed = 1;
    const sent: Buffer[] = [];
    const received: Buffer[] = [];
    const queue = (count: number, most: number): void => {
      for (let i = 0; i < count; i++) {
        seed = (seed * 48271) % 0x7fffffff;
        const piece = Buffer.alloc(1 + (seed % most), seed % 256);
        sent.push(piece);
        transport.send(piece, 0, piece.length);
      }
    };
    queue(10, MIB);
    await turn();
    assert.ok(transport.queuedBytes > 0);
    for (let i = 0; i < 60; i++) {
      queue(200, 600);
      const part = Buffer.alloc(1 + (seed % 100_000));
      const count = native.read(peer, part, 0, part.length);
      if (count > 0) received.push(part.subarray(0, count));
      await turn();
    }
    assert.ok(!events.includes('drained'));
    const whole = Buffer.concat(sent);
    const before = received.reduce((sum, { length }) => sum + length, 0);
    received.push(await receiveAll(whole.length - before));
    assert.ok(Buffer.concat(received).equals(whole));
    await until('it is drained', () => events.includes('drained'));
    assert.deepEqual(events, ['drained']);
    assert.equal(transport.queuedBytes, 0);
  });

  it('tells once that sending failed, and lets go of all', async () => {
    listen();
    transport.send(Buffer.alloc(16 * MIB), 0, 16 * MIB, owned('large'));
    transport.send(Buffer.from('x'), 0, 1, owned('small'));
    await turn();
    assert.deepEqual(events, []);
    hangUp();
    await until('it is noticed', () => events.some((event) => event.startsWith('failed')));
    const failures = events.filter((event) => event !== 'readable');
    assert.deepEqual(failures, ['released large', 'released small', `failed ${errno.EPIPE}`]);
    assert.equal(transport.queuedBytes, 0);
    transport.send(Buffer.from('y'), 0, 1, owned('later'));
    transport.flush();
    assert.deepEqual(events.filter((event) => event !== 'readable').slice(3), ['released later']);
  });

  it('receives to a place, and tells of the end', async () => {
    const place = Buffer.alloc(8, '.');
    const results: number[] = [];
    listen(() => {
      results.push(transport.receive(place, 2, 3));
    });
    assert.equal(transport.receive(place, 0, 8), -errno.EAGAIN);
    native.write(peer, Buffer.from('hello'), 0, 5);
    await until('both parts are here', () => results.length >= 2);
    assert.equal(place.toString(), '..lol...');
    assert.deepEqual(results, [3, 2]);
    hangUp();
    await until('the end is told', () => results.includes(0));
  });

  it('tells nothing while it is paused, and goes on where it was', async () => {
    listen(() => {
      transport.receive(Buffer.alloc(1), 0, 1);
      transport.pause();
    });
    native.write(peer, Buffer.from('abc'), 0, 3);
    for (let count = 1; count <= 3; count++) {
      await until('one is told', () => events.length === count);
      for (let i = 0; i < 5; i++) await turn();
      assert.equal(events.length, count);
      transport.resume();
    }
    // Sending goes on.
    transport.pause();
    transport.send(Buffer.alloc(4 * MIB), 0, 4 * MIB);
    assert.equal((await receiveAll(4 * MIB)).length, 4 * MIB);
    await until('it is drained', () => events.at(-1) === 'drained');
  });

  it('is handed over with what has not been received', async () => {
    listen(() => transport.pause());
    native.write(peer, Buffer.from('rest'), 0, 4);
    await until('it is told', () => events.length > 0);
    let got = '';
    transport.open({
      readable: () => {
        const bytes = Buffer.alloc(10);
        const count = transport.receive(bytes, 0, 10);
        if (count > 0) got += bytes.toString('latin1', 0, count);
      },
      sendFailed: () => undefined,
      drained: () => undefined,
    });
    transport.resume();
    await until('the rest is here', () => got === 'rest');
    assert.equal(events.length, 1);
  });

  it('is closed for good, also twice, and in an event', async () => {
    listen(() => {
      transport.close();
      transport.close();
    });
    transport.send(Buffer.alloc(16 * MIB), 0, 16 * MIB, owned('queued'));
    transport.flush();
    native.write(peer, Buffer.from('x'), 0, 1);
    await until('it is closed', () => events.includes('released queued'));
    for (let i = 0; i < 3; i++) await turn();
    transport.send(Buffer.from('x'), 0, 1, owned('late'));
    transport.flush();
    transport.pause();
    transport.resume();
    assert.equal(transport.receive(Buffer.alloc(1), 0, 1), -errno.EBADF);
    assert.equal(transport.queuedBytes, 0);
    assert.deepEqual(events, ['readable', 'released queued', 'released late']);
    receive();
    assert.equal(native.read(peer, Buffer.alloc(1), 0, 1), 0, 'the peer sees the end');
  });

  it('gives its descriptor away, or keeps it when nobody takes it', async () => {
    const got: Buffer[] = [];
    listen(() => {
      const place = Buffer.alloc(100);
      const count = transport.receive(place, 0, place.length);
      if (count > 0) got.push(place.subarray(0, count));
    });
    const refused = new Error('not taken');
    const refuse = (): never => {
      throw refused;
    };
    assert.throws(() => transport.handOver(refuse), refused);
    native.write(peer, Buffer.from('still here'), 0, 10);
    await until('it is heard', () => got.length > 0);
    assert.equal(Buffer.concat(got).toString(), 'still here');

    const fd = transport.handOver((given) => given);
    transport.close();
    assert.equal(transport.receive(Buffer.alloc(1), 0, 1), -errno.EBADF);
    const before = events.length;
    native.write(peer, Buffer.from('yours'), 0, 5);
    const place = Buffer.alloc(100);
    assert.equal(native.read(fd, place, 0, place.length), 5, 'it is open');
    await turn();
    assert.equal(events.length, before);
    native.close(fd);
  });
});
