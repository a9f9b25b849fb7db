/** mount(8), umount(8), fstab(5) and what stands behind them: `mount.fuse.tsnbdfuse`, `umount.fuse.tsnbdfuse`. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readFile, symlink, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { ExitStatus } from '../../src/cli/exit-status.js';
import { PACKAGE_ROOT } from '../../src/package-root.js';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import type { Result, Running } from '../support/mounts.js';
import { startNbdkit, startTsnbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';
import { SilentServer } from '../support/silent-server.js';

const HELPER = join(PACKAGE_ROOT, 'bin', 'mount.fuse.tsnbdfuse');
/** The only place where mount(8) looks. */
const LINK = '/sbin/mount.fuse.tsnbdfuse';
const UMOUNT_HELPER = join(PACKAGE_ROOT, 'bin', 'umount.fuse.tsnbdfuse');
/** The only place where umount(8) looks. */
const UMOUNT_LINK = '/sbin/umount.fuse.tsnbdfuse';
/** Found by the shell that mount.fuse3 starts. */
const COMMAND = '/usr/local/bin/tsnbdfuse';
const USER = 65534;

/** Makes a link for the tests below, unless the machine has its own. */
function linked(target: string, path: string): void {
  let isOurs = false;
  before(async () => {
    if (existsSync(path)) return;
    await symlink(target, path);
    isOurs = true;
  });
  after(async () => {
    if (isOurs) await unlink(path);
  });
}

