/**
 * The client's handshake with real servers, in each of the forms that they can be made to use. A read
 * of the first block tells that both sides agree on where the handshake ended.
 */

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { readDisk } from '../../src/disk/promises.js';
import { TransmissionFlag } from '../../src/nbd/constants.js';
import { HandshakeError } from '../../src/nbd/errors.js';
import type { NegotiatedExport, Target } from '../../src/nbd/export.js';
import { connectDisk } from '../../src/nbd/nbd-disk.js';
import { openExport } from '../../src/nbd/open.js';
import { parseNbdUri } from '../../src/nbd/uri.js';
import {
  startNbdServer,
  startNbdkit,
  startQemuNbd,
  startTsnbdkit,
} from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

/** Milliseconds; ends a test that hangs. */
const DEADLINE = 30_000;
const MIB = 1 << 20;

let folder = '';
let servers: RealServer[] = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
});
after(() => rm(folder, { recursive: true }));
afterEach(async () => {
  const all = servers;
  servers = [];
  for (const server of all) await server.stop();
});

async function running(server: Promise<RealServer>): Promise<RealServer> {
  const started = await server;
  servers.push(started);
  return started;
}

function target(server: RealServer, exportName = ''): Target {
  const socket = encodeURIComponent(server.socketPath);
  return parseNbdUri(`nbd+unix:///${encodeURIComponent(exportName)}?socket=${socket}`);
}

async function negotiate(server: RealServer, exportName = ''): Promise<NegotiatedExport> {
  const { transport, negotiated } = await openExport(target(server, exportName), {
    deadline: DEADLINE,
  });
  transport.close();
  return negotiated;
}

function refuses(server: RealServer, exportName: string, message: RegExp): Promise<void> {
  return assert.rejects(negotiate(server, exportName), (error) => {
    assert.ok(error instanceof HandshakeError, String(error));
    const { message: text } = error;
    assert.ok(text.startsWith(`NBD server at ${server.socketPath}: `), text);
    assert.match(text, message);
    return true;
  });
}

async function firstBlock(server: RealServer, exportName = ''): Promise<Buffer> {
  const disk = await connectDisk(target(server, exportName), {
    deadline: DEADLINE,
    connections: 1,
  });
  try {
    return await readDisk(disk, 0n, 512);
  } finally {
    await disk.close();
  }
}

/** An image that begins with a text. */
async function image(name: string, size: number): Promise<string> {
  const path = join(folder, name);
  const content = Buffer.alloc(size);
  content.write('first block');
  await writeFile(path, content);
  return path;
}

const FIRST = Buffer.alloc(512);
FIRST.write('first block');

const has = (agreed: NegotiatedExport, flag: keyof typeof TransmissionFlag): boolean =>
  (agreed.flags & TransmissionFlag[flag]) !== 0;

