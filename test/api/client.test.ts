/** The client for scripting, with a server in the same process. */

import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { connect, listExports } from '../../src/index.js';
import type { ConnectOptions, NbdClient } from '../../src/index.js';
import { Command, CommandFlag } from '../../src/nbd/constants.js';
import { FakeServer } from '../support/fake-server.js';
import type { FakeServerOptions } from '../support/fake-server.js';
import { SilentServer } from '../support/silent-server.js';

const TIMED = { timeout: 60_000 };
const MIB = 1024 * 1024;
/** Flush, trim, write zeroes; FUA, cache and read-only by name. */
const PLAIN = 0x65;
const FUA = 8;
const CACHE = 1 << 10;

let server: FakeServer | undefined;
let client: NbdClient | undefined;
afterEach(async () => {
  await client?.close();
  await server?.stop();
  client = server = undefined;
});

async function connected(
  options: Partial<FakeServerOptions> = {},
  connecting: ConnectOptions = {},
): Promise<{ client: NbdClient; server: FakeServer }> {
  server = await FakeServer.start({ size: BigInt(64 * MIB), extendedHeaders: false, ...options });
  client = await connect(server.uri, connecting);
  return { client, server };
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

describe('a client', TIMED, () => {
  it('tells what the export is', async () => {
    const { client, server } = await connected({ flags: PLAIN | FUA | CACHE });
    assert.equal(client.uri, server.uri);
    assert.equal(client.size, BigInt(64 * MIB));
    assert.equal(client.connections, 1);
    assert.deepEqual(client.contexts, ['base:allocation']);
    assert.deepEqual(client.blockSizes, { minimum: 1, preferred: 4096, maximum: 32 * MIB });
    const { readOnly, canFlush, canFua, canTrim, canZero, canCache, canMultiConn } = client;
    assert.deepEqual(
      { readOnly, canFlush, canFua, canTrim, canZero, canCache, canMultiConn },
      {
        readOnly: false,
        canFlush: true,
        canFua: true,
        canTrim: true,
        canZero: true,
        canCache: true,
        canMultiConn: false,
      },
    );
  });

  it('reads and writes at numbers and bigints', async () => {
    const { client } = await connected();
    await client.pwrite(Buffer.from('hello'), 1000);
    await client.pwrite(new Uint8Array([33]), 1005n);
    assert.equal((await client.pread(6, 1000n)).toString(), 'hello!');
    assert.equal((await client.pread(4, 1002)).toString(), 'llo!');
    await client.flush();
  });

  it('gives each read memory of its own, and lets the data of a write go', async () => {
    const { client } = await connected();
    const data = Buffer.from('first');
    const writing = client.pwrite(data, 0);
    data.fill('x');
    await writing;
    const [one, other] = await Promise.all([client.pread(5, 0), client.pread(5, 0)]);
    one.fill('y');
    assert.equal(other.toString(), 'first');
  });

  it('reads and writes more than the server takes at once', async () => {
    const { client, server } = await connected();
    const data = Buffer.alloc(40 * MIB);
    for (let i = 0; i < data.length; i += MIB) data.writeUInt32LE(i, i);
    await client.pwrite(data, 5);
    assert.ok((await client.pread(data.length, 5)).equals(data));
    assert.equal(server.ofType(Command.WRITE).length, 2);
  });

  it('zeroes, trims, and has it durable where that is asked for', async () => {
    const { client, server } = await connected({ flags: PLAIN | FUA });
    await client.pwrite(Buffer.alloc(8192, 'a'), 0, { fua: true });
    await client.zero(4096, 0n, { fua: true, noHole: true });
    await client.trim(4096n, 4096, { fua: true });
    assert.deepEqual(await client.pread(4096, 0), Buffer.alloc(4096));
    assert.deepEqual(
      server.asked
        .filter(({ type }) => type !== Command.READ)
        .map(({ type, flags }) => [type, flags]),
      [
        [Command.WRITE, CommandFlag.FUA],
        [Command.WRITE_ZEROES, CommandFlag.FUA | CommandFlag.NO_HOLE],
        [Command.TRIM, CommandFlag.FUA],
      ],
    );
  });

  it('flushes where the server has no FUA', async () => {
    const { client, server } = await connected({ flags: PLAIN });
    await client.pwrite(Buffer.alloc(1), 0, { fua: true });
    assert.deepEqual(
      server.asked.map(({ type, flags }) => [type, flags]),
      [
        [Command.WRITE, 0],
        [Command.FLUSH, 0],
      ],
    );
  });

  it('tells extents from start to end', async () => {
    const { client } = await connected();
    await client.pwrite(Buffer.alloc(65536, 'a'), 65536);
    const found = await all(client.extents(client.size - 100n, 100));
    const [first, ...rest] = found;
    assert.deepEqual(
      [first, rest[0]],
      [
        { offset: 100n, length: 65436n, hole: true, zero: true },
        { offset: 65536n, length: 65536n, hole: false, zero: false },
      ],
    );
    // One by one, as the server tells them, and no byte missing or twice.
    let at = 100n;
    for (const { offset, length } of found) {
      assert.equal(offset, at);
      at += length;
    }
    assert.equal(at, client.size);
    const status = await all(client.blockStatus(65536 * 2, 0));
    assert.deepEqual(
      status.map(({ offset, length, flags }) => [offset, length, flags]),
      [
        [0n, 65536n, 3n],
        [65536n, 65536n, 0n],
      ],
    );
    await assert.rejects(all(client.blockStatus(512, 0, { context: 'qemu:none' })), {
      code: 'ENOTSUP',
    });
  });

  it('asks for nothing where nothing is asked', async () => {
    const { client, server } = await connected();
    assert.deepEqual(await client.pread(0, client.size), Buffer.alloc(0));
    await client.pwrite(new Uint8Array(), 0);
    await client.zero(0, 0);
    await client.trim(0n, client.size);
    assert.deepEqual(await all(client.extents(0, 0)), []);
    assert.deepEqual(server.asked, []);
  });

  it('refuses what is not on the disk, before it is asked', async () => {
    const { client, server } = await connected();
    const wrong: Promise<unknown>[] = [
      client.pread(1, client.size),
      client.pread(-1, 0),
      client.pread(1.5, 0),
      client.pread(1, -1n),
      client.pread(1, 2 ** 60),
      client.pread(Number.NaN, 0),
      client.pread(2 ** 30 + 1, 0),
      client.pwrite(Buffer.alloc(2), client.size - 1n),
      client.trim(client.size, 1),
      client.zero(2n ** 64n, 0),
      all(client.extents(1, client.size)),
    ];
    for (const one of wrong) await assert.rejects(one, RangeError);
    assert.deepEqual(server.asked, []);
  });

  it('refuses what the server cannot do', async () => {
    const { client, server } = await connected({ flags: 1 });
    await assert.rejects(client.trim(1, 0), { code: 'ENOTSUP' });
    await assert.rejects(client.cache(1, 0), { code: 'ENOTSUP' });
    await assert.rejects(client.pwrite(Buffer.alloc(1), 0, { fua: true }), { code: 'ENOTSUP' });
    assert.deepEqual(server.asked, []);
    // Zeroes can be written all the same.
    await client.pwrite(Buffer.alloc(16, 'a'), 0);
    await client.zero(8, 4);
    assert.equal((await client.pread(16, 0)).toString('latin1'), 'aaaa\0\0\0\0\0\0\0\0aaaa');
  });

  it('changes no disk that is read-only', async () => {
    const { client, server } = await connected({ flags: PLAIN | 2 });
    assert.equal(client.readOnly, true);
    assert.equal(client.canTrim, false);
    for (const one of [client.pwrite(Buffer.alloc(1), 0), client.zero(1, 0), client.trim(1, 0)]) {
      await assert.rejects(one, { name: 'ErrnoError', code: 'EROFS', errno: 30 });
    }
    assert.deepEqual(server.asked, []);
  });

  it('passes errors of the server on', async () => {
    const { client, server } = await connected();
    server.refuses.set(Command.WRITE, 28);
    await assert.rejects(client.pwrite(Buffer.alloc(1), 0), {
      name: 'ErrnoError',
      code: 'ENOSPC',
      errno: 28,
      message: 'pwrite: no space left on device',
    });
  });

  it('says why, when the server is lost', async () => {
    const { client, server: lost } = await connected();
    await lost.stop();
    server = undefined;
    await assert.rejects(client.pread(1, 0), {
      code: 'EIO',
      message: 'pread: i/o error (the server closed the connection)',
    });
  });

  it('refuses all after its end', async () => {
    const { client } = await connected();
    await client.close();
    await client[Symbol.asyncDispose]();
    await assert.rejects(client.pread(1, 0), { code: 'EBADF' });
    await assert.rejects(client.flush(), { code: 'EBADF' });
  });
});

describe('what is given up', TIMED, () => {
  it('is not asked where the signal came before', async () => {
    const { client, server } = await connected();
    const signal = AbortSignal.abort();
    await assert.rejects(client.pread(1, 0, { signal }), { name: 'AbortError' });
    await assert.rejects(client.pwrite(Buffer.alloc(1), 0, { signal }), { name: 'AbortError' });
    await assert.rejects(client.flush({ signal }), { name: 'AbortError' });
    await assert.rejects(all(client.extents(1, 0, { signal })), { name: 'AbortError' });
    assert.deepEqual(server.asked, []);
    await assert.rejects(connect(server.uri, { signal }), { name: 'AbortError' });
    await assert.rejects(listExports(server.uri, { signal }), { name: 'AbortError' });
  });

  it('rejects at once, and the connection goes on', async () => {
    const { client, server } = await connected();
    const stop = new AbortController();
    const reason = new Error('enough');
    const reading = client.pread(MIB, 0, { signal: stop.signal });
    stop.abort(reason);
    await assert.rejects(reading, reason);
    // The answer that nobody waits for is taken off the wire.
    await client.pwrite(Buffer.from('after'), 0);
    assert.equal((await client.pread(5, 0)).toString(), 'after');
    assert.equal(server.ofType(Command.READ).length, 2);
  });

  it('is the attempt to connect, and not the connection', async () => {
    const stop = new AbortController();
    const { client } = await connected({}, { signal: stop.signal });
    stop.abort();
    assert.equal((await client.pread(1, 0)).length, 1);
  });

  it('leaves no connection behind', async () => {
    const peer = await SilentServer.start();
    try {
      const stop = new AbortController();
      const connecting = connect(peer.uri, { signal: stop.signal });
      await peer.connected;
      stop.abort();
      await assert.rejects(connecting, { name: 'AbortError' });
      await peer.left;
      const late = connect(peer.uri, { connectTimeout: 50 });
      await assert.rejects(late, { name: 'HandshakeError', code: 'ERR_NBD_HANDSHAKE' });
    } finally {
      await peer.stop();
    }
  });
});

describe('connecting', TIMED, () => {
  it('tells why it cannot', async () => {
    await assert.rejects(connect('nbd+unix:///?socket=/nonexistent'), (error: Error) => {
      assert.equal(error.name, 'HandshakeError');
      assert.equal((error.cause as NodeJS.ErrnoException).code, 'ENOENT');
      return true;
    });
    await assert.rejects(connect('http://localhost/'), { name: 'UriError', code: 'ERR_NBD_URI' });
  });

  for (const options of [
    { connections: 0 },
    { connections: 17 },
    { connections: 1.5 },
    { timeout: -1 },
    { connectTimeout: Number.NaN },
    { reconnect: 2 ** 31 },
  ]) {
    it(`refuses ${JSON.stringify(options)}`, async () => {
      await assert.rejects(connect('nbd://localhost', options), RangeError);
    });
  }

  it('makes several connections where they are asked for and allowed', async () => {
    const { client } = await connected({}, { connections: 3 });
    assert.equal(client.canMultiConn, true);
    assert.equal(client.connections, 3);
  });
});
