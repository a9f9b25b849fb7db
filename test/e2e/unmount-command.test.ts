/** `tsnbdfuse --unmount`: it returns when all is safe and the process has ended, or says why it does not. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readFile, readlink, rm, symlink, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { MountProcess } from '../../src/control/mount-process.js';
import { listSockets } from '../../src/control/socket-name.js';
import { findMounts } from '../../src/fuse/mountpoint.js';
import { PACKAGE_ROOT } from '../../src/package-root.js';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted, Result, Running } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const USER = 65534;
const MEMORY = ['[', 'tsnbdkit', 'memory', '1M', ']'];
const ADDON = join(PACKAGE_ROOT, 'native-bindings', 'build', 'Release', 'native.node');
const SIZE = 8 * 1024 * 1024;

describe(
  'the unmount command',
  requires({ root: true, fuse: true, programs: ['fusermount3', 'setpriv', 'dd', 'nbdkit'] }),
  () => {
    let place: Workplace;
    let server: RealServer | undefined;

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw', 'below');
      await mkdir(place.join('dir'));
    });
    afterEach(() =>
      place.finish(async () => {
        await server?.stop();
        server = undefined;
      }),
    );

    const unmounting = (args: readonly string[], user?: number): Running =>
      place.start('tsnbdfuse', ['-u', ...args], { user });
    const unmount = (args: readonly string[], user?: number): Promise<Result> =>
      unmounting(args, user).ended;

    /** Ends with a status and one line. */
    async function says(
      args: readonly string[],
      status: number,
      line: RegExp,
      user?: number,
    ): Promise<void> {
      const result = await unmount(args, user);
      assert.equal(result.status, status, result.stderr);
      assert.match(result.stderr, line);
      assert.equal(result.stderr.trimEnd().split('\n').length, 1, result.stderr);
    }

    /** Ends well, without a word, and the other command has ended before. */
    async function endsWell(ending: Running, mounted: Mounted): Promise<void> {
      const { status, stderr } = await ending.ended;
      assert.deepEqual([status, stderr], [0, '']);
      assert.ok(!existsSync(`/proc/${mounted.pid}/exe`), 'the process has ended');
      assert.equal((await mounted.running.ended).status, 0);
    }

    /** Keeps a file open until it is told to go, and writes what it is told before: to the page cache. */
    async function hold(file: string, user?: number): Promise<Running> {
      const words = [`of=${file}`, 'bs=4096', 'conv=notrunc', 'status=none'];
      const holder = place.start('dd', words, { talk: true, user });
      await until(
        'it is open',
        async () =>
          (await readlink(`/proc/${holder.pid}/fd/1`).catch(() => '')) === place.join(file),
      );
      return holder;
    }

    async function write(holder: Running, text: string): Promise<void> {
      holder.tell(text);
      await until('it is written', async () =>
        (await readFile(`/proc/${holder.pid}/fdinfo/1`, 'utf8')).startsWith(
          `pos:\t${text.length}\n`,
        ),
      );
    }

    /** The next mount takes away what the status socket of a killed process was. */
    async function kill(mounted: Mounted): Promise<void> {
      await mounted.kill();
      await rm(place.join('run/tsnbdfuse'), { recursive: true, force: true });
    }

    const deviceOf = (name: string): string => {
      const [mount] = findMounts(place.join(name));
      assert.ok(mount !== undefined);
      return mount.device;
    };

    /** Waits until somebody is connected to the process of a mount, beside its own end that listens. */
    const untilConnected = (device: string): Promise<void> =>
      until('it is connected', async () => {
        const table = await readFile('/proc/net/unix', 'latin1');
        return table.split(`@tsnbdfuse/${device}/`).length > 2;
      });

    async function letGo(holder: Running): Promise<void> {
      process.kill(holder.pid, 'SIGTERM');
      await holder.ended;
    }

    for (const user of [undefined, USER]) {
      describe(user === undefined ? 'of root' : 'of an ordinary user', () => {
        beforeEach(async () => {
          if (user !== undefined) await place.give(user, 'disk.raw', 'dir');
        });

        const mount = (...args: readonly string[]): Promise<Mounted> => place.mount(args, { user });

        for (const [name, args, file, target] of [
          ['a file', ['disk.raw'], 'disk.raw', 'disk.raw'],
          ['a directory', ['dir'], 'dir/nbd', 'dir'],
          ['a name in a directory', ['dir/disk.raw'], 'dir/disk.raw', 'dir/disk.raw'],
          ['the directory of a name', ['dir/disk.raw'], 'dir/disk.raw', 'dir/'],
          ['a disk with its partitions', ['--partitions', 'dir/a'], 'dir/a', 'dir/a'],
          ['a mount of another type', ['-o', 'subtype=x', 'dir'], 'dir/nbd', 'dir/nbd'],
        ] as const) {
          it(`returns when what was written is in the image: ${name}`, async () => {
            await truncate(await place.file('image'), SIZE);
            if (user !== undefined) await place.give(user, 'image');
            const image = place.join('image');
            const mounted = await mount(...args, '[', 'tsnbdkit', 'file', image, ']');
            const holder = await hold(file, user);
            // It is not flushed, nor is the file closed.
            await write(holder, 'written');
            const ending = unmounting([target], user);
            await until('it is busy', () => ending.stderr.includes('is busy'));
            await letGo(holder);
            const { status, stderr } = await ending.ended;
            assert.equal(status, 0, stderr);
            assert.match(
              stderr,
              /^tsnbdfuse: \S+ is busy, held by dd \(process \d+\); waiting for up to 30 s\n$/,
            );
            assert.equal((await readFile(image)).toString('latin1', 0, 7), 'written');
            // Neither the command nor its server is there any more.
            assert.deepEqual([...(await place.processes()).values()], []);
            assert.equal((await mounted.running.ended).status, 0);
          });
        }

        it('leaves a mount as it is where too many wait for its end already', async () => {
          const mounted = await place.mount(['disk.raw', ...MEMORY]);
          const holder = await hold('disk.raw');
          const device = deviceOf('disk.raw');
          const [socket] = (await listSockets()).filter((one) => one.device === device);
          assert.ok(socket !== undefined);
          const waiting = await Promise.all(
            Array.from({ length: 16 }, () => MountProcess.connect(socket.name, 0)),
          );
          for (const one of waiting) assert.ok(one?.greeting !== undefined);
          const line =
            /^tsnbdfuse: disk\.raw goes on as it is: process \d+ does not listen \(too many/;
          await says(['disk.raw'], 3, line);
          await says(['-z', 'disk.raw'], 3, line);
          assert.equal(findMounts(place.join('disk.raw')).length, 1);
          await write(holder, 'text');
          await letGo(holder);
          for (const one of waiting) one?.close();
          await endsWell(unmounting(['disk.raw']), mounted);
        });

        it('says nothing where there is nothing to say', async () => {
          const mounted = await mount('disk.raw', ...MEMORY);
          await endsWell(unmounting(['disk.raw'], user), mounted);
          assert.equal(await readFile(place.join('disk.raw'), 'utf8'), 'below');
        });

        it('gives up what stays busy, which stays mounted', async () => {
          const mounted = await mount('disk.raw', ...MEMORY);
          const holder = await hold('disk.raw', user);
          const { status, stderr } = await unmount(['--timeout=0.5', 'disk.raw'], user);
          assert.equal(status, 3);
          assert.match(
            stderr,
            /^(tsnbdfuse: disk\.raw is busy, [^\n]*\n)tsnbdfuse: disk\.raw is still busy after 0\.5 s, held by dd \(process \d+\); close it .*: tsnbdfuse -uz disk\.raw\n$/,
          );
          assert.deepEqual(await place.mounts(), [place.join('disk.raw')]);
          await letGo(holder);
          await endsWell(unmounting(['disk.raw'], user), mounted);
        });

        it('detaches with -z, and waits for who has it open', async () => {
          await truncate(await place.file('image'), SIZE);
          if (user !== undefined) await place.give(user, 'image');
          const image = place.join('image');
          const mounted = await mount('dir/disk', '[', 'tsnbdkit', 'file', image, ']');
          const holder = await hold('dir/disk', user);
          const ending = unmounting(['-z', 'dir'], user);
          await until('it warns', () => ending.stderr.includes('\n'));
          assert.match(
            ending.stderr,
            new RegExp(
              `^tsnbdfuse: dir is detached, but dd \\(process ${holder.pid}\\) may still write to it: .* until process ${mounted.pid} has ended\n$`,
            ),
          );
          assert.deepEqual(await place.mounts(), []);
          await write(holder, 'later');
          await letGo(holder);
          assert.equal((await ending.ended).status, 0);
          assert.equal((await readFile(image)).toString('latin1', 0, 5), 'later');
          assert.equal((await mounted.running.ended).status, 0);
        });

        it('waits for one that was detached by another program', async () => {
          const mounted = await mount('dir/disk', ...MEMORY);
          const holder = await hold('dir/disk', user);
          const device = deviceOf('dir');
          await place.ok('fusermount3', ['-uz', 'dir'], { user });
          await says(
            ['--timeout=0.3', 'dir/disk'],
            7,
            /dir\/disk is unmounted, but process \d+ is still there, .* with: tsnbdfuse -u dir\/disk$/m,
            user,
          );
          const ending = unmounting(['dir'], user);
          await untilConnected(device);
          await letGo(holder);
          await endsWell(ending, mounted);
        });

        it('takes a dead mount away, and does not call that safe', async () => {
          const mounted = await mount('disk.raw', ...MEMORY);
          await kill(mounted);
          await says(['disk.raw'], 7, /^tsnbdfuse: disk\.raw was dead, .* may be lost\n$/, user);
          assert.deepEqual(await place.mounts(), []);
        });

        it('notices that the process is killed meanwhile', async () => {
          const mounted = await mount('disk.raw', ...MEMORY);
          const holder = await hold('disk.raw', user);
          const ending = unmounting(['disk.raw'], user);
          await until('it is busy', () => ending.stderr.includes('is busy'));
          await kill(mounted);
          const { status, stderr } = await ending.ended;
          assert.equal(status, 7);
          assert.match(
            stderr,
            /\ntsnbdfuse: disk\.raw: process \d+ was killed before it was done;/,
          );
          assert.deepEqual(await place.mounts(), []);
          await letGo(holder);
        });

        it('stops at a signal, and the mount stays', async () => {
          const mounted = await mount('disk.raw', ...MEMORY);
          const holder = await hold('disk.raw', user);
          const ending = unmounting(['disk.raw'], user);
          await until('it is busy', () => ending.stderr.includes('is busy'));
          process.kill(ending.pid, 'SIGINT');
          const { status, stderr } = await ending.ended;
          assert.equal(status, 130);
          assert.match(stderr, /\ntsnbdfuse: stopped by SIGINT: disk\.raw is still mounted\n$/);
          await letGo(holder);
          await endsWell(unmounting(['disk.raw'], user), mounted);
        });
      });
    }

    it('has the status of what it ends, which was lost', async () => {
      const broken = ['nbdkit', '--filter=error', 'memory', '1M', 'error-pwrite=EIO'];
      const mounted = await place.mount([
        'disk.raw',
        '[',
        ...broken,
        'error-pwrite-rate=100%',
        ']',
      ]);
      const write = ['if=/dev/zero', 'of=disk.raw', 'bs=4k', 'count=1', 'conv=notrunc'];
      assert.notEqual((await place.run('dd', write)).status, 0);
      await says(['disk.raw'], 7, /^tsnbdfuse: disk\.raw ended with status 7 \(process \d+\): /);
      assert.equal((await mounted.running.ended).status, 7);
    });

    it('is another user’s to be refused, and root’s to do', async () => {
      await place.give(USER, 'disk.raw', 'dir');
      const ours = await place.mount(['dir/disk', ...MEMORY]);
      await says(['dir'], 3, /^tsnbdfuse: dir is the mount of root, who alone can end it/, USER);
      await endsWell(unmounting(['dir']), ours);
      const theirs = await place.mount(['disk.raw', ...MEMORY], { user: USER });
      await endsWell(unmounting(['disk.raw']), theirs);
    });

    it('believes no other user who calls himself the process, and tells others nothing', async () => {
      await place.give(USER);
      const mounted = await place.mount(['disk.raw', ...MEMORY]);
      const device = deviceOf('disk.raw');
      const name = (await listSockets()).find((socket) => socket.device === device)?.name;
      assert.ok(name !== undefined);
      // What the process has to say to another user is the end of the connection.
      const script = `
        const native = require(${JSON.stringify(ADDON)});
        native.unixListen('\\0tsnbdfuse/${device}/1-1', 8);
        const fd = native.unixConnect('\\0${name}');
        const look = () => {
          const count = native.read(fd, new Uint8Array(64), 0, 64);
          if (count === -11) setTimeout(look, 10);
          else console.log('read', count);
        };
        look();
        setInterval(() => undefined, 1000);`;
      const other = place.start(process.execPath, ['-e', script], { user: USER });
      await until('it was told', () => other.stdout.includes('read'));
      assert.equal(other.stdout, 'read 0\n');
      await endsWell(unmounting(['disk.raw']), mounted);
      process.kill(other.pid, 'SIGKILL');
      await other.ended;
    });

    it('follows symbolic links to the mountpoint and to its directory', async () => {
      await symlink('disk.raw', place.join('link'));
      await symlink('dir', place.join('way'));
      for (const [target, mountpoint] of [
        ['link', 'disk.raw'],
        ['way/disk', 'dir/disk'],
        ['way', 'dir/disk'],
      ] as const) {
        const mounted = await place.mount([mountpoint, ...MEMORY]);
        await endsWell(unmounting([target]), mounted);
      }
    });

    it('is not kept busy by where it is started', async () => {
      const mounted = await place.mount(['dir/disk', ...MEMORY]);
      const ending = place.start('tsnbdfuse', ['-u', '.'], { cwd: place.join('dir') });
      await endsWell(ending, mounted);
    });

    for (const [name, args, line] of [
      ['what is not mounted', ['disk.raw'], /^tsnbdfuse: disk\.raw is not mounted\n$/],
      ['what is not there', ['none'], /^tsnbdfuse: none is not mounted\n$/],
      ['what has no directory', ['none/none'], /the directory of none\/none does not exist/],
      ['an ordinary mount', ['/proc'], /\/proc is a mount of another kind \(proc, proc\)/],
    ] as const) {
      it(`refuses ${name}`, () => says(args, 3, line));
    }

    it('refuses a name that is not in the directory, and another mount over or in it', async () => {
      const mounted = await place.mount(['dir/disk', ...MEMORY]);
      await says(['dir/dusk'], 3, /^tsnbdfuse: there is no dir\/dusk; the mount of its directory/);
      for (const [at, where] of [
        ['dir', 'over it'],
        ['dir/disk', 'in it'],
      ] as const) {
        const over = at === 'dir' ? ['-t', 'tmpfs', 'other', at] : ['--bind', 'disk.raw', at];
        await place.ok('mount', over);
        for (const options of [[], ['-z']]) {
          await says(
            [...options, 'dir'],
            3,
            new RegExp(
              `^tsnbdfuse: dir cannot be unmounted: another mount \\(.*\\) is ${where}; unmount that first: umount ${place.join(at)}\n$`,
            ),
          );
        }
        await place.ok('umount', [at]);
      }
      await endsWell(unmounting(['dir']), mounted);
    });

    it('waits for no server longer than it is told to, and can be asked again', async () => {
      await truncate(await place.file('image'), SIZE);
      server = await startNbdkit(['file', place.join('image')]);
      const uri = `nbd+unix:///?socket=${server.socketPath}`;
      const mounted = await place.mount(['disk.raw', uri]);
      const holder = await hold('disk.raw');
      const device = deviceOf('disk.raw');
      let again: Running;
      process.kill(server.pid, 'SIGSTOP');
      try {
        await write(holder, 'late'.padEnd(4096));
        // It waits in its end until that is at the server.
        process.kill(holder.pid, 'SIGTERM');
        await place.untilWaits(holder);
        const busy = await unmount(['--timeout=1', 'disk.raw']);
        assert.equal(busy.status, 3);
        assert.match(busy.stderr, /^tsnbdfuse: disk\.raw is still busy after 1 s/m);
        const detached = await unmount(['-z', '--timeout=1', 'disk.raw']);
        assert.equal(detached.status, 7);
        assert.match(
          detached.stderr,
          /^tsnbdfuse: disk\.raw is detached, [^\n]*\ntsnbdfuse: disk\.raw is unmounted, but process \d+ is still there, [^\n]*\n$/,
        );
        again = unmounting(['disk.raw']);
        await untilConnected(device);
      } finally {
        process.kill(server.pid, 'SIGCONT');
      }
      await holder.ended;
      await endsWell(again, mounted);
      assert.equal((await readFile(place.join('image'))).toString('latin1', 0, 4), 'late');
    });

    it('waits for no process that hangs longer than it is told to', async () => {
      const mounted = await place.mount(['disk.raw', ...MEMORY]);
      mounted.signal('SIGSTOP');
      try {
        await says(
          ['--timeout=0.5', 'disk.raw'],
          7,
          /the unmount of disk\.raw is not done after 0\.5 s:/,
        );
      } finally {
        mounted.signal('SIGCONT');
      }
      // It does then what it was asked for.
      assert.equal((await mounted.running.ended).status, 0);
    });
  },
);
