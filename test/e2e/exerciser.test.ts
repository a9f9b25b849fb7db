/**
 * Several programs at once on one mounted file: on ranges that overlap, which they lock, and on ranges that
 * lie beside each other in one page, or in one block of the server.
 */

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CACHES, exercise, prepare } from '../support/exerciser.js';
import { Workplace } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const ADJACENT = fileURLToPath(new URL('../support/e2e-adjacent.js', import.meta.url));
const SIZE = 4 * 1024 * 1024;
const ODD_SIZE = SIZE - 777;
const WORKERS = 3;
const STEPS = 60;

const blocks = (minimum: number, maximum: number): string[] => [
  'nbdkit',
  '--filter=blocksize-policy',
  'file',
  'image',
  `blocksize-minimum=${minimum}`,
  `blocksize-preferred=${Math.max(minimum, 4096)}`,
  `blocksize-maximum=${maximum}`,
  'blocksize-error-policy=error',
];

const SERVERS = [
  { name: 'nbdkit', server: ['nbdkit', 'file', 'image'], size: ODD_SIZE },
  { name: 'blocks of 512', server: blocks(512, 65536), size: SIZE },
  { name: 'blocks of 64 KiB', server: blocks(65536, 131072), size: SIZE },
  { name: 'tsnbdkit', server: ['tsnbdkit', 'file', 'image'], size: ODD_SIZE },
] as const;

const NEEDED = { root: true, fuse: true, programs: ['nbdkit', 'python3'] };

describe('several at once', requires(NEEDED), () => {
  let place: Workplace;

  before(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
  });
  afterEach(() => place.nothingLeft());
  after(() => place.remove());

  /** Mounts the image, unmounts it in any case, and finds no fault with either. */
  async function mounted(args: readonly string[], use: () => Promise<unknown>): Promise<void> {
    const mount = await place.mount(args);
    let ended;
    try {
      await use();
    } finally {
      ended = await mount.unmount('disk.raw');
    }
    assert.deepEqual([ended.status, ended.stderr], [0, '']);
    await place.ok('cmp', ['image', 'model']);
  }

  SERVERS.forEach(({ name, server, size }, seed) => {
    for (const cache of CACHES) {
      for (const grain of [4096, 1] as const) {
        it(`${name}, --cache=${cache}, ${grain === 1 ? 'bytes' : 'pages'}`, async () => {
          await prepare(place, size);
          await mounted([`--cache=${cache}`, 'disk.raw', '[', ...server, ']'], () =>
            exercise(place, { seed, steps: STEPS, workers: WORKERS, grain, cache }),
          );
        });
      }
    }
  });

  // Each of these writes is a read-modify-write of a block that a hundred others change as well.
  for (const connections of [1, 4]) {
    it(`lose no piece of a block, over ${connections} connections`, async () => {
      const [piece, pieces, programs] = [512, 512, 2];
      const data = await prepare(place, SIZE);
      const [program, ...rest] = blocks(65536, 131072);
      const delay = ['delay-read=2ms', 'delay-write=1ms'];
      const server = [program ?? '', '--filter=delay', ...rest, ...delay];
      const args = ['--cache=none', '-C', String(connections), 'disk.raw', '[', ...server, ']'];
      for (let i = 0; i < pieces; i++) data.fill(`${i};`, i * piece, (i + 1) * piece);
      await writeFile(place.join('model'), data);
      await mounted(args, () =>
        Promise.all(
          Array.from({ length: programs }, (_, first) =>
            place.ok(
              process.execPath,
              [ADJACENT, 'disk.raw', ...[piece, pieces, programs, first].map(String)],
              { env: { UV_THREADPOOL_SIZE: '16' } },
            ),
          ),
        ),
      );
    });
  }
});
