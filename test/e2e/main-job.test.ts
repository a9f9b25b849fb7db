/** The main job: a disk image that ordinary tools partition and format through the file. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Workplace } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const PROGRAMS = ['qemu-img', 'qemu-nbd', 'nbdkit', 'sgdisk', 'mkfs.ext4', 'debugfs', 'e2fsck'];
const OFFSET = 1048576;
const AT = `disk.raw?offset=${OFFSET}`;

describe('the main job', requires({ root: true, fuse: true, programs: PROGRAMS }), () => {
  let place: Workplace;

  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
  });
  afterEach(async () => {
    try {
      await place.nothingLeft();
    } finally {
      await place.remove();
    }
  });

  const SERVERS: readonly { name: string; make: string[]; server: string[]; check?: string[] }[] = [
    {
      name: 'qemu-nbd with qcow2',
      make: ['qemu-img', 'create', '-q', '-f', 'qcow2', 'image', '256M'],
      server: ['qemu-nbd', '-f', 'qcow2', 'image'],
      check: ['qemu-img', 'check', '-f', 'qcow2', 'image'],
    },
    {
      name: 'qemu-nbd with a raw image and several clients',
      make: ['truncate', '-s', '256M', 'image'],
      server: ['qemu-nbd', '--shared=4', '-f', 'raw', 'image'],
    },
    {
      name: 'nbdkit file',
      make: ['truncate', '-s', '256M', 'image'],
      server: ['nbdkit', 'file', 'image'],
    },
    {
      name: 'nbdkit that zeroes nothing and wants whole blocks of 4096',
      make: ['truncate', '-s', '256M', 'image'],
      server: [
        'nbdkit',
        '--filter=nozero',
        '--filter=blocksize-policy',
        'file',
        'image',
        'blocksize-minimum=4096',
        'blocksize-preferred=4096',
        'blocksize-maximum=64K',
        'blocksize-error-policy=error',
      ],
    },
    {
      name: 'tsnbdkit file',
      make: ['truncate', '-s', '256M', 'image'],
      server: ['tsnbdkit', 'file', 'image'],
    },
  ];
  for (const { name, make, server, check } of SERVERS) {
    it(`works with ${name}`, async () => {
      const [maker = '', ...makerArgs] = make;
      await place.ok(maker, makerArgs);
      await mkdir(place.join('tree'));
      const data = randomBytes(3_000_001);
      await writeFile(place.join('tree/random.bin'), data);

      const mounted = await place.mount(['disk.raw', '[', ...server, ']']);
      await place.ok('sgdisk', ['-n', '1', '-t', '1:8300', 'disk.raw']);
      const format = ['-q', '-d', 'tree', '-E', `offset=${OFFSET}`, 'disk.raw', '250M'];
      await place.ok('mkfs.ext4', format);
      const ended = await mounted.unmount('disk.raw');
      assert.deepEqual([ended.status, ended.stderr.includes('tsnbdfuse:')], [0, false]);
      if (check !== undefined) await place.ok(check[0] ?? '', check.slice(1));

      const again = await place.mount(['-r', 'disk.raw', '[', ...server, ']']);
      assert.match(await place.ok('sgdisk', ['-v', 'disk.raw']), /No problems found/);
      await place.ok('e2fsck', ['-fn', AT]);
      await place.ok('debugfs', ['-R', 'dump /random.bin copy.bin', AT]);
      assert.ok((await readFile(place.join('copy.bin'))).equals(data));
      assert.equal((await again.unmount('disk.raw')).status, 0);
    });
  }

  it(
    'formats the whole disk with xfs and vfat',
    requires({ programs: ['mkfs.xfs', 'mkfs.vfat', 'xfs_repair', 'fsck.vfat'] }),
    async () => {
      const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '512M', ']']);
      await place.ok('mkfs.xfs', ['-q', '-f', 'disk.raw']);
      await place.ok('xfs_repair', ['-n', '-f', 'disk.raw']);
      await place.ok('mkfs.vfat', ['disk.raw']);
      await place.ok('fsck.vfat', ['-n', 'disk.raw']);
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
    },
  );

  it('leaves nothing behind after many mounts', async () => {
    const cycles = Number(process.env['TSNBDFUSE_CYCLES'] ?? '25');
    for (let i = 0; i < cycles; i++) {
      const server = i % 2 === 0 ? ['nbdkit', 'memory', '1M'] : ['tsnbdkit', 'memory', '1M'];
      const mounted = await place.mount(['disk.raw', '[', ...server, ']']);
      await place.ok('dd', ['if=/dev/zero', 'of=disk.raw', 'bs=4096', 'count=1', 'conv=notrunc']);
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
      await place.nothingLeft();
    }
  });
});