describe(
  'mount(8)',
  requires({ root: true, fuse: true, programs: ['mount', 'umount', 'fusermount3', 'setpriv'] }),
  () => {
    let place: Workplace;
    let server: RealServer;
    let uri: string;
    let dir: string;

    beforeEach(async () => {
      place = await Workplace.create();
      dir = place.join('dir');
      await mkdir(dir);
      await place.file('disk.raw');
      await place.file('image', 'content');
      await place.ok('truncate', ['-s', '4M', 'image']);
      server = await startTsnbdkit(['file', place.join('image')]);
      uri = `nbd+unix:///?socket=${server.socketPath}`;
    });
    afterEach(async () => {
      try {
        await until('all daemons have ended', () => !anybodyLeft());
        await server.stop();
        await place.nothingLeft();
      } finally {
        await server.stop();
        await place.remove();
      }
    });

    /** They may have started without the environment by which the others are found. */
    function anybodyLeft(): boolean {
      return existsSync(place.join('pid'));
    }

    /** As at boot: with nothing in the environment. */
    const bare = (...words: string[]): Promise<Result> => place.run('env', ['-i', ...words]);
    const mount = (options: string, source = uri, at = dir): Promise<Result> =>
      bare('/bin/mount', '-t', 'fuse.tsnbdfuse', source, at, '-o', options);
    const pidfile = (): string => `pidfile=${place.join('pid')}`;

    async function unmounts(at = dir): Promise<void> {
      const { status, stderr } = await bare('/bin/umount', at);
      assert.deepEqual([status, stderr], [0, '']);
    }

    describe('with the helper', () => {
      linked(HELPER, LINK);

      it('mounts without an environment, and returns when it is there', async () => {
        const result = await mount(`${pidfile()},_netdev,nofail,x-systemd.automount,cache=none`);
        assert.deepEqual([result.status, result.stdout, result.stderr], [0, '', '']);
        assert.equal(await place.ok('head', ['-c', '7', 'dir/nbd']), 'content');
        const [entry] = (await readFile('/proc/mounts', 'utf8'))
          .split('\n')
          .filter((line) => line.includes(dir));
        assert.ok(entry?.startsWith(`${uri} ${dir} fuse.tsnbdfuse rw,`), entry);
        await unmounts();
      });

      it('has what was written on the server when umount(8) returns', async () => {
        assert.equal((await mount(pidfile())).status, 0);
        await place.ok('dd', ['if=/dev/urandom', 'of=dir/nbd', 'bs=1M', 'count=4', 'conv=notrunc']);
        await place.ok('cp', ['dir/nbd', 'copy']);
        await unmounts();
        await place.ok('cmp', ['copy', 'image']);
      });

      it('takes lines of fstab, each once, with files as mount points', async () => {
        const fstab = await place.file(
          'fstab',
          [
            `${uri} ${dir} fuse.tsnbdfuse noauto,user,exec,${pidfile()} 0 0`,
            `${uri} ${place.join('disk.raw')} fuse.tsnbdfuse ro,_netdev,x-systemd.requires=a.service 0 0`,
            '',
          ].join('\n'),
        );
        for (let i = 0; i < 2; i++) {
          const { status, stderr } = await bare('/bin/mount', '-T', fstab, '-a');
          assert.deepEqual([status, stderr], [0, '']);
        }
        assert.deepEqual(await place.mounts(), [place.join('disk.raw')]);
        const write = await place.run('dd', ['if=/dev/zero', 'of=disk.raw', 'count=1']);
        assert.match(write.stderr, /read-only file system/i);
        assert.equal((await bare('/bin/mount', '-T', fstab, dir)).status, 0);
        assert.equal(await place.ok('head', ['-c', '7', 'dir/nbd']), 'content');
        await unmounts();
        await unmounts(place.join('disk.raw'));
      });

      it('refuses to mount anew what is mounted, with other options', async () => {
        assert.equal((await mount(pidfile())).status, 0);
        const { status, stderr } = await mount('remount,ro');
        assert.equal(status, 1);
        assert.match(stderr, /^tsnbdfuse: -o remount: a mount cannot be changed; unmount it/);
        assert.equal((await mount('ro')).status, 32);
        await unmounts();
      });

      it('does all but the mount with -f, and passes over unknown options with -s', async () => {
        const words = ['-t', 'fuse.tsnbdfuse', '-f', uri, dir, '-o'];
        assert.equal((await bare('/bin/mount', ...words, 'ro')).status, 0);
        assert.equal((await bare('/bin/mount', ...words, 'frob')).status, 1);
        assert.equal((await bare('/bin/mount', '-s', ...words, 'frob')).status, 0);
        assert.deepEqual(await place.mounts(), []);
      });

      for (const [what, source, options, at, status, message] of [
        ['an option that there is not', '', 'frob', '', 1, /there is no option frob/],
        ['a value that cannot be', '', 'cache=fast', '', 1, /-o cache=fast is invalid/],
        ['a source that is none', '/dev/null', 'ro', '', 32, /\/dev\/null/],
        ['a server that is not there', 'nbd://127.0.0.1:1', 'ro', '', 32, /connection refused/],
        ['no mount point', '', 'ro', '/nowhere/at/all', 32, /\/nowhere\/at\/all does not exist/],
        ['a log that cannot be', '', 'log=/nowhere/log', '', 32, /the log \/nowhere\/log/],
      ] as const) {
        it(`fails as mount(8) documents it: ${what}`, async () => {
          const result = await mount(options, source || uri, at || dir);
          assert.equal(result.status, status);
          assert.match(result.stderr, /^tsnbdfuse: [^\n]*\n$/);
          assert.match(result.stderr, message);
          assert.deepEqual(await place.mounts(), []);
        });
      }

      for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const) {
        it(`ends with 8, and mounts nothing, where it gets ${signal}`, async () => {
          const silent = await SilentServer.start();
          try {
            const helper = place.start(HELPER, [silent.uri, dir]);
            await silent.connected;
            process.kill(helper.pid, signal);
            assert.equal((await helper.ended).status, 8);
            await silent.left;
            assert.deepEqual(await place.mounts(), []);
          } finally {
            await silent.stop();
          }
        });
      }

      it('has the statuses of tsnbdfuse once it is mounted, which -u gives', async () => {
        assert.equal((await mount(`${pidfile()},reconnect=0`)).status, 0);
        await server.stop();
        const { status, stderr } = await place.tsnbdfuse(['-u', dir]);
        assert.equal(status, ExitStatus.LOST, stderr);
        assert.match(stderr, /ended with status 7 .*: the server was lost, or refused something/);
      });

      it('mounts for an ordinary user', async () => {
        await place.give(USER, 'dir');
        await place.ok('chmod', ['666', server.socketPath]);
        await place.ok('chmod', ['755', join(server.socketPath, '..')]);
        // As mount(8) calls it for a line with the option "user".
        const options = `rw,noexec,nosuid,nodev,user=nobody,${pidfile()}`;
        const result = await place.run(HELPER, [uri, dir, '-o', options], { user: USER });
        assert.equal(result.status, 0, result.stderr);
        await place.ok('fusermount3', ['-u', dir], { user: USER });
      });
    });

    describe('with both helpers', requires({ programs: ['nbdkit', 'python3', 'unshare'] }), () => {
      linked(HELPER, LINK);
      linked(UMOUNT_HELPER, UMOUNT_LINK);

      /** A server whose flush takes its time, and leaves a line when it has begun and when it is done. */
      const startSlow = (): Promise<RealServer> =>
        startNbdkit([
          ...['eval', 'get_size=echo 4M', 'pread=head -c $3 /dev/zero', 'pwrite=cat >/dev/null'],
          `flush=echo begun >>${place.join('flushes')}; sleep 1; echo done >>${place.join('flushes')}`,
        ]);

      /** A process that has the disk open until it is told something. */
      async function hold(): Promise<Running> {
        const script = 'f = open("dir/nbd"); print("open", flush=True); input()';
        const holder = place.start('python3', ['-c', script], { talk: true });
        await until('it is open', () => holder.stdout.includes('open'));
        return holder;
      }

      for (const [what, options, words] of [
        ['a line of fstab', '_netdev', []],
        ['systemd', 'rw', ['-c']],
      ] as const) {
        it(`has umount(8) return when the last flush is done and the process is gone: ${what}`, async () => {
          const slow = await startSlow();
          try {
            const from = `nbd+unix:///?socket=${slow.socketPath}`;
            assert.equal((await mount(`${options},${pidfile()}`, from)).status, 0);
            await place.ok('dd', ['if=/dev/zero', 'of=dir/nbd', 'count=1', 'conv=notrunc']);
            const { status, stderr } = await bare('/bin/umount', ...words, dir);
            assert.deepEqual([status, stderr], [0, '']);
            assert.ok(!anybodyLeft());
            const flushes = (await readFile(place.join('flushes'), 'utf8')).trim().split('\n');
            const count = (word: string): number => flushes.filter((one) => one === word).length;
            assert.ok(count('done') > 0);
            assert.equal(count('begun'), count('done'));
          } finally {
            await slow.stop();
          }
        });
      }

      it('waits for whoever has the file open, and names them', async () => {
        assert.equal((await mount(`_netdev,${pidfile()}`)).status, 0);
        const holder = await hold();
        const umount = place.start('env', ['-i', '/bin/umount', dir]);
        await until('it is told', () => umount.stderr.includes('held by python3'));
        holder.tell('\n');
        assert.equal((await umount.ended).status, 0);
        assert.ok(!anybodyLeft());
        await holder.ended;
      });

      // With -f the kernel ends all requests, and leaves a mount that is open; its process does not.
      for (const [option, status, message] of [
        ['-l', 0, /^$/],
        ['-f', 32, /^umount: .*: target is busy\.\n$/],
      ] as const) {
        it(`waits for nobody with ${option}`, async () => {
          assert.equal((await mount(pidfile())).status, 0);
          const holder = await hold();
          const result = await bare('/bin/umount', option, dir);
          assert.equal(result.status, status);
          assert.match(result.stderr, message);
          await until('it is out of sight', async () => (await place.mounts()).length === 0);
          holder.tell('\n');
          await holder.ended;
        });
      }

      it('takes away what nobody serves any more', async () => {
        assert.equal((await mount(`_netdev,${pidfile()}`)).status, 0);
        const pid = Number(await readFile(place.join('pid'), 'utf8'));
        process.kill(pid, 'SIGKILL');
        await until('it is gone', () => !existsSync(`/proc/${pid}`));
        await unlink(place.join('pid'));
        await unmounts();
        assert.deepEqual(await place.mounts(), []);
      });

      it('unmounts also where the process cannot be asked', async () => {
        const words = [
          '/bin/mount',
          '-t',
          'fuse.tsnbdfuse',
          uri,
          dir,
          '-o',
          `_netdev,${pidfile()}`,
        ];
        assert.equal((await bare('unshare', '--net', ...words)).status, 0);
        await unmounts();
        assert.deepEqual(await place.mounts(), []);
      });

      it('unmounts for an ordinary user', async () => {
        await place.give(USER, 'dir');
        await place.ok('chmod', ['666', server.socketPath]);
        await place.ok('chmod', ['755', join(server.socketPath, '..')]);
        const user = { user: USER };
        assert.equal((await place.run(HELPER, [uri, dir, '-o', pidfile()], user)).status, 0);
        const { status, stderr } = await place.run('/bin/umount', [dir], user);
        assert.deepEqual([status, stderr], [0, '']);
        assert.ok(!anybodyLeft());
      });

      for (const [what, words, status, message] of [
        ['what is not mounted', ['/nowhere'], 32, 'tsnbdfuse: /nowhere is not mounted\n'],
        ['nothing', [], 1, 'tsnbdfuse: DIR is missing\n'],
      ] as const) {
        it(`fails as umount(8) documents it: ${what}`, async () => {
          const result = await bare(UMOUNT_HELPER, ...words);
          assert.deepEqual([result.status, result.stderr], [status, message]);
        });
      }
    });

    describe(
      'without the helper, by that of libfuse',
      requires({ programs: ['mount.fuse'] }),
      () => {
        linked(TSNBDFUSE, COMMAND);

        it('mounts as well, and tells what is wrong', async () => {
          const good = await mount(`${pidfile()},cache=none,_netdev`);
          assert.deepEqual([good.status, good.stderr], [0, '']);
          assert.equal(await place.ok('head', ['-c', '7', 'dir/nbd']), 'content');
          await unmounts();
          const bad = await mount('cache=fast');
          assert.equal(bad.status, 1);
          assert.match(bad.stderr, /^tsnbdfuse: -o cache=fast is invalid/);
        });
      },
    );
  },
);
