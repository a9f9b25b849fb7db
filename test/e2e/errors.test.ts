/** Each error of a server reaches the program that asked as its errno, and once only. */

import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ErrnoError, errno, errnoName } from '../../src/errno.js';
import { flushDisk, readDisk, trimDisk, writeDisk, zeroDisk } from '../../src/disk/promises.js';
import { Command } from '../../src/nbd/constants.js';
import { connectDisk } from '../../src/nbd/nbd-disk.js';
import { FakeServer } from '../support/fake-server.js';
import { Workplace, until } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const ERRNO_OF = fileURLToPath(new URL('../support/e2e-errno.js', import.meta.url));
const MIB = 1024 * 1024;

/** What a program does that asks each of these of the server. */
const OPERATIONS: readonly (readonly [command: number, operations: readonly string[]])[] = [
  [Command.READ, ['direct read', 'read']],
  [Command.WRITE, ['direct write', 'durable write']],
  [Command.FLUSH, ['direct write and fsync']],
  [Command.WRITE_ZEROES, ['punch', 'zero']],
];
const ALL = OPERATIONS.flatMap(([, operations]) => operations);

describe('an error', requires({ root: true, fuse: true, programs: ['nbdkit'] }), () => {
  let place: Workplace;
  let fake: FakeServer | undefined;
  let server: RealServer | undefined;

  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
  });
  afterEach(async () => {
    try {
      await place.nothingLeft();
    } finally {
      await place.remove();
      await fake?.stop();
      await server?.stop();
      fake = server = undefined;
    }
  });

  /** The names of what a program gets that does these things to the file. */
  async function allGot(operations: readonly string[]): Promise<string[]> {
    const printed = await place.ok(process.execPath, [ERRNO_OF, 'disk.raw', ...operations]);
    const codes = printed.trim().split('\n').map(Number);
    return codes.map((code) => (code === 0 ? 'ok' : errnoName(code)));
  }

  async function got(operation: string): Promise<string | undefined> {
    return (await allGot([operation]))[0];
  }

  const each = (operations: readonly string[], name: string): string[] =>
    operations.map(() => name);

  const WIRE: readonly (readonly [wire: number, code: number])[] = [
    [1, errno.EPERM],
    [5, errno.EIO],
    [12, errno.ENOMEM],
    [22, errno.EINVAL],
    [28, errno.ENOSPC],
    [75, errno.EOVERFLOW],
    [95, errno.EOPNOTSUPP],
    // ENOSYS of Linux, which the protocol does not have: the kernel would never ask again.
    [38, errno.EINVAL],
    [0xffffffff, errno.EINVAL],
  ];

  for (const [wire, code] of WIRE) {
    it(`of ${wire} is ${errnoName(code)}, and over with its cause`, async () => {
      fake = await FakeServer.start({ size: BigInt(MIB), extendedHeaders: wire % 2 === 0 });
      const mounted = await place.mount(['--cache=none', 'disk.raw', fake.uri]);
      assert.deepEqual(await allGot(ALL), each(ALL, 'ok'));
      for (const [command, operations] of OPERATIONS) {
        fake.refuses.set(command, wire);
        if (command === Command.WRITE_ZEROES && code === errno.EOPNOTSUPP) {
          // A server need not be able to zero: then zeroes are written.
          assert.deepEqual(await allGot(operations), each(operations, 'ok'));
          fake.refuses.set(Command.WRITE, wire);
        }
        assert.deepEqual(await allGot(operations), each(operations, errnoName(code)));
        fake.refuses.clear();
      }
      // All of it is asked again.
      const from = fake.asked.length;
      assert.deepEqual(await allGot(ALL), each(ALL, 'ok'));
      const again = new Set(fake.asked.slice(from).map(({ type }) => type));
      for (const [command] of OPERATIONS) assert.ok(again.has(command), `command ${command}`);
      const { status, stderr } = await mounted.unmount('disk.raw');
      // Somebody may not have heard of a write that failed.
      assert.equal(status, 7);
      assert.match(stderr, /^tsnbdfuse: writing to .* failed[^\n]*\n$/);
    });
  }

  for (const cache of ['writeback', 'writethrough']) {
    it(`of a write through the page cache is told by fsync, with --cache=${cache}`, async () => {
      fake = await FakeServer.start({ size: BigInt(MIB), extendedHeaders: true });
      const mounted = await place.mount([`--cache=${cache}`, 'disk.raw', fake.uri]);
      for (const [wire, names] of [
        [28, ['ENOSPC']],
        // What the page cache keeps of other errors is up to the kernel.
        [1, ['EPERM', 'EIO']],
      ] as const) {
        fake.refuses.set(Command.WRITE, wire);
        const name = await got('write and fsync');
        assert.ok(name !== undefined && (names as readonly string[]).includes(name), name);
        fake.refuses.clear();
        assert.equal(await got('write and fsync'), 'ok');
      }
      assert.equal((await mounted.unmount('disk.raw')).status, 7);
    });
  }

  it('of block status makes all of it data', async () => {
    fake = await FakeServer.start({ size: BigInt(MIB), extendedHeaders: true });
    const mounted = await place.mount(['disk.raw', fake.uri]);
    assert.equal(await got('seek data'), 'ENXIO', 'it is one hole');
    fake.refuses.set(Command.BLOCK_STATUS, 5);
    assert.equal(await got('seek data'), 'ok');
    fake.refuses.clear();
    assert.equal(await got('seek data'), 'ENXIO', 'the kernel asks again');
    assert.equal(fake.ofType(Command.BLOCK_STATUS).length, 3);
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
  });

  describe('of nbdkit', () => {
    for (const name of ['EPERM', 'EIO', 'ENOMEM', 'EINVAL', 'ENOSPC'] as const) {
      const failing = ['--filter=error', 'memory', '1M', `error=${name}`, 'error-rate=100%'];

      it(`is ${name} for a program`, async () => {
        const kit = ['nbdkit', ...failing, `error-file=${place.join('inject')}`];
        const mounted = await place.mount(['disk.raw', '[', ...kit, ']']);
        const operations = ['direct read', 'direct write', 'punch', 'zero'];
        assert.deepEqual(await allGot(operations), each(operations, 'ok'));
        const inject = await place.file('inject');
        assert.deepEqual(await allGot(operations), each(operations, name));
        await rm(inject);
        assert.deepEqual(await allGot(operations), each(operations, 'ok'));
        assert.equal((await mounted.unmount('disk.raw')).status, 7);
      });

      it(`is ${name} for a trim too`, async () => {
        server = await startNbdkit(failing);
        const address = { kind: 'unix', path: server.socketPath } as const;
        const disk = await connectDisk(
          { address, exportName: '' },
          { deadline: 30_000, connections: 1 },
        );
        const is = (error: unknown): boolean =>
          error instanceof ErrnoError && error.errno === errno[name];
        try {
          await assert.rejects(trimDisk(disk, 0n, 4096n), is);
          await assert.rejects(zeroDisk(disk, 0n, 4096n), is);
          await assert.rejects(readDisk(disk, 0n, 4096), is);
          await assert.rejects(writeDisk(disk, 0n, Buffer.alloc(4096)), is);
          await flushDisk(disk);
        } finally {
          await disk.close();
        }
      });
    }
  });

  describe('of a server that shuts down', () => {
    /** The one line that is said. */
    const said = (stderr: string): string[] =>
      stderr.split('\n').filter((line) => line.startsWith('tsnbdfuse: '));

    for (const [operation, command] of [
      ['direct read', Command.READ],
      ['direct write', Command.WRITE],
      ['direct write and fsync', Command.FLUSH],
      ['punch', Command.WRITE_ZEROES],
    ] as const) {
      it(`is ESHUTDOWN for who gets it (${operation}), and EIO from then on`, async () => {
        fake = await FakeServer.start({ size: BigInt(MIB), extendedHeaders: true });
        const mounted = await place.mount(['--reconnect=0', 'disk.raw', fake.uri]);
        fake.refuses.set(command, 108);
        assert.equal(await got(operation), errnoName(errno.ESHUTDOWN));
        await until('it is told', () => said(mounted.running.stderr).length > 0);
        const later = ['direct read', 'direct write', 'punch'];
        assert.deepEqual(await allGot(later), each(later, 'EIO'));
        const farewells = fake.ofType(Command.DISC).length;
        assert.ok(farewells > 0, 'the server is told goodbye');
        assert.equal(fake.asked.at(-1)?.type, Command.DISC, 'and nothing else afterwards');
        const { status, stderr } = await mounted.unmount('disk.raw');
        assert.equal(status, 7);
        assert.equal(said(stderr).length, 1, stderr);
        assert.match(
          stderr,
          /^tsnbdfuse: nbd\+unix:\S+: is shutting down; disk\.raw now gives I\/O errors: unmount it with: fusermount3 -u disk\.raw$/m,
        );
      });
    }

    it('is told of a captive one as well', async () => {
      const inject = place.join('inject');
      const kit = ['--filter=error', 'memory', '1M', 'error=ESHUTDOWN', 'error-rate=100%'];
      const source = ['[', 'nbdkit', ...kit, `error-file=${inject}`, ']'];
      const mounted = await place.mount(['disk.raw', ...source]);
      assert.equal(await got('direct read'), 'ok');
      await place.file('inject');
      assert.equal(await got('direct read'), errnoName(errno.ESHUTDOWN));
      await rm(inject);
      await until('it is told', () => said(mounted.running.stderr).length > 0);
      assert.equal(await got('direct read'), 'EIO');
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.equal(status, 7);
      assert.equal(said(stderr).length, 1, stderr);
      assert.match(
        stderr,
        /^tsnbdfuse: server nbdkit(: is shutting down| ended)\S*.*; disk\.raw now/m,
      );
    });
  });
});
