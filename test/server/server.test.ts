import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import type { NetConnectOpts } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import type { Disk } from '../../src/disk/disk.js';
import { errno } from '../../src/errno.js';
import { native } from '../../src/native.js';
import { Listener } from '../../src/server/listen.js';
import { serve } from '../../src/server/server.js';
import type { ServeOptions, Server } from '../../src/server/server.js';
import { MemoryDisk } from '../support/memory-disk.js';
import { HeldDisk, eventually } from '../support/server-held-disk.js';
import { clientFlags, goData, option, request } from '../support/server-messages.js';
import { Peer } from '../support/server-peer.js';

let folder: string;
let socket: string;
const cleanup: (() => void | Promise<void>)[] = [];
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tsnbdkit-server-'));
  socket = join(folder, 'socket');
});
after(() => rm(folder, { recursive: true }));
afterEach(async () => {
  for (const undo of cleanup.splice(0)) await undo();
});

function start(disk: Disk, options?: ServeOptions): Server {
  const server = serve(disk, [Listener.unix(socket)], options);
  cleanup.push(() => server.close());
  return server;
}

function dial(to: NetConnectOpts = { path: socket }): Peer {
  const peer = new Peer(createConnection(to));
  cleanup.unshift(() => peer.close());
  return peer;
}

/** Sends a whole handshake and waits for its end. */
async function shakeHands(peer: Peer): Promise<void> {
  peer.send(clientFlags(3), option(7, goData('')));
  // Greeting, export, block sizes, acknowledgement.
  await peer.receive(18 + 32 + 34 + 20);
}

async function client(): Promise<Peer> {
  const peer = dial();
  await shakeHands(peer);
  return peer;
}

describe('serve', () => {
  it('serves many clients at once, from one disk', async () => {
    const server = start(new MemoryDisk({ size: 1 << 20 }));
    const peers = await Promise.all(Array.from({ length: 10 }, client));
    assert.equal(server.connections, 10);
    for (const [i, peer] of peers.entries()) {
      peer.send(request({ type: 1, offset: BigInt(i), payload: Buffer.from([i]) }));
      await peer.reply();
    }
    peers[0]?.send(request({ type: 0, length: 10 }));
    const reply = await peers[0]?.reply(10);
    assert.deepEqual([...(reply?.data ?? [])], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it('takes requests that come right behind the handshake', async () => {
    start(new MemoryDisk({ size: 4096 }));
    const peer = dial();
    peer.send(clientFlags(3), option(7, goData('')), request({ type: 3, cookie: 9n }));
    await peer.receive(18 + 32 + 34 + 20);
    assert.equal((await peer.reply()).cookie, 9n);
  });

  it('lets clients wait when there are too many', async () => {
    const server = start(new MemoryDisk({ size: 4096 }), { maxConnections: 2 });
    const [first] = await Promise.all([client(), client()]);
    const third = dial();
    third.send(clientFlags(3), option(7, goData('')));
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    assert.deepEqual([third.waiting, server.connections], [0, 2]);
    first.close();
    await third.receive(18 + 32 + 34 + 20);
    assert.equal(server.connections, 2);
  });

  it('gives up on clients that do not finish their handshake', async () => {
    const server = start(new MemoryDisk({ size: 4096 }), { handshakeDeadline: 20 });
    const peer = dial();
    assert.equal((await peer.rest()).length, 18);
    await eventually(() => server.connections === 0, 'the client is gone');
  });

  it('acknowledges ABORT, and hangs up', async () => {
    start(new MemoryDisk({ size: 4096 }));
    const peer = dial();
    peer.send(clientFlags(3), option(2));
    assert.equal((await peer.rest()).length, 18 + 20);
  });

  it('survives clients that come and go', async () => {
    const server = start(new MemoryDisk({ size: 4096 }));
    for (let i = 0; i < 50; i++) {
      const peer = dial();
      if (i % 3 > 0) peer.send(clientFlags(i % 5));
      if (i % 3 > 1) await peer.receive(18).catch(() => undefined);
      peer.close();
    }
    await client();
    await eventually(() => server.connections === 1, 'the others are gone');
  });
});

describe('serve: close', () => {
  it('answers what is in flight, flushes, and removes the socket', async () => {
    const disk = new HeldDisk(1 << 20);
    const server = start(disk);
    const peer = await client();
    peer.send(request({ type: 1, cookie: 4n, payload: Buffer.alloc(10) }));
    await eventually(() => disk.waiting === 1, 'a request');
    const closed = server.close();
    assert.equal(server.close(), closed);
    assert.equal(existsSync(socket), false);
    disk.answer();
    assert.equal((await peer.reply()).cookie, 4n);
    await peer.rest();
    await eventually(() => disk.waiting === 1, 'a flush');
    disk.answer();
    await closed;
    assert.equal(disk.asked, 2);
  });

  it('ends handshakes', async () => {
    const server = start(new MemoryDisk({ size: 4096 }));
    const peer = dial();
    await peer.receive(18);
    await server.close();
    await peer.rest();
    assert.equal(server.connections, 0);
  });

  it('tells of a flush that failed', async () => {
    const disk = new MemoryDisk({ size: 4096 });
    const server = serve(disk, [Listener.unix(socket)]);
    disk.failNext.set('flush', errno.EIO);
    await assert.rejects(server.close(), { code: 'EIO' });
  });

  it('does not flush what is read-only', async () => {
    const disk = new MemoryDisk({ size: 4096, readOnly: true });
    await serve(disk, [Listener.unix(socket)]).close();
    assert.deepEqual(disk.log, []);
  });
});

describe('Listener', () => {
  it('listens on TCP, and tells which port', async () => {
    const listener = Listener.tcp('127.0.0.1', 0);
    const server = serve(new MemoryDisk({ size: 4096 }), [listener]);
    cleanup.push(() => server.close());
    const { port } = listener;
    await shakeHands(dial({ host: '127.0.0.1', port }));
    assert.throws(() => Listener.tcp('127.0.0.1', port), { code: 'EADDRINUSE' });
  });

  it('takes a socket over', async () => {
    const fd = native.unixListen(socket, 1);
    const server = serve(new MemoryDisk({ size: 4096 }), [Listener.inherited(fd)]);
    cleanup.push(() => server.close());
    await client();
    await server.close();
    assert.equal(existsSync(socket), true, 'it is not ours to remove');
    await rm(socket);
  });

  it('says what is wrong', () => {
    assert.throws(() => Listener.unix(join(folder, 'none/socket')), /none\/socket: no such file/);
    assert.throws(() => Listener.unix(`/tmp/${'long'.repeat(40)}`), { code: 'ENAMETOOLONG' });
    assert.throws(() => Listener.tcp('localhost', 0), { code: 'EINVAL' });
    assert.throws(() => Listener.inherited(9999), { code: 'EBADF' });
  });

  it('reports what it cannot accept from', async () => {
    const fds = new Int32Array(2);
    native.socketpair(fds);
    const [fd = -1, other = -1] = fds;
    const failure = new Promise<Error>((resolve) => {
      const server = serve(new MemoryDisk({ size: 4096 }), [Listener.inherited(fd)], {
        failed: resolve,
      });
      cleanup.push(() => server.close());
    });
    native.close(other);
    assert.match((await failure).message, /cannot accept a connection: invalid argument/);
  });

  it('does not remove a socket that another one has put there', async () => {
    const listener = Listener.unix(socket);
    await rm(socket);
    await writeFile(socket, '');
    listener.close();
    assert.equal(existsSync(socket), true);
    await rm(socket);
  });
});
