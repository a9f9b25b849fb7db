/** The partitions of a disk as files, in a directory or in the place of the disk. */

import assert from 'node:assert/strict';
import { chmod, chown, cp, mkdir, readFile, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const NOBODY = 65534;
const MIB = 1024 * 1024;
const MEMORY = ['[', 'tsnbdkit', 'memory', '256M', ']'];
/** Files to put into a file system: those of the compiled tests. */
const TREE = dirname(fileURLToPath(import.meta.url));

/** Reads through descriptors that stay open while others write; see what each step prints. */
const COHERENCE = `
import os, sys
disk = os.open('dir/disk', os.O_RDWR); part = os.open('dir/disk1', os.O_RDWR)
at = 2048 * 512
def show(what, fd, offset): print(what, os.pread(fd, 5, offset).decode())
os.pwrite(disk, b'zero.', at); os.fsync(disk)
show('disk', disk, at); show('part', part, 0)
os.pwrite(part, b'first', 0); os.fsync(part); show('disk', disk, at)
os.pwrite(disk, b'secnd', at); os.fsync(disk); show('part', part, 0)
again = os.open('dir/disk1', os.O_RDWR)
os.pwrite(again, b'third', 0); os.close(again); show('disk', disk, at)
show('new', os.open('dir/disk', os.O_RDONLY), at)
`;

/** A partition that the table drops and has again, while it is open. */
const DROPPED = `
import os, subprocess
disk = os.open('dir/disk', os.O_RDWR); part = os.open('dir/disk1', os.O_RDWR)
at = 2048 * 512
def show(what, fd, offset): print(what, os.pread(fd, 5, offset).decode())
def table(*args): subprocess.run(['sgdisk', *args, 'dir/disk'], check=True, stdout=subprocess.DEVNULL)
os.pwrite(disk, b'zero.', at); os.fsync(disk)
show('disk', disk, at); show('part', part, 0)
table('-d', '1')
os.pwrite(part, b'first', 0); os.fsync(part); show('disk', disk, at)
table('-n', '1:2048:+1M'); again = os.open('dir/disk1', os.O_RDWR)
show('again', again, 0)
os.pwrite(again, b'secnd', 0); os.fsync(again); show('part', part, 0); show('disk', disk, at)
os.pwrite(part, b'third', 0); os.fsync(part); show('again', again, 0)
`;

/** What is written to a partition while the disk is cut, and the other way. */
const CUT = `
import os
P = 4096; at = 2048 * 512
def fill(): fd = os.open('dir/disk1', os.O_WRONLY); os.pwrite(fd, b'old.' * 16 * P, 0); os.close(fd)
def show(fd, *offsets): print(*[os.pread(fd, 4, at + n * P).decode() for n in offsets])
def put(fd, text, offset): os.pwrite(fd, text * (P // 4), offset); os.fsync(fd)
fill(); part = os.open('dir/disk1', os.O_RDWR)
# No table is left by this, and part goes on.
cut = os.open('dir/disk', os.O_RDWR | os.O_TRUNC)
put(part, b'part', 3 * P)
os.pwrite(cut, b'disk' * (P // 4), at + 5 * P); os.close(cut)
show(os.open('dir/disk', os.O_RDONLY), 3, 5, 6)
disk = os.open('dir/disk', os.O_RDWR)
os.ftruncate(part, 0); put(disk, b'disk', at + 7 * P)
os.pwrite(part, b'part' * (P // 4), 9 * P); os.close(part)
show(os.open('dir/disk', os.O_RDONLY), 7, 9, 10)
`;

/** Has two partitions open and written, the first of which is deleted, with what is written in the page cache. */
const HOLD_GONE = `
import mmap, os, subprocess, time
gone, whole = (os.open(f'dir/disk{n}', os.O_RDWR) for n in (1, 2))
pages = mmap.mmap(gone, 8192)
subprocess.run(['sgdisk', '-d', '1', 'dir/disk'], check=True, stdout=subprocess.DEVNULL)
assert not os.path.exists('dir/disk1')
pages[4096:8192] = b'g' * 4096
os.pwrite(whole, b'w' * 4096, 4096)
print('written', flush=True)
time.sleep(1000)
`;

describe(
  'partitions',
  requires({
    root: true,
    fuse: true,
    loop: true,
    programs: [
      'sgdisk',
      'sfdisk',
      'mkfs.vfat',
      'mkfs.ext4',
      'qemu-nbd',
      'qemu-img',
      'setpriv',
      'python3',
    ],
  }),
  () => {
    let place: Workplace;
    beforeEach(async () => {
      place = await Workplace.create();
      await mkdir(place.join('dir'));
      await place.file('disk.raw');
    });
    afterEach(async () => {
      try {
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    const listed = async (): Promise<string[]> =>
      (await place.ok('ls', ['-1', 'dir'])).trim().split('\n');
    const unmounts = async (mounted: Mounted, mountpoint: string): Promise<void> => {
      const { status, stderr } = await mounted.unmount(mountpoint);
      assert.equal(stderr, '');
      assert.equal(status, 0);
    };

    for (const cache of ['writeback', 'writethrough', 'none']) {
      it(`are made, formatted and checked without a loop device, cache ${cache}`, async () => {
        await place.ok('qemu-img', ['create', '-q', '-f', 'qcow2', 'disk.qcow2', '256M']);
        const server = ['[', 'qemu-nbd', '-f', 'qcow2', 'disk.qcow2', ']'];
        const mounted = await place.mount([
          `--cache=${cache}`,
          '--partitions',
          'dir/disk',
          ...server,
        ]);
        assert.deepEqual(await listed(), ['disk']);
        await place.ok('sgdisk', ['-n', '1:0:+50M', '-n', '2', 'dir/disk']);
        assert.deepEqual(await listed(), ['disk', 'disk1', 'disk2']);
        await place.ok('mkfs.vfat', ['dir/disk1']);
        await place.ok('mkfs.ext4', ['-q', '-d', TREE, 'dir/disk2']);
        await place.ok('fsck.vfat', ['-n', 'dir/disk1']);
        await place.ok('e2fsck', ['-fn', 'dir/disk2']);
        // The same through the file of the whole disk.
        const start = 2048 * 512 + 50 * MIB;
        await place.ok('e2fsck', ['-fn', `dir/disk?offset=${start}`]);
        await place.ok('sgdisk', ['-v', 'dir/disk']);
        await unmounts(mounted, 'dir');
        await place.ok('qemu-img', ['check', '-q', 'disk.qcow2']);

        // What was made there stays, and each can be shown alone.
        const second = await place.mount(['--partition', '2', '-r', 'disk.raw', ...server]);
        await place.ok('e2fsck', ['-fn', 'disk.raw']);
        await place.ok('debugfs', ['-R', `dump /partitions.test.js copy`, 'disk.raw']);
        await place.ok('cmp', ['copy', fileURLToPath(import.meta.url)]);
        await unmounts(second, 'disk.raw');
      });
    }

    it('follow each change of the table, whatever makes it', async () => {
      const mounted = await place.mount(['--partitions', 'dir/disk', ...MEMORY]);
      const sfdisk = (input: string): Promise<string> =>
        place.ok('sfdisk', ['-q', '--no-tell-kernel', '--wipe=always', 'dir/disk'], { input });
      await sfdisk('label: dos\n2048,1000\n4096,50000,E\n,1000\n5000,100\n6000,100\n');
      assert.deepEqual(await listed(), ['disk', 'disk1', 'disk3', 'disk5', 'disk6']);
      const sizes = await place.ok('stat', ['-c', '%s', 'dir/disk1', 'dir/disk5', 'dir/disk6']);
      assert.equal(sizes, '512000\n51200\n51200\n');
      await sfdisk('label: gpt\n2048,1000\n');
      assert.deepEqual(await listed(), ['disk', 'disk1']);
      await place.ok('sgdisk', ['-n', '9:0:+1M', 'dir/disk']);
      assert.deepEqual(await listed(), ['disk', 'disk1', 'disk9']);
      await place.ok('sgdisk', ['-d', '1', 'dir/disk']);
      assert.deepEqual(await listed(), ['disk', 'disk9']);
      await place.ok('dd', ['if=/dev/zero', 'of=dir/disk', 'bs=1M', 'count=1', 'conv=notrunc']);
      // The backup of a GPT is found no more without its protective MBR.
      assert.deepEqual(await listed(), ['disk']);
      await unmounts(mounted, 'dir');
    });

    it('of sectors of 4096 bytes are found', async () => {
      await place.ok('truncate', ['-s', '64M', 'image']);
      const loop = (
        await place.ok('losetup', ['--show', '-f', '-b', '4096', place.join('image')])
      ).trim();
      try {
        await place.ok('sgdisk', ['-n', '1:0:+8M', '-n', '2', loop]);
      } finally {
        await place.ok('losetup', ['-d', loop]);
      }
      const server = ['[', 'tsnbdkit', 'file', 'image', ']'];
      const mounted = await place.mount(['--partitions', 'dir/disk', ...server]);
      assert.deepEqual(await listed(), ['disk', 'disk1', 'disk2']);
      assert.equal(await place.ok('stat', ['-c', '%s', 'dir/disk1']), `${8 * MIB}\n`);
      await unmounts(mounted, 'dir');
    });

    for (const cache of ['writeback', 'writethrough', 'none']) {
      it(`show what was synced or closed through the disk, and the other way, cache ${cache}`, async () => {
        const mounted = await place.mount([
          `--cache=${cache}`,
          '--partitions',
          'dir/disk',
          ...MEMORY,
        ]);
        await place.ok('sgdisk', ['-n', '1:2048:+1M', 'dir/disk']);
        assert.equal(
          await place.ok('python3', ['-c', COHERENCE]),
          'disk zero.\npart zero.\ndisk first\npart secnd\ndisk third\nnew third\n',
        );
        await unmounts(mounted, 'dir');
      });
    }

    it('go on for those who have one open that is gone', async () => {
      const mounted = await place.mount(['--partitions', 'dir/disk', ...MEMORY]);
      await place.ok('sgdisk', ['-n', '1:2048:+1M', 'dir/disk']);
      const script = `exec 3<>dir/disk1; sgdisk -d 1 dir/disk >out; echo late >&3; exec 3>&-
        [ ! -e dir/disk1 ] && head -c 4 /proc/self/fd/4 4<dir/disk >out
        dd if=dir/disk bs=512 skip=2048 count=1 status=none | head -c 4`;
      assert.equal(await place.ok('sh', ['-c', script]), 'late');
      await unmounts(mounted, 'dir');
    });

    it('are saved by a second signal, also one that is gone and open', async () => {
      await place.ok('truncate', ['-s', '8M', 'image']);
      await place.ok('sgdisk', ['-n', '1:2048:+1M', '-n', '2:6144:+1M', 'image']);
      const server = ['[', 'tsnbdkit', 'file', 'image', ']'];
      const mounted = await place.mount(['--partitions', 'dir/disk', ...server]);
      const holder = place.start('python3', ['-c', HOLD_GONE]);
      await until('it is written', () => holder.stdout.includes('written'));
      mounted.signal('SIGTERM');
      await until('it is busy', () => mounted.running.stderr.includes('is busy'));
      mounted.signal('SIGTERM');
      const { status, stderr } = await mounted.running.ended;
      assert.match(stderr, /detached while it was open; what was written so far is on the disk\n$/);
      assert.equal(status, 0);
      process.kill(holder.pid, 'SIGKILL');
      await holder.ended;
      const image = await readFile(place.join('image'));
      for (const [sector, letter] of [
        [2048, 'g'],
        [6144, 'w'],
      ] as const) {
        const page = image.subarray(sector * 512 + 4096, sector * 512 + 8192);
        assert.ok(page.equals(Buffer.alloc(4096, letter)), `the page of ${letter}`);
      }
    });

    for (const cache of ['writeback', 'writethrough', 'none']) {
      it(`show what is written to one that is gone, cache ${cache}`, async () => {
        const args = [`--cache=${cache}`, '--partitions', 'dir/disk', ...MEMORY];
        const mounted = await place.mount(args);
        await place.ok('sgdisk', ['-n', '1:2048:+1M', 'dir/disk']);
        assert.equal(
          await place.ok('python3', ['-c', DROPPED]),
          'disk zero.\npart zero.\ndisk first\nagain first\npart secnd\ndisk secnd\nagain third\n',
        );
        await unmounts(mounted, 'dir');
      });

      it(`keep what was written to another file while one is cut, cache ${cache}`, async () => {
        const args = [`--cache=${cache}`, '--partitions', 'dir/disk', ...MEMORY];
        const mounted = await place.mount(args);
        await place.ok('sgdisk', ['-n', '1:2048:+1M', 'dir/disk']);
        assert.equal(await place.ok('python3', ['-c', CUT]), 'part disk old.\ndisk part old.\n');
        await unmounts(mounted, 'dir');
      });
    }

    it('cannot be written on a read-only disk', async () => {
      await place.ok('truncate', ['-s', '64M', 'image']);
      await place.ok('sgdisk', ['-n', '1', 'image']);
      const server = ['[', 'tsnbdkit', 'file', 'image', ']'];
      const mounted = await place.mount(['-r', '--partitions', 'dir/disk', ...server]);
      assert.deepEqual(await listed(), ['disk', 'disk1']);
      const result = await place.run('sh', ['-c', ': >>dir/disk1']);
      assert.match(result.stderr, /Read-only file system/);
      await unmounts(mounted, 'dir');
    });

    it('cannot be written past their end', async () => {
      const mounted = await place.mount(['--cache=none', '--partitions', 'dir/disk', ...MEMORY]);
      await place.ok('sgdisk', ['-n', '1:2048:+1M', '-n', '2:4096:+1M', 'dir/disk']);
      await place.ok('dd', ['if=/dev/urandom', 'of=dir/disk2', 'bs=1M', 'count=1', 'status=none']);
      await cp(place.join('dir/disk2'), place.join('before'));
      const result = await place.run('dd', ['if=/dev/zero', 'of=dir/disk1', 'bs=64k', 'count=20']);
      assert.match(result.stderr, /No space left on device/);
      await place.ok('cmp', ['before', 'dir/disk2']);
      await unmounts(mounted, 'dir');
    });

    describe('shown alone', () => {
      beforeEach(async () => {
        await place.ok('truncate', ['-s', '8M', 'image']);
        await place.ok('sgdisk', ['-n', '1:2048:+1M', '-n', '3:6144:+1M', 'image']);
      });
      const server = ['[', 'tsnbdkit', 'file', 'image', ']'];
      const content = async (): Promise<void> => {
        await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', 'count=1', 'status=none']);
      };

      for (const [mountpoint, file, unmount] of [
        ['disk.raw', 'disk.raw', 'disk.raw'],
        ['dir', 'dir/nbd', 'dir'],
        ['dir/part', 'dir/part', 'dir'],
      ] as const) {
        it(`a partition is ${file} on ${mountpoint}`, async () => {
          await content();
          const mounted = await place.mount(['--partition', '3', mountpoint, ...server]);
          assert.equal(await place.ok('stat', ['-c', '%s', file]), `${MIB}\n`);
          await place.ok('dd', ['if=data', `of=${file}`, 'bs=64k', 'status=none']);
          await unmounts(mounted, unmount);
          const at = 6144 * 512;
          await place.ok('cmp', ['-i', `0:${at}`, '-n', String(MIB), 'data', 'image']);
          await place.ok('sgdisk', ['-v', 'image']);
        });

        it(`a range is ${file} on ${mountpoint}`, async () => {
          await content();
          const range = ['--offset', '100001', '--size', '1M'];
          const mounted = await place.mount([...range, mountpoint, ...server]);
          assert.equal(await place.ok('stat', ['-c', '%s', file]), `${MIB}\n`);
          await place.ok('dd', ['if=data', `of=${file}`, 'bs=64k', 'status=none']);
          await unmounts(mounted, unmount);
          await place.ok('cmp', ['-i', '0:100001', '-n', String(MIB), 'data', 'image']);
        });
      }

      for (const [args, message] of [
        [['--partition', '2'], /^tsnbdfuse: partition 2 does not exist: the disk has 1, 3\n$/],
        [['--offset', '8M'], /offset 8388608 is not on the disk, which has 8388608 bytes\n$/],
        [
          ['--offset', '7M', '--size', '2M'],
          /offset 7340032 and size 2097152 reach past the end of the disk/,
        ],
      ] as const) {
        it(`is refused: ${args.join(' ')}`, async () => {
          const { status, stderr } = await place.tsnbdfuse([...args, 'disk.raw', ...server]);
          assert.match(stderr, message);
          assert.equal(stderr.split('\n').length, 2);
          assert.equal(status, 5);
        });
      }

      it('is refused: --partitions over a file, before the server is started', async () => {
        const args = ['--partitions', 'disk.raw', '[', 'sh', '-c', ': >started', ']'];
        const { status, stderr } = await place.tsnbdfuse(args);
        assert.equal(status, 3);
        assert.match(
          stderr,
          /^tsnbdfuse: partitions are files beside the disk, which takes a directory/,
        );
        await assert.rejects(stat(place.join('started')));
      });

      it('is refused where there is no table', async () => {
        const args = ['--partition', '1', 'disk.raw', ...MEMORY];
        const { status, stderr } = await place.tsnbdfuse(args);
        assert.equal(status, 5);
        assert.match(stderr, /partition 1 does not exist: the disk has no partition table\n$/);
      });
    });

    describe('of an ordinary user', () => {
      let mode = 0;
      before(async () => {
        ({ mode } = await stat('/dev/fuse'));
        await chmod('/dev/fuse', 0o666);
      });
      after(() => chmod('/dev/fuse', mode & 0o777));

      it('need no root', async () => {
        for (const path of [place.path, place.join('run'), place.join('dir')]) {
          await chown(path, NOBODY, NOBODY);
        }
        const user = ['--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups'];
        const script = `set -e
        tsnbdfuse -P pid --partitions dir/disk [ tsnbdkit memory 256M ] & job=$!
        i=0; until [ -e pid ]; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ]; done
        sgdisk -n 1:0:+50M -n 2 dir/disk >out
        mkfs.vfat dir/disk1 >out
        mkdir tree; echo content >tree/file
        mkfs.ext4 -q -d tree dir/disk2
        e2fsck -fn dir/disk2 2>out
        fusermount3 -u dir
        wait $job`;
        await place.ok('setpriv', [...user, 'sh', '-c', script]);
      });
    });
  },
);
