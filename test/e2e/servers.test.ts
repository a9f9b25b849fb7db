/**
 * Random requests on every kind of server, compared with a plain file while it is mounted, and with the
 * server's image afterwards.
 */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Workplace } from '../support/mounts.js';
import { startNbdServer, startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const DIFFERENTIAL = fileURLToPath(new URL('../support/e2e-differential.js', import.meta.url));
const STEPS = Number(process.env['TSNBDFUSE_STEPS'] ?? '150');

/** A multiple of 65536, which the largest blocks need. */
const SIZE = 4 * 1024 * 1024;
/** A multiple of nothing. */
const ODD_SIZE = SIZE - 777;

const blocks = (minimum: number, maximum: number): string[] => [
  `blocksize-minimum=${minimum}`,
  `blocksize-preferred=${Math.max(minimum, 4096)}`,
  `blocksize-maximum=${maximum}`,
  'blocksize-error-policy=error',
];

interface Row {
  readonly name: string;
  readonly server: readonly string[];
  readonly options?: readonly string[];
  readonly size?: number;
}

const kit = (name: string, filters: string[], rest: string[] = []): Row => ({
  name: `nbdkit with ${name}`,
  server: ['nbdkit', ...filters, 'file', 'image', ...rest],
});
const policy = '--filter=blocksize-policy';

const ROWS: readonly Row[] = [
  { ...kit('a size that is no multiple of a block', []), size: ODD_SIZE },
  kit('blocks of 512 and requests up to 64 KiB', [policy], blocks(512, 65536)),
  kit('blocks of 4096', [policy], blocks(4096, 1048576)),
  kit('blocks of 64 KiB', [policy], blocks(65536, 131072)),
  kit('blocks of 64 KiB that it cannot zero', ['--filter=nozero', policy], blocks(65536, 65536)),
  kit('zeroing that it emulates', ['--filter=nozero'], ['zeromode=emulate']),
  { ...kit('no zeroing', ['--filter=nozero']), size: ODD_SIZE, options: ['--cache=none'] },
  kit('no extents', ['--filter=noextents']),
  kit('no FUA', ['--filter=fua']),
  kit('simple replies', ['--no-sr']),
  kit('the newstyle handshake that is not fixed', ['--mask-handshake=0']),
  kit('one connection', ['--filter=multi-conn'], ['multi-conn-mode=disable']),
  kit('answers in any order', ['--filter=delay'], ['delay-read=1ms', 'delay-write=2ms']),
  { name: 'qemu-nbd', server: ['qemu-nbd', '-f', 'raw', 'image'] },
  {
    name: 'qemu-nbd that unmaps zeroes, for several clients',
    server: [
      'qemu-nbd',
      '--shared=8',
      '--discard=unmap',
      '--detect-zeroes=unmap',
      '-f',
      'raw',
      'image',
    ],
    options: ['--cache=writethrough'],
  },
  { name: 'tsnbdkit', server: ['tsnbdkit', 'file', 'image'], size: ODD_SIZE },
  {
    name: 'tsnbdkit past the page cache',
    server: ['tsnbdkit', 'file', 'image'],
    options: ['--cache=none'],
  },
];

const NEEDED = {
  root: true,
  fuse: true,
  programs: ['nbdkit', 'qemu-nbd', 'nbd-server', 'fallocate'],
};

describe('random requests', requires(NEEDED), () => {
  let place: Workplace;
  const running: RealServer[] = [];

  before(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
  });
  afterEach(async () => {
    for (const server of running.splice(0)) await server.stop();
    await place.nothingLeft();
  });
  after(() => place.remove());

  /** The same data on the disk and in the model, with stretches of zeroes that were never written. */
  async function prepare(size: number): Promise<void> {
    const data = Buffer.alloc(size);
    randomBytes(size / 4).copy(data, size / 8);
    await writeFile(place.join('model'), data);
    await place.ok('cp', ['--sparse=always', 'model', 'image']);
  }

  async function compare(args: readonly string[], seed: number): Promise<void> {
    const mounted = await place.mount(args);
    const run = [DIFFERENTIAL, 'disk.raw', 'model', String(seed), String(STEPS)];
    try {
      await place.ok(process.execPath, run);
    } catch (error) {
      await mounted.unmount('disk.raw');
      throw error;
    }
    const { status, stderr } = await mounted.unmount('disk.raw');
    assert.deepEqual([status, stderr], [0, '']);
    await place.ok('cmp', ['image', 'model']);
  }

  ROWS.forEach(({ name, server, options = [], size = SIZE }, seed) => {
    it(name, async () => {
      await prepare(size);
      await compare([...options, 'disk.raw', '[', ...server, ']'], seed);
    });
  });

  // nbdkit 1.32 says in this handshake that it can flush, and refuses to when it comes to that.
  it('nbdkit with the oldstyle handshake, read only', async () => {
    await prepare(ODD_SIZE);
    const server = await startNbdkit(['-o', 'file', place.join('image')]);
    running.push(server);
    for (const source of [
      ['[', 'nbdkit', '-o', 'file', 'image', ']'],
      [`nbd+unix:///?socket=${server.socketPath}`],
    ]) {
      const mounted = await place.mount(['-r', 'disk.raw', ...source]);
      await place.ok('cmp', ['disk.raw', 'model']);
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
    }
  });

  it('nbd-server by URI', async () => {
    await prepare(SIZE);
    const server = await startNbdServer({
      disk: { exportname: place.join('image'), flush: 'true', fua: 'true', trim: 'true' },
    });
    running.push(server);
    await compare(['disk.raw', `nbd+unix:///disk?socket=${server.socketPath}`], 102);
  });

  it('two mounts of one server do not get in each other’s way', async () => {
    await prepare(SIZE);
    await place.file('other.raw');
    await place.ok('cp', ['model', 'other-image']);
    const other = await place.mount(['other.raw', '[', 'nbdkit', 'file', 'other-image', ']']);
    await place.ok('cp', ['model', 'other.raw']);
    await compare(['disk.raw', '[', 'nbdkit', 'file', 'image', ']'], 103);
    assert.equal((await other.unmount('other.raw')).status, 0);
  });
});
