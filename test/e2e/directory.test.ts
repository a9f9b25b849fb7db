/** The disk as a file in a directory that is mounted on. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, readFile, readdir, rename, stat, symlink } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const MIB = 1024 * 1024;
const NOBODY = 65534;

describe(
  'a directory as mountpoint',
  requires({ root: true, fuse: true, programs: ['fusermount3', 'setpriv', 'losetup'] }),
  () => {
    let place: Workplace;
    beforeEach(async () => {
      place = await Workplace.create();
      await mkdir(place.join('dir'));
    });
    afterEach(async () => {
      try {
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    for (const [written, file] of [
      ['dir', 'dir/nbd'],
      ['dir/disk.raw', 'dir/disk.raw'],
      ['./dir/ä b', 'dir/ä b'],
    ] as const) {
      for (const cache of ['writeback', 'writethrough', 'none']) {
        it(`shows the disk as ${file} for ${written}, cache ${cache}`, async () => {
          const args = [`--cache=${cache}`, written, '[', 'tsnbdkit', 'memory', '4M', ']'];
          const mounted = await place.mount(args);
          assert.deepEqual(await place.ok('ls', ['-A', 'dir']), `${file.slice(4)}\n`);
          assert.equal(
            (await place.ok('stat', ['-c', '%s %F %h', file])).trim(),
            [`${4 * MIB} regular file 1`].join(),
          );
          await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', 'count=4', 'status=none']);
          await place.ok('dd', ['if=data', `of=${file}`, 'bs=64k', 'status=none']);
          await place.ok('cmp', ['data', file]);
          const past = await place.run('dd', ['if=/dev/zero', `of=${file}`, 'bs=1M', 'count=6']);
          assert.match(past.stderr, /No space left on device/);
          assert.equal((await place.ok('stat', ['-c', '%s', file])).trim(), String(4 * MIB));
          for (const command of [
            `touch dir/x`,
            `rm '${file}'`,
            `mv '${file}' dir/x`,
            'mkdir dir/y',
          ]) {
            const result = await place.run('sh', ['-c', command]);
            assert.match(result.stderr, /Operation not permitted/, command);
          }
          const { status, stderr } = await mounted.unmount('dir');
          // Only the copy that was too long is told of.
          if (cache === 'writeback') assert.match(stderr, /^tsnbdfuse: something was written past/);
          else assert.equal(stderr, '');
          assert.equal(status, 0);
          assert.deepEqual(await readdir(place.join('dir')), []);
        });
      }
    }

    it('is read-only with -r', async () => {
      const mounted = await place.mount(['-r', 'dir/d', '[', 'tsnbdkit', 'memory', '1M', ']']);
      const result = await place.run('sh', ['-c', 'test -w dir/d || : >>dir/d']);
      assert.match(result.stderr, /Read-only file system/);
      assert.equal((await place.ok('stat', ['-c', '%a', 'dir/d'])).trim(), '400');
      assert.equal((await mounted.unmount('dir')).status, 0);
    });

    for (const at of ['disk.raw', 'dir', 'dir/free']) {
      it(`is mounted on by one of those that come at once: ${at}`, async () => {
        await place.file('disk.raw');
        for (let round = 0; round < 3; round++) {
          const all = await Promise.all(
            Array.from({ length: 4 }, (_, index) => {
              const words = [
                '--daemon',
                '-P',
                `pid${index}`,
                at,
                '[',
                'tsnbdkit',
                'memory',
                '1M',
                ']',
              ];
              return place.tsnbdfuse(words);
            }),
          );
          const statuses = all.map(({ status }) => status).sort();
          const said = all.map(({ stderr }) => stderr).join('');
          assert.deepEqual(statuses, [0, 3, 3, 3], said);
          assert.match(said, /^(tsnbdfuse: \S+ is already a mount \(fuse\.tsnbdfuse, .*\n){3}$/);
          assert.equal((await place.mounts()).length, 1);
          const { status, stderr } = await place.tsnbdfuse(['-u', at]);
          assert.deepEqual([status, stderr], [0, '']);
          assert.deepEqual(await place.mounts(), []);
        }
      });
    }

    it('hides what is in it, and says so', async () => {
      await place.file('dir/image', Buffer.alloc(MIB, 'old'));
      const running = await place.mount(['dir/disk', '[', 'tsnbdkit', 'file', 'dir/image', ']']);
      assert.deepEqual(await place.ok('ls', ['dir']), 'disk\n');
      assert.equal(await place.ok('head', ['-c', '9', 'dir/disk']), 'oldoldold');
      await place.ok('dd', ['if=/dev/zero', 'of=dir/disk', 'bs=1M', 'count=1', 'status=none']);
      const { status, stderr } = await running.unmount('dir');
      assert.equal(status, 0);
      assert.match(stderr, /^tsnbdfuse: dir is not empty: .* hidden until the unmount.*\n$/);
      assert.ok((await readFile(place.join('dir/image'))).equals(Buffer.alloc(MIB)));
    });

    it('is found by a symbolic link, and the message names what can be unmounted', async () => {
      await symlink('dir', place.join('link'));
      const mounted = await place.mount(['link', '[', 'tsnbdkit', 'memory', '1M', ']']);
      assert.equal(await place.ok('ls', ['link']), 'nbd\n');
      const holder = place.start('sh', ['-c', 'exec 3<link/nbd; exec sleep 1000']);
      await until('the file is open', async () =>
        (await place.ok('ls', ['-l', `/proc/${holder.pid}/fd`])).includes('nbd'),
      );
      mounted.signal('SIGTERM');
      await until('it says who holds it', () => mounted.running.stderr.includes('busy'));
      assert.match(mounted.running.stderr, /held by (sh|sleep) \(process \d+\)/);
      assert.ok(mounted.running.stderr.includes(`-u ${place.join('dir')},`));
      process.kill(holder.pid, 'SIGKILL');
      await holder.ended;
      assert.equal((await mounted.unmount(place.join('dir'))).status, 0);
    });

    it('is busy for who stands in it', async () => {
      const mounted = await place.mount(['dir', '[', 'tsnbdkit', 'memory', '1M', ']']);
      const holder = place.start('sh', ['-c', 'cd dir; exec sleep 1000']);
      await until('it stands there', async () =>
        (await place.ok('readlink', [`/proc/${holder.pid}/cwd`])).includes('/dir'),
      );
      mounted.signal('SIGTERM');
      await until('it says who', () => mounted.running.stderr.includes('busy'));
      assert.match(mounted.running.stderr, /held by (sh|sleep) \(process \d+\)/);
      // The second signal detaches it, with what was written.
      mounted.signal('SIGTERM');
      assert.equal((await mounted.running.ended).status, 0);
      process.kill(holder.pid, 'SIGKILL');
      await holder.ended;
    });

    it('keeps what was written when it is detached while open', async () => {
      await place.file('image', Buffer.alloc(MIB));
      const mounted = await place.mount(['dir/disk', '[', 'tsnbdkit', 'file', 'image', ']']);
      const writer = place.start('sh', [
        '-c',
        'exec 3<>dir/disk; echo written >&3; echo done; exec sleep 1000',
      ]);
      await until('it is written', () => writer.stdout.includes('done'));
      mounted.signal('SIGTERM');
      await until('it is busy', () => mounted.running.stderr.includes('busy'));
      mounted.signal('SIGTERM');
      assert.equal((await mounted.running.ended).status, 0);
      process.kill(writer.pid, 'SIGKILL');
      await writer.ended;
      assert.equal((await readFile(place.join('image'))).toString('utf8', 0, 8), 'written\n');
    });

    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      it(`ends by ${signal} when it was started in the directory`, async () => {
        const mounted = await place.mount(['.', '[', 'tsnbdkit', 'memory', '1M', ']'], {
          cwd: place.join('dir'),
        });
        assert.equal(await place.ok('ls', ['dir']), 'nbd\n');
        mounted.signal(signal);
        const { status, stderr } = await mounted.running.ended;
        assert.deepEqual([status, stderr], [0, '']);
      });
    }

    it('is left alone when somebody else is mounted there by now', async () => {
      const mounted = await place.mount(['dir/disk', '[', 'tsnbdkit', 'memory', '1M', ']']);
      const holder = place.start('sh', ['-c', 'exec 3<dir/disk; echo open; exec sleep 1000']);
      await until('the file is open', () => holder.stdout.includes('open'));
      await place.ok('umount', ['-l', 'dir']);
      await place.ok('mount', ['-t', 'tmpfs', 'other', 'dir']);
      mounted.signal('SIGTERM');
      await until('it tells', () => mounted.running.stderr.includes('\n'));
      assert.match(
        mounted.running.stderr,
        /^tsnbdfuse: dir\/disk is mounted no more, but still open;/,
      );
      mounted.signal('SIGTERM');
      // What may be left in the page cache cannot be reached any more.
      assert.equal((await mounted.running.ended).status, 8);
      process.kill(holder.pid, 'SIGKILL');
      await holder.ended;
      assert.deepEqual(await place.mounts(), [place.join('dir')]);
      await place.ok('umount', ['dir']);
    });

    it('names what somebody has mounted over it, and leaves that alone', async () => {
      const mounted = await place.mount(['dir/disk', '[', 'tsnbdkit', 'memory', '1M', ']']);
      await place.ok('mount', ['-t', 'tmpfs', 'other', 'dir']);
      for (let signals = 1; signals <= 2; signals++) {
        mounted.signal('SIGTERM');
        await until('it tells', () => mounted.running.stderr.split('\n').length > signals);
      }
      assert.match(
        mounted.running.stderr,
        /^(tsnbdfuse: dir\/disk cannot be unmounted: another mount \(tmpfs, other\) is over it; [^\n]*\n){2}$/,
      );
      await place.ok('umount', ['dir']);
      assert.equal((await mounted.unmount('dir')).status, 0);
    });

    it('is not mounted on twice', async () => {
      const mounted = await place.mount(['dir/disk', '[', 'tsnbdkit', 'memory', '1M', ']']);
      for (const again of ['dir', 'dir/disk', 'dir/other']) {
        const { status, stderr } = await place.tsnbdfuse([
          again,
          '[',
          'tsnbdkit',
          'memory',
          '1M',
          ']',
        ]);
        assert.equal(status, 3);
        assert.match(
          stderr,
          /^tsnbdfuse: \S+ is already a mount \(fuse.tsnbdfuse, tsnbdkit\); unmount/,
        );
      }
      assert.equal((await mounted.unmount('dir')).status, 0);
    });

    it('can be under a loop device', async () => {
      const mounted = await place.mount(['dir/disk', '[', 'tsnbdkit', 'memory', '8M', ']']);
      const loop = (await place.ok('losetup', ['--show', '-f', 'dir/disk'])).trim();
      try {
        await place.ok('mkfs.ext4', ['-q', loop]);
      } finally {
        await place.ok('losetup', ['-d', loop]);
      }
      await until('the loop device has let go', async () => {
        const { stdout } = await place.run('losetup', ['-j', 'dir/disk']);
        return stdout === '';
      });
      await place.ok('e2fsck', ['-fn', 'dir/disk']);
      assert.equal((await mounted.unmount('dir')).status, 0);
    });

    it('may be renamed while nothing is mounted, and is asked for when it is not there', async () => {
      await rename(place.join('dir'), place.join('gone'));
      const server = ['[', 'tsnbdkit', 'memory', '1M', ']'];
      const missing = await place.tsnbdfuse(['dir', ...server]);
      assert.equal(missing.status, 3);
      assert.match(missing.stderr, /^tsnbdfuse: dir does not exist; create it with: touch dir\n$/);
      const below = await place.tsnbdfuse(['dir/disk', ...server]);
      assert.equal(below.status, 3);
      assert.match(
        below.stderr,
        /^tsnbdfuse: the directory of dir\/disk does not exist: .*\/dir\n$/,
      );
    });

    describe('as an ordinary user', () => {
      let mode = 0;
      before(async () => {
        ({ mode } = await stat('/dev/fuse'));
        await chmod('/dev/fuse', 0o666);
      });
      after(() => chmod('/dev/fuse', mode & 0o777));

      it('works by fusermount3', async () => {
        for (const path of [place.path, place.join('run'), place.join('dir')]) {
          await chown(path, NOBODY, NOBODY);
        }
        const user = ['--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups'];
        const script = `set -e
        tsnbdfuse -P pid dir/disk [ tsnbdkit memory 4M ] & job=$!
        i=0; until [ -e pid ]; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ]; done
        head -c 4194304 /dev/urandom > data
        dd if=data of=dir/disk bs=1M status=none
        cmp data dir/disk
        ls -l dir/disk
        fusermount3 -u dir
        wait $job`;
        const listed = await place.ok('setpriv', [...user, 'sh', '-c', script]);
        assert.match(listed, /^-rw------- 1 nobody nogroup 4194304 /);
      });

      for (const signal of ['SIGINT', 'SIGTERM'] as const) {
        it(`ends by ${signal} when it was started in the directory`, async () => {
          for (const path of [place.path, place.join('run'), place.join('dir')]) {
            await chown(path, NOBODY, NOBODY);
          }
          const user = ['--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups'];
          const command = ['tsnbdfuse', '-P', '../pid', '.', '[', 'tsnbdkit', 'memory', '4M', ']'];
          const running = place.start('setpriv', [...user, ...command], { cwd: place.join('dir') });
          await until('it is mounted', () => running.hasEnded || existsSync(place.join('pid')));
          process.kill(running.pid, signal);
          const { status, stderr } = await running.ended;
          assert.deepEqual([status, stderr], [0, '']);
        });
      }
    });
  },
);