describe('nbdkit', requires({ programs: ['nbdkit'] }), () => {
  const kit = (...args: string[]): Promise<RealServer> => running(startNbdkit(args));

  it('fixed newstyle', async () => {
    const server = await kit('file', await image('kit', MIB));
    const agreed = await negotiate(server);
    assert.equal(agreed.size, BigInt(MIB));
    assert.equal(agreed.limits.minimum, 1);
    assert.equal(agreed.structuredReplies, true);
    assert.notEqual(agreed.allocationId, undefined);
    for (const flag of ['SEND_FLUSH', 'SEND_FUA', 'CAN_MULTI_CONN'] as const) {
      assert.ok(has(agreed, flag), flag);
    }
    assert.ok(!has(agreed, 'READ_ONLY'));
    assert.deepEqual(await firstBlock(server), FIRST);
  });

  it('fixed newstyle that sends zeroes', async () => {
    const server = await kit('--mask-handshake=1', 'file', await image('kit', MIB));
    assert.equal((await negotiate(server)).structuredReplies, true);
    assert.deepEqual(await firstBlock(server), FIRST);
  });

  for (const mask of ['0', '2']) {
    it(`newstyle that is not fixed: --mask-handshake=${mask}`, async () => {
      const server = await kit(`--mask-handshake=${mask}`, 'file', await image('kit', MIB));
      const agreed = await negotiate(server);
      assert.equal(agreed.size, BigInt(MIB));
      assert.equal(agreed.structuredReplies, false);
      assert.equal(agreed.allocationId, undefined);
      assert.equal(agreed.limits.minimum, 512);
      assert.ok(has(agreed, 'SEND_FLUSH'));
      assert.deepEqual(await firstBlock(server), FIRST);
    });
  }

  it('oldstyle', async () => {
    const server = await kit('-o', 'file', await image('kit', MIB));
    const agreed = await negotiate(server);
    assert.equal(agreed.size, BigInt(MIB));
    assert.equal(agreed.structuredReplies, false);
    assert.ok(has(agreed, 'SEND_FLUSH'));
    assert.deepEqual(await firstBlock(server), FIRST);
    await refuses(server, 'name', /oldest kind.*"name"/);
  });

  it('no structured replies', async () => {
    const server = await kit('--no-sr', 'file', await image('kit', MIB));
    const agreed = await negotiate(server);
    assert.equal(agreed.structuredReplies, false);
    assert.equal(agreed.allocationId, undefined);
    assert.equal(agreed.limits.minimum, 1);
    assert.deepEqual(await firstBlock(server), FIRST);
  });

  it('a default export', async () => {
    const server = await kit('-e', 'the name', 'file', await image('kit', MIB));
    for (const name of ['', 'the name']) {
      assert.equal((await negotiate(server, name)).size, BigInt(MIB));
    }
  });

  describe('with many exports', () => {
    const NAME = 'an export % with ünusual ? name';
    let exports = '';
    before(async () => {
      exports = join(folder, 'exports');
      await mkdir(exports);
      await writeFile(join(exports, NAME), FIRST);
    });

    it('gives the one that is named', async () => {
      const server = await kit('file', `dir=${exports}`);
      assert.equal((await negotiate(server, NAME)).size, 512n);
      assert.deepEqual(await firstBlock(server, NAME), FIRST);
    });

    it('refuses one that there is not', async () => {
      await refuses(await kit('file', `dir=${exports}`), 'none', /"none"/);
    });

    it('can only hang up, when it is not fixed', async () => {
      await refuses(
        await kit('--mask-handshake=0', 'file', `dir=${exports}`),
        'none',
        /closed the connection .*; has it an export named "none"\?$/,
      );
    });
  });

  it('read-only', async () => {
    assert.ok(has(await negotiate(await kit('-r', 'memory', '1M')), 'READ_ONLY'));
  });

  it('block sizes', async () => {
    const server = await kit(
      '--filter=blocksize-policy',
      'memory',
      '1M',
      'blocksize-minimum=4096',
      'blocksize-preferred=65536',
      'blocksize-maximum=131072',
    );
    const { limits } = await negotiate(server);
    assert.deepEqual(limits, { minimum: 4096, preferred: 65536, maximum: 131072 });
  });

  it('sizes that are not round, and the largest', async () => {
    for (const size of ['1', '1000', String(2n ** 63n - 1n)]) {
      assert.equal((await negotiate(await kit('null', size))).size, BigInt(size));
    }
  });

  it('an empty export', async () => {
    assert.equal((await negotiate(await kit('memory', '0'))).size, 0n);
  });

  it('TLS required', async () => {
    const keys = join(folder, 'keys.psk');
    // Of no use to anybody: it never comes to that.
    await writeFile(keys, 'user:00112233445566778899aabbccddeeff\n', { mode: 0o600 });
    const server = await kit('--tls=require', `--tls-psk=${keys}`, 'memory', '1M');
    await refuses(server, '', /TLS|encrypted/);
  });
});

