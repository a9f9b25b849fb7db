/** The client for scripting with real servers: lists of exports, meta contexts, CACHE, TLS. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { connect, listExports } from '../../src/index.js';
import { PSK_USER, makeCertificates } from '../support/certificates.js';
import {
  startNbdServer,
  startNbdkit,
  startQemuNbd,
  startTsnbdkit,
} from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const run = promisify(execFile);
const TIMED = { timeout: 120_000 };
const MIB = 1024 * 1024;

let folder: string;
let servers: RealServer[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
});
afterEach(async () => {
  for (const server of servers) await server.stop();
  servers = [];
  await rm(folder, { recursive: true });
});

async function started(starting: Promise<RealServer>): Promise<RealServer> {
  const server = await starting;
  servers.push(server);
  return server;
}

const uriOf = ({ socketPath }: RealServer, name = '', more = ''): string =>
  `nbd+unix:///${name}?socket=${socketPath}${more}`;

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

describe('the exports of a server', TIMED, () => {
  it('nbdkit with a folder of images', requires({ programs: ['nbdkit'] }), async () => {
    await mkdir(join(folder, 'images'));
    await writeFile(join(folder, 'images', 'one'), Buffer.alloc(MIB));
    await writeFile(join(folder, 'images', 'two words'), Buffer.alloc(2 * MIB));
    const server = await started(startNbdkit(['-r', 'file', `dir=${join(folder, 'images')}`]));
    const found = await listExports(uriOf(server, 'none'), { details: true });
    assert.deepEqual(
      found
        .map(({ name, details }) => [name, details?.size, details?.readOnly])
        .toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
      [
        ['one', BigInt(MIB), true],
        ['two words', BigInt(2 * MIB), true],
      ],
    );
    // What is listed can be connected to.
    await using client = await connect(uriOf(server, 'two%20words'));
    assert.equal(client.size, BigInt(2 * MIB));
  });

  it('qemu-nbd with a name and a description', requires({ programs: ['qemu-nbd'] }), async () => {
    const image = join(folder, 'image');
    await writeFile(image, Buffer.alloc(MIB));
    const args = ['-x', 'disk', '-D', 'the first disk', '-f', 'raw', image];
    const server = await started(startQemuNbd(args));
    const [plain] = await listExports(uriOf(server));
    assert.deepEqual(plain, {
      name: 'disk',
      description: 'the first disk',
      details: undefined,
    });
    const [told] = await listExports(uriOf(server), { details: true });
    assert.equal(told?.description, 'the first disk');
    assert.equal(told.details?.size, BigInt(MIB));
    assert.equal(told.details.readOnly, false);
  });

  it('nbd-server, if it may tell', requires({ programs: ['nbd-server'] }), async () => {
    const image = join(folder, 'image');
    await writeFile(image, Buffer.alloc(MIB));
    const exports = { a: { exportname: image }, b: { exportname: image, readonly: 'true' } };
    const open = await started(startNbdServer({ generic: { allowlist: 'true' }, ...exports }));
    const found = await listExports(uriOf(open));
    assert.deepEqual(found.map(({ name }) => name).toSorted(), ['a', 'b']);
    const closed = await started(startNbdServer({ generic: { allowlist: 'false' }, ...exports }));
    await assert.rejects(listExports(uriOf(closed)), {
      name: 'HandshakeError',
      message: /: the server does not tell its exports/,
    });
  });

  it('tsnbdkit', async () => {
    const server = await started(startTsnbdkit(['-e', 'ours', 'memory', '1M']));
    const [found] = await listExports(uriOf(server), { details: true });
    assert.equal(found?.name, 'ours');
    assert.equal(found.details?.size, BigInt(MIB));
  });

  it('over TLS, and not without it', requires({ programs: ['nbdkit', 'openssl'] }), async () => {
    const { pskFile } = makeCertificates(folder);
    const tls = [`--tls=require`, `--tls-psk=${pskFile}`];
    const server = await started(startNbdkit([...tls, 'memory', '1M']));
    const parameters = `&tls-psk-file=${pskFile}&tls-username=${PSK_USER}&tls-verify-peer=0`;
    const encrypted = uriOf(server, '', parameters).replace('nbd+', 'nbds+');
    const [found] = await listExports(encrypted, { details: true });
    assert.equal(found?.details?.size, BigInt(MIB));
    await using client = await connect(encrypted);
    await client.pwrite(Buffer.from('secret'), 1);
    assert.equal((await client.pread(6, 1)).toString(), 'secret');
    await assert.rejects(listExports(uriOf(server)), { name: 'HandshakeError', message: /nbds/ });
  });
});

describe('a client and real servers', TIMED, () => {
  it(
    'asks qemu-nbd what is dirty',
    requires({ programs: ['qemu-img', 'qemu-io', 'qemu-nbd'] }),
    async () => {
      const image = join(folder, 'image');
      await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '4M']);
      await run('qemu-img', ['bitmap', '-f', 'qcow2', '--add', image, 'backup']);
      await run('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 64k', image]);
      const server = await started(startQemuNbd(['-r', '-B', 'backup', '-f', 'qcow2', image]));
      const context = 'qemu:dirty-bitmap:backup';
      const contexts = [context, 'qemu:dirty-bitmap:none'];
      await using client = await connect(uriOf(server), { contexts });
      assert.deepEqual(client.contexts, ['base:allocation', context]);
      const dirty = (await all(client.blockStatus(client.size, 0, { context })))
        .filter(({ flags }) => (flags & 1n) !== 0n)
        .map(({ offset, length }) => [offset, length]);
      assert.deepEqual(dirty, [[BigInt(MIB), 65536n]]);
      // A range that begins and ends within an extent, and within a block.
      const part = await all(client.blockStatus(1000, MIB - 100, { context }));
      assert.deepEqual(part, [
        { offset: BigInt(MIB) - 100n, length: 100n, flags: 0n },
        { offset: BigInt(MIB), length: 900n, flags: 1n },
      ]);
      const data = (await all(client.extents(client.size, 0))).filter(({ zero }) => !zero);
      assert.deepEqual(
        data.map(({ offset, length }) => [offset, length]),
        [[BigInt(MIB), 65536n]],
      );
    },
  );

  it('asks nbdkit to have a range at hand', requires({ programs: ['nbdkit'] }), async () => {
    const log = join(folder, 'log');
    const args = ['--filter=log', 'memory', '64M', `logfile=${log}`];
    const server = await started(startNbdkit(args));
    await using client = await connect(uriOf(server));
    assert.equal(client.canCache, true);
    await client.cache(40 * MIB, 1n);
    const told = await readFile(log, 'utf8');
    const asked = [...told.matchAll(/ Cache id=\d+ offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+) /g)];
    assert.deepEqual(
      asked.map(([, offset, count]) => [Number(offset), Number(count)]),
      [
        [1, 32 * MIB],
        [1 + 32 * MIB, 8 * MIB],
      ],
    );
    // Without that, it is known before.
    const other = await started(startNbdkit(['--filter=nocache', 'memory', '1M']));
    await using none = await connect(uriOf(other));
    await assert.rejects(none.cache(512, 0), { code: 'ENOTSUP' });
  });

  it(
    'reads and writes across blocks that it need not know of',
    requires({ programs: ['nbdkit'] }),
    async () => {
      const server = await started(
        startNbdkit([
          '--filter=blocksize-policy',
          'memory',
          '1M',
          'blocksize-minimum=4096',
          'blocksize-preferred=4096',
          'blocksize-maximum=64K',
          'blocksize-error-policy=error',
        ]),
      );
      await using client = await connect(uriOf(server));
      assert.equal(client.blockSizes.minimum, 4096);
      const data = Buffer.alloc(200_000, 'x');
      await client.pwrite(data, 777);
      await client.zero(5000, 1000);
      const found = await client.pread(data.length + 2, 776);
      data.fill(0, 1000 - 777, 6000 - 777);
      assert.ok(found.equals(Buffer.concat([Buffer.alloc(1), data, Buffer.alloc(1)])));
    },
  );

  it('goes on when the server comes back', requires({ programs: ['nbdkit'] }), async () => {
    const image = join(folder, 'image');
    await writeFile(image, Buffer.alloc(MIB, 'o'));
    const first = await started(startNbdkit(['file', image]));
    const lines: string[] = [];
    await using client = await connect(uriOf(first), {
      reconnect: 60_000,
      onReconnect: (line) => lines.push(line),
    });
    await client.pwrite(Buffer.from('kept'), 0);
    await first.kill();
    const reading = client.pread(4, 0);
    servers.push(await first.again());
    assert.equal((await reading).toString(), 'kept');
    assert.ok(lines.length >= 2, lines.join('\n'));
  });
});
