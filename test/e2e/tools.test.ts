/** What ordinary tools get from the file, in each cache mode. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { Workplace } from '../support/mounts.js';
import type { Mounted } from '../support/mounts.js';
import { requires } from '../support/requires.js';

/** Neither a multiple of 4096 nor of 512. */
const SIZE = 16 * 1024 * 1024 + 1000;

for (const cache of ['writeback', 'writethrough', 'none']) {
  describe(
    `the file with --cache=${cache}`,
    requires({ root: true, fuse: true, programs: ['nbdkit', 'fio', 'tar'] }),
    () => {
      let place: Workplace;
      let mounted: Mounted;

      before(async () => {
        place = await Workplace.create();
        await place.file('disk.raw');
        const server = ['nbdkit', '--filter=noextents', 'memory', String(SIZE)];
        mounted = await place.mount([`--cache=${cache}`, 'disk.raw', '[', ...server, ']']);
      });
      after(async () => {
        try {
          assert.equal((await mounted.unmount('disk.raw')).status, 0);
          await place.nothingLeft();
        } finally {
          await place.remove();
        }
      });

      const stat = async (format: string): Promise<string> =>
        (await place.ok('stat', ['-c', format, 'disk.raw'])).trim();

      it('is a regular file of the size of the disk, with blocks', async () => {
        assert.equal(await stat('%F %s'), `regular file ${SIZE}`);
        assert.ok(Number(await stat('%b')) > 0);
      });

      it('keeps what is written, byte for byte', async () => {
        const data = randomBytes(SIZE);
        await writeFile(place.join('data'), data);
        for (const copy of [
          ['cp', 'data', 'disk.raw'],
          ['cp', '-p', 'data', 'disk.raw'],
          ['dd', 'if=data', 'of=disk.raw', 'bs=1M', 'conv=notrunc', 'status=none'],
          ['dd', 'if=data', 'of=disk.raw', 'bs=333', 'status=none'],
        ]) {
          await place.ok('dd', [
            'if=/dev/zero',
            'of=disk.raw',
            'bs=1000',
            'count=10',
            'seek=999',
            'conv=notrunc',
          ]);
          await place.ok(copy[0] ?? '', copy.slice(1));
          await place.ok('cmp', ['data', 'disk.raw']);
          assert.equal(await stat('%s'), String(SIZE));
        }
        await place.ok('tar', ['-Scf', 'disk.tar', 'disk.raw']);
        await place.ok('tar', ['-xf', 'disk.tar', '--transform=s/disk.raw/untarred/']);
        await place.ok('cmp', ['data', 'untarred']);
      });

      it('reads nothing past the end', async () => {
        const args = [
          'if=disk.raw',
          'bs=512',
          `skip=${SIZE + 5}`,
          'iflag=skip_bytes',
          'status=none',
        ];
        assert.equal(await place.ok('dd', args), '');
        assert.equal((await place.ok('tail', ['-c', '5', 'disk.raw'], {})).length > 0, true);
      });

      it('has no room past the end, and keeps its size', async () => {
        const dd = await place.run('dd', ['if=/dev/zero', 'of=disk.raw', 'bs=64k']);
        assert.notEqual(dd.status, 0);
        assert.match(dd.stderr, /No space left on device/);
        assert.equal(await stat('%s'), String(SIZE));
        // Its error is not the next one's.
        await place.ok('dd', [
          'if=/dev/zero',
          'of=disk.raw',
          'bs=512',
          'count=1',
          'conv=notrunc,fsync',
        ]);
      });

      it('can be truncated to its size and to nothing only, and stays as it is', async () => {
        await place.ok('truncate', ['-s', String(SIZE), 'disk.raw']);
        await place.ok('truncate', ['-s', '0', 'disk.raw']);
        assert.equal(await stat('%s'), String(SIZE));
        assert.match(
          (await place.run('truncate', ['-s', '4096', 'disk.raw'])).stderr,
          /Invalid argument/,
        );
        assert.match(
          (await place.run('truncate', ['-s', '+1', 'disk.raw'])).stderr,
          /Invalid argument/,
        );
      });

      it('takes mode, owner and times', async () => {
        await place.ok('chmod', ['640', 'disk.raw']);
        await place.ok('chown', ['12:34', 'disk.raw']);
        await place.ok('touch', ['-d', '2001-02-03 04:05:06 UTC', 'disk.raw']);
        assert.equal(await stat('%a %u %g %Y'), '640 12 34 981173106');
      });

      it('punches holes and zeroes ranges', async () => {
        const model = randomBytes(SIZE);
        await writeFile(place.join('model'), model);
        await place.ok('dd', ['if=model', 'of=disk.raw', 'bs=1M', 'conv=notrunc', 'status=none']);
        for (const [flag, offset, length] of [
          ['-p', 5000, 100_000],
          ['-z', 300_000, 12_345],
          ['-p', 4096 * 700, 4096 * 3],
        ] as const) {
          const range = [flag, '-n', '-o', String(offset), '-l', String(length)];
          await place.ok('fallocate', [...range, 'disk.raw']);
          model.fill(0, offset, offset + length);
        }
        await place.ok('cp', ['disk.raw', 'now']);
        assert.ok((await readFile(place.join('now'))).equals(model));
        assert.notEqual(
          (await place.run('fallocate', ['-o', '0', '-l', '4096', 'disk.raw'])).status,
          0,
        );
      });

      for (const engine of [
        ['psync', '--fsync=16'],
        ['libaio', '--direct=1', '--iodepth=16'],
        ['mmap'],
        ['io_uring', '--iodepth=8'],
      ]) {
        it(`is right under fio with ${engine.join(' ')}`, async () => {
          const args = [
            '--name=verify',
            '--filename=disk.raw',
            `--size=${16 * 1024 * 1024}`,
            '--rw=randrw',
            '--bsrange=512-64k',
            '--bs_unaligned=0',
            '--verify=crc32c',
            '--verify_fatal=1',
            '--randseed=7',
            `--ioengine=${engine[0] ?? ''}`,
            ...engine.slice(1),
          ];
          await place.ok('fio', args);
        });
      }
    },
  );
}
