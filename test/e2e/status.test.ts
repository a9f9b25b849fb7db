/** --status: what mounts tell of themselves over their control sockets, and what is told of those that cannot. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, symlink, truncate } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { encodeMessage } from '../../src/control/messages.js';
import { findMounts } from '../../src/fuse/mountpoint.js';
import type { MountStatus } from '../../src/observe/mount-status.js';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import type { Mounted, RunOptions } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';
import { aStatus } from '../support/statuses.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const USER = 65534;
const OTHER_USER = 54321;

/** The object, as a script has it: the size is a number there. */
type Shown = Omit<MountStatus, 'size'> & { readonly size: number | null };

/** Writes 512 KiB past the page cache, and keeps the file open. */
const HOLD = `
import mmap, os, sys
fd = os.open('disk.raw', os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 1 << 19)
page.write(b'x' * (1 << 19))
os.writev(fd, [page])
print('written', flush=True)
sys.stdin.readline()
`;

const PRETENDER = fileURLToPath(new URL('../support/pretender.js', import.meta.url));

describe(
  '--status',
  requires({
    root: true,
    fuse: true,
    programs: ['nbdkit', 'fio', 'fallocate', 'python3', 'setpriv'],
  }),
  () => {
    let place: Workplace;
    let server: RealServer | undefined;

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
    });
    afterEach(() =>
      place.finish(async () => {
        await server?.stop();
        server = undefined;
      }),
    );

    /** @returns what is in the folder of the test; others may have mounts as well */
    async function all(options: RunOptions = {}): Promise<Shown[]> {
      const { stdout } = await place.run(TSNBDFUSE, ['--status', '--json'], options);
      const { version, mounts } = JSON.parse(stdout) as { version: number; mounts: Shown[] };
      assert.equal(version, 1);
      return mounts.filter(({ mountpoint }) => mountpoint.startsWith(place.path));
    }

    /** @returns the one, checked against the exit status */
    async function one(shown: string, options: RunOptions = {}): Promise<Shown> {
      const { stdout, status } = await place.run(TSNBDFUSE, ['--status', shown, '--json'], options);
      const { mounts } = JSON.parse(stdout) as { mounts: Shown[] };
      assert.equal(mounts.length, 1, stdout);
      const [found] = mounts as [Shown];
      assert.equal(status, found.state === 'healthy' ? 0 : 1);
      return found;
    }

    async function ends(mounted: Mounted, at = 'disk.raw'): Promise<string> {
      const { status, stderr } = await mounted.unmount(at);
      assert.equal(status, 0, stderr);
      return stderr;
    }

    const dd = (...words: readonly string[]): Promise<string> =>
      place.ok('dd', [...words, 'status=none']);
    const uri = (of: RealServer): string => `nbd+unix:///?socket=${of.socketPath}`;

    it('tells what the mount is, and counts exactly what was done', async () => {
      const mounted = await place.mount([
        '--trim',
        'disk.raw',
        '[',
        'tsnbdkit',
        'memory',
        '64M',
        ']',
      ]);
      const fresh = await one('disk.raw');
      const { operations: before, since, ...rest } = fresh;
      assert.deepEqual(rest, {
        mountpoint: place.join('disk.raw'),
        pid: mounted.pid,
        state: 'healthy',
        server: 'tsnbdkit',
        file: place.join('disk.raw'),
        problem: null,
        captive: true,
        size: 64 * MIB,
        readOnly: false,
        cache: 'writeback',
        connections: 4,
        reconnects: 0,
        inFlight: 0,
        unflushedBytes: 0,
      });
      assert.ok(Math.abs(Date.now() - Date.parse(since ?? '')) < 600_000);
      for (const { count, bytes, errors, latency } of Object.values(before ?? {})) {
        assert.deepEqual([count, bytes, errors, latency], [0, 0, 0, null]);
      }

      await dd(
        'if=/dev/zero',
        'of=disk.raw',
        'bs=64K',
        'count=16',
        'oflag=direct',
        'conv=notrunc,fsync',
      );
      await dd('if=disk.raw', 'of=/dev/null', 'bs=4K', 'count=100', 'iflag=direct');
      await place.ok('fallocate', ['-p', '-o', '1M', '-l', '2M', 'disk.raw']);
      await place.ok('fallocate', ['-z', '-o', '0', '-l', '512K', 'disk.raw']);
      await place.ok('fio', [
        ...['--name=j', '--filename=disk.raw', '--direct=1', '--bs=4k', '--ioengine=libaio'],
        ...['--iodepth=16', '--size=32M', '--rw=randrw', '--number_ios=3000', '--fallocate=none'],
        ...['--output=fio.json', '--output-format=json'],
      ]);
      const fio = JSON.parse(await place.ok('cat', ['fio.json'])) as {
        jobs: [{ read: Record<string, number>; write: Record<string, number> }];
      };
      const [{ read: fioRead, write: fioWrite }] = fio.jobs;

      const { operations, inFlight } = await one('disk.raw');
      assert.ok(operations !== null);
      const { read, write, flush, trim, zero } = operations;
      assert.equal(inFlight, 0);
      assert.equal(read.count, 100 + (fioRead['total_ios'] ?? 0));
      assert.equal(read.bytes, 400 * KIB + (fioRead['io_bytes'] ?? 0));
      assert.equal(write.count, 16 + (fioWrite['total_ios'] ?? 0));
      assert.equal(write.bytes, MIB + (fioWrite['io_bytes'] ?? 0));
      assert.deepEqual([trim.count, trim.bytes], [1, 2 * MIB]);
      assert.deepEqual([zero.count, zero.bytes], [1, 512 * KIB]);
      // dd's fsync, and the closes of both fallocates and of fio.
      assert.equal(flush.count, 4);
      for (const { latency, errors } of Object.values(operations)) {
        assert.equal(errors, 0);
        assert.ok(latency !== null && latency.p50 > 0);
        assert.ok(latency.p50 <= latency.p99 && latency.p99 <= latency.p999);
      }
      await ends(mounted);
    });

    it('finds a mount by a file in it, by links, and shows both in a table', async () => {
      await mkdir(place.join('dir'));
      await symlink('dir', place.join('link'));
      const [first, second] = await Promise.all([
        place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']']),
        place.mount(['-r', 'dir', '[', 'nbdkit', 'memory', '2M', ']']),
      ]);
      for (const shown of ['dir', 'link/', 'dir/nbd', 'link/nbd', place.join('dir')]) {
        const { pid, file, readOnly } = await one(shown);
        assert.deepEqual([pid, file, readOnly], [second.pid, place.join('dir/nbd'), true]);
      }
      const pids = (await all()).map(({ pid }) => pid);
      assert.deepEqual(pids, [second.pid, first.pid]);

      const table = await place.run(TSNBDFUSE, ['--status']);
      const rows = table.stdout.split('\n').filter((line) => line.includes(place.path));
      assert.match(rows[0] ?? '', /\/dir +\d+ +healthy +2 MiB +0 B +0 B +nbdkit$/);
      assert.match(rows[1] ?? '', /\/disk.raw +\d+ +healthy +1 MiB +0 B +0 B +tsnbdkit$/);
      const details = await place.ok(TSNBDFUSE, ['--status', 'dir']);
      assert.match(details, /^size: +2 MiB \(2097152 bytes\), read-only$/m);

      await ends(first);
      await ends(second, 'dir');
      assert.deepEqual(await all(), []);
    });

    it('says that there is no mount, in one line and with status 1', async () => {
      for (const shown of ['disk.raw', 'missing', place.path, '/']) {
        const { status, stdout, stderr } = await place.run(TSNBDFUSE, ['--status', shown]);
        assert.deepEqual([status, stdout], [1, '']);
        assert.equal(stderr, `tsnbdfuse: ${shown} is not a mount of tsnbdfuse\n`);
      }
      const { status, stdout } = await place.run(TSNBDFUSE, ['--status', 'disk.raw', '--json']);
      assert.equal(status, 1);
      assert.deepEqual(JSON.parse(stdout), { version: 1, mounts: [] });
    });

    it('tells of a server that is away, is back, and is gone for good', async () => {
      await place.file('image');
      await truncate(place.join('image'), MIB);
      server = await startNbdkit(['file', place.join('image')]);
      const mounted = await place.mount(['--reconnect', '3', 'disk.raw', uri(server)]);
      const holding = place.start('python3', ['-c', HOLD], { talk: true });
      await until('it is written', () => holding.hasEnded || holding.stdout.includes('written'));
      const healthy = await one('disk.raw');
      assert.deepEqual([healthy.state, healthy.unflushedBytes], ['healthy', 512 * KIB]);
      assert.equal(healthy.server, uri(server));

      await server.kill();
      await until('it reconnects', async () => (await one('disk.raw')).state === 'reconnecting');
      const away = await one('disk.raw');
      assert.match(away.problem ?? '', /^nbd\+unix:.*: \w/);
      assert.equal(away.connections, 0);
      server = await server.again();
      await until('it is back', async () => (await one('disk.raw')).state === 'healthy');
      const back = await one('disk.raw');
      assert.deepEqual([back.reconnects, back.problem], [1, null]);

      await server.kill();
      await until('it is gone', async () => (await one('disk.raw')).state === 'failed');
      assert.match((await one('disk.raw')).problem ?? '', /was not back within 3 s/);
      holding.tell('\n');
      await holding.ended;
      assert.equal((await mounted.unmount('disk.raw')).status, 7);
    });

    it('says that a mount ends which is out of sight, and in use', async () => {
      const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']']);
      const holding = place.start('python3', ['-c', HOLD], { talk: true });
      await until('it is written', () => holding.hasEnded || holding.stdout.includes('written'));
      const leaving = place.start(TSNBDFUSE, ['-uz', 'disk.raw']);
      await until('it is detached', () => leaving.stderr.includes('is detached'));
      const { state, pid } = await one('disk.raw');
      assert.deepEqual([state, pid], ['ending', mounted.pid]);
      assert.deepEqual(
        (await all()).map((other) => other.state),
        ['ending'],
      );
      const { stdout } = await place.run(TSNBDFUSE, ['--status', 'disk.raw']);
      assert.match(stdout, /^state: +ending, 4 connections, /m);
      holding.tell('\n');
      await holding.ended;
      assert.equal((await leaving.ended).status, 0);
    });

    it('believes nobody else what is mounted', async () => {
      const told = aStatus({ mountpoint: place.join('dir/nbd') });
      const answer = encodeMessage({ kind: 'status', status: told }).toString();
      const words = [PRETENDER, 'tsnbdfuse/0:4095/1-1', answer];
      const liar = place.start(process.execPath, words, { user: OTHER_USER });
      await until('it listens', () => liar.hasEnded || liar.stdout.includes('listens'));
      assert.equal(liar.stderr, '');
      assert.deepEqual(await all(), []);
      const { status, stderr } = await place.run(TSNBDFUSE, ['--status', 'dir/nbd']);
      assert.deepEqual([status, stderr], [1, 'tsnbdfuse: dir/nbd is not a mount of tsnbdfuse\n']);
      await until('both have asked', () => liar.stdout.split('was asked').length > 2);
      process.kill(liar.pid, 'SIGKILL');
      await liar.ended;
    });

    it('believes nobody else where his mount is, nor which process it is', async () => {
      await place.give(USER, 'disk.raw');
      const memory = ['[', 'tsnbdkit', 'memory', '1M', ']'];
      const mounted = await place.mount(['disk.raw', ...memory], { user: USER });
      mounted.signal('SIGSTOP');
      const [mount] = findMounts(place.join('disk.raw'));
      assert.ok(mount !== undefined);
      const { device } = mount;
      const told = aStatus({ mountpoint: place.join('elsewhere') });
      const answer = encodeMessage({ kind: 'status', status: told }).toString();
      const words = [PRETENDER, `tsnbdfuse/${device}/1-1`, answer];
      const liar = place.start(process.execPath, words, { user: USER });
      await until('it listens', () => liar.hasEnded || liar.stdout.includes('listens'));
      assert.equal(liar.stderr, '');
      const { mountpoint, file, pid } = await one('disk.raw');
      assert.deepEqual([mountpoint, file, pid], [place.join('disk.raw'), null, liar.pid]);
      process.kill(liar.pid, 'SIGKILL');
      await liar.ended;
      mounted.signal('SIGCONT');
      await place.run('fusermount3', ['-u', 'disk.raw'], { user: USER });
      assert.equal((await mounted.running.ended).status, 0);
    });

    it('does not wait for a mount that hangs', async () => {
      const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']']);
      mounted.signal('SIGSTOP');
      try {
        for (const { pid, state, operations } of [await one('disk.raw'), ...(await all())]) {
          assert.deepEqual([pid, state, operations], [mounted.pid, 'no-answer', null]);
        }
        const { stdout, status } = await place.run(TSNBDFUSE, ['--status', 'disk.raw']);
        assert.equal(status, 1);
        assert.match(stdout, /^state: +no answer$/m);
      } finally {
        mounted.signal('SIGCONT');
      }
      assert.equal((await one('disk.raw')).state, 'healthy');
      await ends(mounted);
    });

    it('tells of a mount that nobody serves any more', async () => {
      const killed = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']']);
      await killed.kill();
      const { state, server: of } = await one('disk.raw');
      assert.deepEqual([state, of], ['stale', 'tsnbdkit']);

      const again = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']']);
      assert.equal((await one('disk.raw')).pid, again.pid);
      await again.kill();
      const third = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']']);
      assert.deepEqual(
        (await all()).map(({ pid, state: now }) => [pid, now]),
        [[third.pid, 'healthy']],
      );
      await ends(third);
    });

    it('tells root of a dead mount of somebody else, and nobody else', async () => {
      await place.give(USER, 'disk.raw');
      const killed = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']'], {
        user: USER,
      });
      await killed.kill();
      for (const user of [USER, undefined]) {
        assert.equal((await one('disk.raw', { user })).state, 'stale');
      }
      assert.deepEqual(await all({ user: OTHER_USER }), []);
      await place.ok('umount', ['disk.raw']);
    });

    it('has no answer from another network namespace, where a mount can only be ended without waiting', async () => {
      const command = [
        '--net',
        TSNBDFUSE,
        '-P',
        'pid',
        'disk.raw',
        '[',
        'tsnbdkit',
        'memory',
        '1M',
        ']',
      ];
      const running = place.start('unshare', command);
      await until('it is mounted', () => running.hasEnded || existsSync(place.join('pid')));
      const { state, pid, operations } = await one('disk.raw');
      assert.deepEqual([state, pid, operations], ['no-answer', null, null]);
      const { status, stderr } = await place.run(TSNBDFUSE, ['-u', 'disk.raw']);
      assert.equal(status, 3);
      assert.match(stderr, /^tsnbdfuse: the process that serves disk.raw cannot be found .*\n$/);
      await place.ok('fusermount3', ['-u', 'disk.raw']);
      assert.equal((await running.ended).status, 0);
    });

    it('is for the one whose mount it is, and for root', async () => {
      await place.give(USER, 'disk.raw');
      const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']'], {
        user: USER,
      });
      for (const user of [USER, undefined]) {
        const found = await all({ user });
        assert.deepEqual(
          found.map(({ pid, state }) => [pid, state]),
          [[mounted.pid, 'healthy']],
        );
      }
      assert.deepEqual(await all({ user: OTHER_USER }), []);
      const other = { user: OTHER_USER };
      const refused = await place.run(TSNBDFUSE, ['--status', '--json', 'disk.raw'], other);
      assert.deepEqual(
        [refused.status, refused.stdout, refused.stderr],
        [
          1,
          '',
          `tsnbdfuse: disk.raw is the mount of user ${USER}, who alone can ask for its status, or root\n`,
        ],
      );
      const { status } = await place.run('fusermount3', ['-u', 'disk.raw'], { user: USER });
      assert.equal(status, 0);
      assert.equal((await mounted.running.ended).status, 0);
    });
  },
);
