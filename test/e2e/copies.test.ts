/** Holes, sizes that are not round, and the tools that copy whole disks. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { Workplace } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const PROGRAMS = ['nbdkit', 'qemu-img', 'qemu-nbd', 'xfs_io', 'tar'];
const SIZE = 8 * 1024 * 1024;
const PIECE = 64 * 1024;
const DATA_AT = [0, 3, 4, 90];

describe('copies', requires({ root: true, fuse: true, programs: PROGRAMS }), () => {
  let place: Workplace;
  let sparse: Buffer;

  before(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    sparse = Buffer.alloc(SIZE);
    const handle = await open(place.join('sparse'), 'w');
    await handle.truncate(SIZE);
    for (const piece of DATA_AT) {
      randomBytes(PIECE).copy(sparse, piece * PIECE);
      await handle.write(sparse, piece * PIECE, PIECE, piece * PIECE);
    }
    await handle.close();
  });
  afterEach(() => place.nothingLeft());
  after(() => place.remove());

  /** What lseek(2) finds from an offset on, as `[whence, offset]`; -1 for ENXIO. */
  async function seek(from: number, ...flags: string[]): Promise<[string, number][]> {
    const command = `seek ${flags.join(' ')} ${from}`;
    const lines = (await place.ok('xfs_io', ['-r', '-c', command, 'disk.raw'])).split('\n');
    return lines.flatMap((line): [string, number][] => {
      const [, whence, offset] = /^(HOLE|DATA)\s+(\S+)$/.exec(line) ?? [];
      return whence === undefined ? [] : [[whence, offset === 'EOF' ? -1 : Number(offset)]];
    });
  }

  const allocated = async (name: string): Promise<number> =>
    (await stat(place.join(name))).blocks * 512;

  for (const server of [
    ['nbdkit', 'file', 'copy'],
    ['qemu-nbd', '-f', 'raw', 'copy'],
    ['tsnbdkit', 'file', 'copy'],
  ]) {
    it(`find the holes that ${server[0] ?? ''} tells of`, async () => {
      await place.ok('cp', ['--sparse=always', 'sparse', 'copy']);
      const mounted = await place.mount(['disk.raw', '[', ...server, ']']);
      assert.deepEqual(await seek(0, '-a', '-r'), [
        ['DATA', 0],
        ['HOLE', PIECE],
        ['DATA', 3 * PIECE],
        ['HOLE', 5 * PIECE],
        ['DATA', 90 * PIECE],
        ['HOLE', 91 * PIECE],
      ]);
      assert.deepEqual(await seek(91 * PIECE, '-d'), [['DATA', -1]]);
      assert.deepEqual(await seek(SIZE, '-h'), [['HOLE', -1]]);
      assert.deepEqual(await seek(SIZE + 5, '-d'), [['DATA', -1]]);

      await place.ok('cp', ['disk.raw', 'out']);
      await place.ok('cmp', ['sparse', 'out']);
      await place.ok('cp', ['--sparse=always', 'disk.raw', 'out']);
      await place.ok('cmp', ['sparse', 'out']);
      assert.ok((await allocated('out')) < SIZE / 4, 'the copy is sparse');
      await place.ok('tar', ['-Scf', 'disk.tar', 'disk.raw']);
      await place.ok('tar', ['-xf', 'disk.tar', '--transform=s/disk.raw/out/']);
      await place.ok('cmp', ['sparse', 'out']);
      await place.ok('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'out.qcow2']);
      await place.ok('qemu-img', ['compare', '-F', 'qcow2', '-f', 'raw', 'disk.raw', 'out.qcow2']);
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
    });
  }

  it('see no holes while somebody writes, nor where the server cannot tell', async () => {
    await place.ok('cp', ['--sparse=always', 'sparse', 'copy']);
    for (const [server, flag] of [
      [['nbdkit', 'file', 'copy'], '-x'],
      [['nbdkit', '--no-sr', 'file', 'copy'], '-r'],
    ] as const) {
      const mounted = await place.mount(['disk.raw', '[', ...server, ']']);
      const open = flag === '-r' ? ['-r'] : [];
      const found = await place.ok('xfs_io', [...open, '-c', 'seek -h 0', 'disk.raw']);
      assert.match(found, new RegExp(`HOLE\\s+${SIZE}`));
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
    }
  });

  it('made by qemu-img onto the disk are equal, also in the image', async () => {
    await place.ok('qemu-img', ['create', '-q', '-f', 'qcow2', 'copy.qcow2', String(SIZE)]);
    const server = ['qemu-nbd', '-f', 'qcow2', 'copy.qcow2'];
    const mounted = await place.mount(['disk.raw', '[', ...server, ']']);
    const onto = ['-n', '-f', 'raw', '-O', 'raw', 'sparse', 'disk.raw'];
    await place.ok('qemu-img', ['convert', ...onto]);
    await place.ok('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', 'sparse', 'disk.raw']);
    await place.ok('qemu-img', ['convert', '-t', 'none', '-T', 'none', ...onto]);
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
    await place.ok('qemu-img', ['check', '-q', '-f', 'qcow2', 'copy.qcow2']);
    await place.ok('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', 'sparse', 'copy.qcow2']);
  });

  for (const size of [1, 511, 513, 4095, 4097, 1048576 + 13]) {
    for (const cache of ['writeback', 'writethrough', 'none']) {
      it(`of a disk of ${size} bytes have just these, with --cache=${cache}`, async () => {
        const data = randomBytes(size);
        await writeFile(place.join('data'), data);
        await place.ok('truncate', ['-s', String(size), 'small']);
        const server = ['nbdkit', 'file', 'small'];
        const mounted = await place.mount([`--cache=${cache}`, 'disk.raw', '[', ...server, ']']);
        assert.equal(
          (await place.ok('stat', ['-c', '%F %s', 'disk.raw'])).trim(),
          `regular file ${size}`,
        );
        await place.ok('cp', ['data', 'disk.raw']);
        await place.ok('cp', ['disk.raw', 'out']);
        assert.ok((await readFile(place.join('out'))).equals(data));
        const more = await place.run('dd', [
          'if=/dev/zero',
          'of=disk.raw',
          'bs=1',
          'count=1',
          `seek=${size}`,
          'conv=notrunc,fsync',
        ]);
        assert.notEqual(more.status, 0);
        assert.match(more.stderr, /No space left on device/);
        assert.equal((await place.ok('stat', ['-c', '%s', 'disk.raw'])).trim(), String(size));
        const { status } = await mounted.unmount('disk.raw');
        assert.equal(status, 0);
        await place.ok('cmp', ['small', 'data']);
        assert.equal((await stat(place.join('small'))).size, size);
      });
    }
  }
});
