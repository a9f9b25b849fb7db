/** A mount whose server speaks with extended headers. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Command } from '../../src/nbd/constants.js';
import { exercise, prepare } from '../support/exerciser.js';
import { FakeServer } from '../support/fake-server.js';
import { seeded } from '../support/memory-disk.js';
import { Workplace } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const STEPS = 80;
const MIB = 1024 * 1024;
const GIB = 1n << 30n;
const TIB = 1n << 40n;

const NEEDED = { root: true, fuse: true, programs: ['fallocate', 'xfs_io', 'python3'] };

describe('a mount over extended headers', requires(NEEDED), () => {
  let place: Workplace;
  let server: FakeServer | undefined;

  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
  });
  afterEach(async () => {
    try {
      await place.nothingLeft();
    } finally {
      await place.remove();
      await server?.stop();
      server = undefined;
    }
  });

  it('zeroes 6 GiB, and finds data behind a TiB, with one request each', async () => {
    server = await FakeServer.start({ size: 4n * TIB, extendedHeaders: true });
    server.disk.write(5n * GIB, Buffer.alloc(4096, 'x'));
    server.disk.write(2n * TIB, Buffer.alloc(4096, 'y'));
    const mounted = await place.mount(['disk.raw', server.uri]);
    await place.ok('fallocate', ['-p', '-n', '-o', '4096', '-l', String(6n * GIB), 'disk.raw']);
    assert.deepEqual(
      server.ofType(Command.WRITE_ZEROES).map(({ offset, length }) => [offset, length]),
      [[4096n, 6n * GIB]],
    );
    const found = await place.ok('xfs_io', ['-r', '-c', 'seek -d 0', 'disk.raw']);
    assert.match(found, new RegExp(`^DATA\\s+${2n * TIB}$`, 'm'));
    // One for stat(2), which wants to know how much is allocated, and one for lseek(2).
    assert.deepEqual(
      server.ofType(Command.BLOCK_STATUS).map(({ offset, length }) => [offset, length]),
      [
        [0n, 4n * TIB],
        [0n, 4n * TIB],
      ],
    );
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
  });

  for (const [cache, seed] of [
    ['writeback', 1],
    ['none', 2],
  ] as const) {
    it(`is what a file is under random requests, with --cache=${cache}`, async () => {
      const size = 3 * MIB - 777;
      server = await FakeServer.start({
        size: BigInt(size),
        extendedHeaders: true,
        random: seeded(seed),
      });
      server.disk.write(0n, await prepare(place, size));
      const mounted = await place.mount([`--cache=${cache}`, 'disk.raw', server.uri]);
      await exercise(place, { seed, steps: STEPS, workers: 2 });
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.deepEqual([status, stderr], [0, '']);
    });
  }
});
