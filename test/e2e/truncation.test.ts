/** Programs that cut the file to nothing and skip what is to be zeroes, on a disk that held other data. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readFile, writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { Workplace } from '../support/mounts.js';
import type { Mounted } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const SIZE = 8 * 1024 * 1024;
const PIECE = 64 * 1024;

describe('cutting the file', requires({ root: true, fuse: true, programs: ['qemu-img'] }), () => {
  let place: Workplace;
  let mounted: Mounted;
  let sparse: Buffer;

  before(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    sparse = Buffer.alloc(SIZE);
    for (const at of [3, 17, 50, 127]) randomBytes(PIECE).copy(sparse, at * PIECE);
    const handle = await open(place.join('sparse.img'), 'w');
    for (const at of [3, 17, 50, 127]) {
      await handle.write(sparse, at * PIECE, PIECE, at * PIECE);
    }
    await handle.close();
    mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', String(SIZE), ']']);
  });

  after(async () => {
    try {
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
      await place.nothingLeft();
    } finally {
      await place.remove();
    }
  });

  /** Fills the disk with something else, which the page cache then holds as well. */
  async function soil(): Promise<Buffer> {
    const old = randomBytes(SIZE);
    await writeFile(place.join('old'), old);
    await place.ok('dd', ['if=old', 'of=disk.raw', 'bs=1M', 'conv=notrunc', 'status=none']);
    await place.ok('cmp', ['old', 'disk.raw']);
    return old;
  }

  const COPIES: readonly (readonly [string, ...string[]])[] = [
    ['cp', 'sparse.img', 'disk.raw'],
    ['cp', '--sparse=always', 'sparse.img', 'disk.raw'],
    ['cp', '-p', 'sparse.img', 'disk.raw'],
    ['dd', 'if=sparse.img', 'of=disk.raw', 'bs=64k', 'status=none'],
    ['dd', 'if=sparse.img', 'of=disk.raw', 'bs=64k', 'conv=sparse', 'status=none'],
    ['qemu-img', 'convert', '-O', 'raw', 'sparse.img', 'disk.raw'],
  ];
  for (const [program, ...args] of COPIES) {
    it(`${program} ${args.join(' ')} copies holes as zeroes`, async () => {
      await soil();
      await place.ok(program, args);
      // By another program: what the page cache still held must be gone.
      await place.ok('cmp', ['sparse.img', 'disk.raw']);
    });
  }

  it('leaves what lies behind a short write as it was', async () => {
    const old = await soil();
    await place.ok('dd', ['if=sparse.img', 'of=disk.raw', 'bs=512', 'count=1', 'status=none']);
    await place.ok('cp', ['disk.raw', 'now']);
    const now = await readFile(place.join('now'));
    assert.ok(now.subarray(0, 512).equals(sparse.subarray(0, 512)));
    assert.ok(now.subarray(512).equals(old.subarray(512)));
  });
});
