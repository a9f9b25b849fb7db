/**
 * Random requests on every kind of server, compared with a plain file while it is mounted, and with the
 * server's image afterwards.
 */

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { cacheFor, exercise, prepare } from '../support/exerciser.js';
import { Workplace } from '../support/mounts.js';
import { startNbdServer, startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const STEPS = 120;
/** For a server that starts a program for each request. */
const FEW_STEPS = 30;

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
  readonly steps?: number;
  /** The image is `image.qcow2`. */
  readonly qcow2?: true;
  readonly readOnly?: true;
  /** What the command warns of. */
  readonly warning?: RegExp;
}

const kit = (name: string, filters: string[], rest: string[] = []): Row => ({
  name: `nbdkit with ${name}`,
  server: ['nbdkit', ...filters, 'file', 'image', ...rest],
});
/** A server that can do no more than read, write, and what is said. */
const bare = (...more: string[]): readonly string[] => [
  'nbdkit',
  'eval',
  'get_size=stat -L -c %s image',
  'pread=dd if=image skip=$4 count=$3 iflag=count_bytes,skip_bytes',
  'pwrite=dd of=image seek=$4 conv=notrunc oflag=seek_bytes',
  ...more,
];
const policy = '--filter=blocksize-policy';

const ROWS: readonly Row[] = [
  { ...kit('a size that is no multiple of a block', []), size: ODD_SIZE },
  kit('blocks of 512 and requests up to 64 KiB', [policy], blocks(512, 65536)),
  kit('requests up to 4096', [policy], blocks(512, 4096)),
  kit('blocks of 4096', [policy], blocks(4096, 1048576)),
  kit('blocks of 64 KiB', [policy], blocks(65536, 131072)),
  kit('blocks of 64 KiB that it cannot zero', ['--filter=nozero', policy], blocks(65536, 65536)),
  kit('zeroing that it emulates', ['--filter=nozero'], ['zeromode=emulate']),
  { ...kit('no zeroing', ['--filter=nozero']), size: ODD_SIZE },
  kit('no extents', ['--filter=noextents']),
  kit('no FUA', ['--filter=fua']),
  kit('simple replies', ['--no-sr']),
  kit('the newstyle handshake that is not fixed', ['--mask-handshake=0']),
  kit('one connection', ['--filter=multi-conn'], ['multi-conn-mode=disable']),
  kit('one request at a time', ['--filter=noparallel']),
  {
    name: 'nbdkit without flush, FUA, zeroing and extents',
    server: bare(),
    steps: FEW_STEPS,
    warning: /can neither flush nor write through/,
  },
  {
    name: 'nbdkit with FUA and without flush',
    server: bare('can_fua=echo native'),
    steps: FEW_STEPS,
  },
  { ...kit('a disk that cannot be written', ['-r']), size: ODD_SIZE, readOnly: true },
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
  },
  { name: 'qemu-nbd with qcow2', server: ['qemu-nbd', '-f', 'qcow2', 'image.qcow2'], qcow2: true },
  {
    name: 'qemu-nbd with qcow2, one connection',
    server: ['qemu-nbd', '--discard=unmap', '-f', 'qcow2', 'image.qcow2'],
    options: ['-C', '1'],
    qcow2: true,
  },
  { name: 'tsnbdkit', server: ['tsnbdkit', 'file', 'image'], size: ODD_SIZE },
  { name: 'tsnbdkit with a size that is round', server: ['tsnbdkit', 'file', 'image'] },
];

const NEEDED = {
  root: true,
  fuse: true,
  programs: ['nbdkit', 'qemu-nbd', 'qemu-img', 'nbd-server', 'python3'],
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

  async function compare(args: readonly string[], seed: number, row: Partial<Row>): Promise<void> {
    const { steps = STEPS, readOnly = false, qcow2 = false, warning = /^$/ } = row;
    const mounted = await place.mount(args);
    let ended;
    try {
      await exercise(place, { seed, steps, readOnly });
    } finally {
      ended = await mounted.unmount('disk.raw');
    }
    assert.equal(ended.status, 0);
    assert.match(ended.stderr, warning);
    if (qcow2) {
      await place.ok('qemu-img', ['check', '-q', 'image.qcow2']);
      const formats = ['-f', 'raw', '-F', 'qcow2'];
      await place.ok('qemu-img', ['compare', '-q', ...formats, 'model', 'image.qcow2']);
    } else {
      await place.ok('cmp', ['image', 'model']);
    }
  }

  ROWS.forEach((row, seed) => {
    const { name, server, options = [], size = SIZE } = row;
    const cache = cacheFor(seed);
    it(`${name}, with --cache=${cache}`, async () => {
      await prepare(place, size);
      const convert = ['convert', '-f', 'raw', '-O', 'qcow2', 'image', 'image.qcow2'];
      if (row.qcow2 === true) await place.ok('qemu-img', convert);
      const args = [`--cache=${cache}`, ...options, 'disk.raw', '[', ...server, ']'];
      await compare(args, seed, row);
    });
  });

  // nbdkit 1.32 says in this handshake that it can flush, and refuses to when it comes to that.
  it('nbdkit with the oldstyle handshake, read only', async () => {
    await prepare(place, ODD_SIZE);
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
    await prepare(place, SIZE);
    const server = await startNbdServer({
      disk: { exportname: place.join('image'), flush: 'true', fua: 'true', trim: 'true' },
    });
    running.push(server);
    await compare(['disk.raw', `nbd+unix:///disk?socket=${server.socketPath}`], 102, {});
  });

  it('two mounts of one server do not get in each other’s way', async () => {
    await prepare(place, SIZE);
    await place.file('other.raw');
    await place.ok('cp', ['model', 'other-image']);
    const other = await place.mount(['other.raw', '[', 'nbdkit', 'file', 'other-image', ']']);
    await place.ok('cp', ['model', 'other.raw']);
    await compare(['disk.raw', '[', 'nbdkit', 'file', 'image', ']'], 103, {});
    assert.equal((await other.unmount('other.raw')).status, 0);
  });
});
