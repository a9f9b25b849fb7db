/** Disks of sizes that are hard to count with: as large as there can be, and not round. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { Workplace } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const PROGRAMS = ['python3', 'nbdkit', 'xfs_io', 'dd', 'tail', 'cmp'];
/** What is read and written at the end: more than a page, and not a multiple of one. */
const END = 5001n;

/** Reads, and prints how much there was, without a look at the size. */
const SPLICE = `
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print(os.splice(fd, os.pipe()[1], 4096, offset_src=0))
`;

describe('a disk of', requires({ root: true, fuse: true, programs: PROGRAMS }), () => {
  let place: Workplace;

  before(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    await mkdir(place.join('folder'));
  });
  afterEach(() => place.nothingLeft());
  after(() => place.remove());

  for (const options of [[], ['-r']]) {
    for (const cache of ['writeback', 'writethrough', 'none']) {
      it(`any size is known to who asks for none before a splice, ${['cache', cache, ...options].join(' ')}`, async () => {
        const server = ['[', 'tsnbdkit', 'memory', '1M', ']'];
        const mounted = await place.mount([...options, `--cache=${cache}`, 'disk.raw', ...server]);
        assert.equal(await place.ok('python3', ['-c', SPLICE, 'disk.raw']), '4096\n');
        assert.equal((await mounted.unmount('disk.raw')).status, 0);
      });
    }
  }

  for (const size of [2n ** 63n - 1n, 2n ** 63n - 512n, 2n ** 32n + 1n, 10_000_001n]) {
    for (const cache of ['writeback', 'writethrough', 'none']) {
      it(`${size} bytes works up to its end, with --cache=${cache}`, async () => {
        const server = ['nbdkit', 'memory', String(size)];
        const mounted = await place.mount([`--cache=${cache}`, 'disk.raw', '[', ...server, ']']);
        const stat = async (): Promise<bigint[]> =>
          (await place.ok('stat', ['-c', '%s %b', 'disk.raw'])).trim().split(' ').map(BigInt);
        const [bytes = 0n, blocks = 0n] = await stat();
        assert.equal(bytes, size);
        assert.ok(blocks > 0n && blocks <= (size + 511n) / 512n, `${blocks} blocks`);

        const end = String(END);
        const zeroes = await place.file('zeroes', Buffer.alloc(Number(END)));
        await place.ok('sh', ['-c', `tail -c ${end} disk.raw | cmp - ${zeroes}`]);
        const bytesAtEnd = randomBytes(Number(END));
        // A last byte of 0 is a hole to the server, and to those who seek from there.
        bytesAtEnd[Number(END) - 1] = 1;
        const data = await place.file('data', bytesAtEnd);
        const at = [`seek=${size - END}`, 'oflag=seek_bytes', `bs=${end}`, 'status=none'];
        await place.ok('dd', [`if=${data}`, 'of=disk.raw', ...at, 'conv=notrunc,fsync']);
        await place.ok('sh', ['-c', `tail -c ${end} disk.raw | cmp - ${data}`]);
        assert.equal((await stat())[0], size);

        const past = ['if=/dev/zero', 'of=disk.raw', 'bs=1', 'count=1', 'conv=notrunc,fsync'];
        const { status, stderr } = await place.run('dd', [...past, `seek=${size}`]);
        assert.notEqual(status, 0);
        assert.match(stderr, /No space left on device|Invalid argument|File too large/);
        assert.equal((await stat())[0], size);

        const last = String(size - 1n);
        const seek = async (flag: string, from: string): Promise<string> =>
          (await place.ok('xfs_io', ['-r', '-c', `seek ${flag} ${from}`, 'disk.raw'])).trim();
        assert.match(await seek('-d', last), new RegExp(`DATA\\s+${last}$`));
        assert.match(await seek('-h', last), new RegExp(`HOLE\\s+${size}$`));

        const tail = ['-p', '-o', String(size - END), '-l', String(END - 1n), 'disk.raw'];
        await place.ok('fallocate', tail);
        const left = await readFile(data);
        left.fill(0, 0, Number(END) - 1);
        await place.file('left', left);
        await place.ok('sh', ['-c', `tail -c ${end} disk.raw | cmp - left`]);
        assert.equal((await mounted.unmount('disk.raw')).status, 0);
      });
    }
  }

  for (const cache of ['writeback', 'writethrough', 'none']) {
    for (const mountpoint of ['disk.raw', 'folder']) {
      it(`no bytes is an empty ${mountpoint}, with --cache=${cache}`, async () => {
        await place.file('disk.raw', 'what is mounted over');
        const file = mountpoint === 'folder' ? 'folder/nbd' : mountpoint;
        const server = ['nbdkit', 'memory', '0'];
        const mounted = await place.mount([`--cache=${cache}`, mountpoint, '[', ...server, ']']);
        const stat = (): Promise<string> => place.ok('stat', ['-c', '%s %b', file]);
        assert.equal(await stat(), '0 0\n');
        assert.equal(await place.ok('cat', [file]), '');
        await place.ok('cp', ['/dev/null', file]);
        await place.ok('sync', [file]);
        const past = ['if=/dev/zero', `of=${file}`, 'bs=1', 'count=1', 'conv=fsync'];
        assert.match((await place.run('dd', past)).stderr, /No space left on device/);
        const seek = await place.ok('xfs_io', ['-r', '-c', 'seek -d 0', file]);
        assert.match(seek, /DATA\s+EOF/);
        assert.equal(await stat(), '0 0\n');
        const { status, stderr } = await mounted.unmount(mountpoint);
        assert.deepEqual([status, stderr], [0, '']);
      });
    }
  }
});
