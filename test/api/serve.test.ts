/** Serving a disk, with a client in the same process. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  connect,
  diskOf,
  fileDisk,
  listExports,
  memoryDisk,
  mount,
  serve,
} from '../../src/index.js';
import type { DiskSource } from '../../src/index.js';

const TIMED = { timeout: 60_000 };

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
});
after(async () => {
  await rm(folder, { recursive: true });
});

describe('serving a disk', TIMED, () => {
  it('on a port of this machine, for IPv4 and IPv6', async () => {
    await using server = await serve(await memoryDisk(1024 * 1024), { on: 0, exportName: 'a b' });
    assert.match(server.uri, /^nbd:\/\/127\.0\.0\.1:\d+\/a%20b$/);
    assert.equal(server.uri, `nbd://127.0.0.1:${server.port}/a%20b`);
    for (const uri of [
      server.uri,
      `nbd://127.0.0.1:${server.port}`,
      `nbd://localhost:${server.port}`,
    ]) {
      await using client = await connect(uri);
      assert.equal(client.size, 1024n * 1024n);
      assert.equal(server.connections, 1);
    }
    assert.deepEqual(
      (await listExports(server.uri)).map(({ name }) => name),
      ['a b'],
    );
  });

  it('on a Unix socket, which is gone at the end', async () => {
    const path = join(folder, 'a socket');
    const disk = await memoryDisk(4096n);
    {
      await using server = await serve({ disk }, { on: path });
      assert.equal(server.port, undefined);
      await using client = await connect(server.uri);
      await client.pwrite(Buffer.from('here'), 0);
      await assert.rejects(serve(disk, { on: path }), { name: 'ErrnoError', code: 'EADDRINUSE' });
    }
    assert.equal(existsSync(path), false);
    // The disk is still the caller's.
    await using server = await serve(disk, { on: path });
    await using client = await connect(server.uri);
    assert.equal((await client.pread(4, 0)).toString(), 'here');
  });

  it('on one address', async () => {
    await using server = await serve(await memoryDisk(512), { on: { host: '127.0.0.1', port: 0 } });
    await using client = await connect(server.uri);
    assert.equal(client.size, 512n);
  });

  it('that is a file, or one that cannot be written', async () => {
    const path = join(folder, 'image');
    await writeFile(path, Buffer.alloc(4096, 'f'));
    const disk = await fileDisk(path);
    try {
      await using server = await serve(disk, { on: 0, readOnly: true });
      await using client = await connect(server.uri);
      assert.equal(client.readOnly, true);
      assert.equal((await client.pread(2, 0)).toString(), 'ff');
    } finally {
      await disk.close();
    }
    await assert.rejects(fileDisk(join(folder, 'none')), { name: 'PluginError' });
    await assert.rejects(memoryDisk(0), RangeError);
    await assert.rejects(memoryDisk(2n ** 63n), RangeError);
  });

  it('that is served by another server', async () => {
    await using first = await serve(await memoryDisk(65536), { on: 0 });
    await using between = await connect(first.uri);
    await using second = await serve(between, { on: 0 });
    await using client = await connect(second.uri);
    await client.pwrite(Buffer.from('through'), 100);
    assert.equal((await between.pread(7, 100)).toString(), 'through');
  });

  it('flushes the disk at the end, and tells when that fails', async () => {
    let flushes = 0;
    const disk = diskOf({
      size: 512,
      read: (_offset, length) => Buffer.alloc(length),
      write: () => undefined,
      flush() {
        if (++flushes > 1) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
      },
    });
    const first = await serve(disk, { on: 0 });
    await first.close();
    await first.closed;
    assert.equal(flushes, 1);
    const second = await serve(disk, { on: 0 });
    await assert.rejects(second.close(), { code: 'ENOSPC' });
    await assert.rejects(second.closed, { code: 'ENOSPC' });
  });

  it('does not wait for ever for a disk that does not answer', async () => {
    const disk = diskOf({
      size: 512,
      read: (_offset, length) => Buffer.alloc(length),
      write: () => undefined,
      flush: () => new Promise(() => undefined),
    });
    const server = await serve(disk, { on: 0, closeTimeout: 50 });
    await assert.rejects(server.close(), { name: 'ErrnoError', code: 'ETIMEDOUT' });
  });

  it('ends with its signal', async () => {
    const stop = new AbortController();
    const path = join(folder, 'ends');
    const server = await serve(await memoryDisk(512), { on: path, signal: stop.signal });
    const client = await connect(server.uri);
    stop.abort();
    await server.closed;
    assert.equal(existsSync(path), false);
    await assert.rejects(client.pread(1, 0), { code: 'EIO' });
    await client.close();
    const again = serve(await memoryDisk(512), { on: path, signal: stop.signal });
    await assert.rejects(again, { name: 'AbortError' });
    assert.equal(existsSync(path), false);
  });

  for (const [what, options, name] of [
    ['a port of no kind', { on: 70_000 }, 'RangeError'],
    ['a negative port', { on: { host: '127.0.0.1', port: -1 } }, 'RangeError'],
    ['a name in the place of an address', { on: { host: 'localhost', port: 0 } }, 'TypeError'],
    ['a socket without a name', { on: '' }, 'TypeError'],
    ['no connections', { on: 0, maxConnections: 0 }, 'RangeError'],
    ['a name that is too long', { on: 0, exportName: 'x'.repeat(5000) }, 'HandshakeError'],
    ['a time that is none', { on: 0, closeTimeout: -1 }, 'RangeError'],
    ['a name of half a character', { on: 0, exportName: '\ud800' }, 'TypeError'],
    ['a socket with such a name', { on: '/nowhere/\udfff' }, 'TypeError'],
  ] as const) {
    it(`refuses ${what}`, async () => {
      await assert.rejects(serve(await memoryDisk(512), options), { name });
    });
  }

  it('refuses what JavaScript lets one leave out, by its name', async () => {
    const disk = await memoryDisk(512);
    const untyped = (call: unknown) => call as (...words: unknown[]) => Promise<unknown>;
    const [anyServe, anyMount] = [untyped(serve), untyped(mount)];
    const anyDiskOf = (...words: unknown[]) =>
      Promise.resolve(words).then((all) => untyped(diskOf)(...all));
    for (const [call, message] of [
      [() => anyServe(disk), /^where to serve, \{ on \}, is missing$/],
      [() => anyServe(disk, {}), /^`on`, where to listen, is missing$/],
      [() => anyServe(memoryDisk(512), { on: 0 }), /^it is the promise of a disk: await it$/],
      [() => anyMount(), /^what mount\(\) is to do, \{ disk, at \}, is missing$/],
      [() => anyMount({ disk }), /^`at`, where to mount, is no string$/],
      [() => anyMount({ disk: memoryDisk(512), at: folder }), /await it$/],
      [() => anyDiskOf(), /^the functions of a disk are missing$/],
    ] as const) {
      await assert.rejects(call, { name: 'TypeError', message });
    }
  });

  it('refuses what is no disk, and listens nowhere then', async () => {
    const on = join(folder, 'nobody');
    const functions = { size: 512, read: (_: number, length: number) => Buffer.alloc(length) };
    for (const none of [functions, { disk: functions }, {}, undefined, null, 'disk']) {
      for (const readOnly of [false, true]) {
        await assert.rejects(serve(none as unknown as DiskSource, { on, readOnly }), {
          name: 'TypeError',
          message: /^it is no disk, nor has one: diskOf makes/,
        });
      }
    }
    assert.equal(existsSync(on), false);
  });
});