describe('qemu-nbd', requires({ programs: ['qemu-nbd'] }), () => {
  const qemu = (...args: string[]): Promise<RealServer> => running(startQemuNbd(args));

  it('the default export', async () => {
    const server = await qemu('-f', 'raw', await image('qemu', MIB));
    const agreed = await negotiate(server);
    assert.equal(agreed.size, BigInt(MIB));
    assert.equal(agreed.structuredReplies, true);
    assert.notEqual(agreed.allocationId, undefined);
    assert.ok(has(agreed, 'SEND_FLUSH') && has(agreed, 'SEND_WRITE_ZEROES'));
    assert.deepEqual(await firstBlock(server), FIRST);
  });

  it('an export with a name and a description', async () => {
    const server = await qemu('-x', 'a name', '-D', 'text', '-f', 'raw', await image('qemu', MIB));
    assert.equal((await negotiate(server, 'a name')).size, BigInt(MIB));
    assert.deepEqual(await firstBlock(server, 'a name'), FIRST);
    await refuses(server, 'none', /no export named "none" \(the server says: .*none.*\)$/);
    await refuses(server, '', /no (default )?export/);
  });

  it('read-only, and shared', async () => {
    const path = await image('qemu', MIB);
    const agreed = await negotiate(await qemu('-r', '-e', '0', '-f', 'raw', path));
    assert.ok(has(agreed, 'READ_ONLY') && has(agreed, 'CAN_MULTI_CONN'));
  });

  it('that serves somebody else', async () => {
    const server = await qemu('-f', 'raw', await image('qemu', MIB));
    const first = await openExport(target(server), { deadline: DEADLINE });
    await assert.rejects(
      openExport(target(server), { deadline: 200 }),
      /: no answer within 0\.2 s; is it an NBD server\?$/,
    );
    first.transport.close();
    // It serves the next one then.
    await negotiate(server);
  });
});

describe('nbd-server', requires({ programs: ['nbd-server'] }), () => {
  it('exports of several kinds', async () => {
    const plain = await image('plain', MIB);
    const odd = await image('odd', MIB + 1000);
    const empty = join(folder, 'empty');
    await writeFile(empty, '');
    const server = await running(
      startNbdServer({
        plain: { exportname: plain },
        'read only': { exportname: odd, readonly: 'true', flush: 'true', fua: 'true' },
        empty: { exportname: empty },
      }),
    );
    const agreed = await negotiate(server, 'plain');
    assert.equal(agreed.size, BigInt(MIB));
    // It knows neither these nor block sizes, at this writing.
    assert.equal(agreed.structuredReplies, agreed.allocationId !== undefined);
    assert.ok(!has(agreed, 'READ_ONLY'));
    assert.deepEqual(await firstBlock(server, 'plain'), FIRST);

    const readOnly = await negotiate(server, 'read only');
    assert.equal(readOnly.size, BigInt(MIB + 1000));
    for (const flag of ['READ_ONLY', 'SEND_FLUSH', 'SEND_FUA'] as const) {
      assert.ok(has(readOnly, flag), flag);
    }
    assert.equal((await negotiate(server, 'empty')).size, 0n);
    await refuses(server, 'none', /no export named "none"/);
    await refuses(server, '', /no (default )?export/);
  });
});

describe('tsnbdkit', () => {
  const kit = (...args: string[]): Promise<RealServer> => running(startTsnbdkit(args));

  it('the default export', async () => {
    const server = await kit('file', await image('own', MIB));
    const agreed = await negotiate(server);
    assert.equal(agreed.size, BigInt(MIB));
    assert.equal(agreed.structuredReplies, true);
    assert.notEqual(agreed.allocationId, undefined);
    assert.deepEqual(await firstBlock(server), FIRST);
  });

  it('an export with a name', async () => {
    const server = await kit('-r', '-e', 'a name', 'memory', '1M');
    for (const name of ['', 'a name']) {
      assert.ok(has(await negotiate(server, name), 'READ_ONLY'));
    }
    await refuses(server, 'none', /no export named "none"/);
  });
});
