/** Servers that are killed and started again, that stall, and that come back as others, under a mount in use. */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile, truncate } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted, Running } from '../support/mounts.js';
import {
  startNbdServer,
  startNbdkit,
  startQemuNbd,
  startTsnbdkit,
} from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const MIB = 1024 * 1024;
const SIZE = 64 * MIB;

/** How often a server is killed under a tool. */
const KILLS = 5;

/** Writes all over the file and checks what it reads. */
const FIO = [
  ...['--name=v', '--filename=disk.raw', '--rw=randwrite', '--bsrange=4k-256k', '--ioengine=psync'],
  ...[`--size=${SIZE}`, '--fsync=32', '--verify=crc32c', '--verify_fatal=1', '--do_verify=1'],
  ...['--verify_state_save=0', '--fallocate=none', '--loops=2'],
];

const WRITE = ['if=/dev/urandom', 'of=disk.raw', 'bs=1M', 'count=1', 'conv=notrunc', 'status=none'];
const READ = ['if=disk.raw', 'of=/dev/null', 'bs=4096', 'count=1', 'iflag=direct', 'status=none'];

/** Writes 512 KiB past the page cache, so little that we do not flush it, and syncs it when there is a file `go`. */
const HOLD = `
import mmap, os, time
fd = os.open('disk.raw', os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 1 << 19)
page.write(b'x' * (1 << 19))
os.writev(fd, [page])
print('written', flush=True)
while not os.path.exists('go'):
    time.sleep(0.02)
try:
    os.fsync(fd)
    print('synced')
except OSError as error:
    print(error.strerror)
`;

describe(
  'a server that comes back',
  requires({
    root: true,
    fuse: true,
    programs: ['nbdkit', 'qemu-nbd', 'nbd-server', 'fio', 'python3'],
  }),
  () => {
    let place: Workplace;
    let server: RealServer | undefined;
    let image: string;

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
      image = await place.file('image');
      await truncate(image, SIZE);
    });
    afterEach(async () => {
      try {
        await server?.stop();
        server = undefined;
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    const uri = (of: RealServer, name = ''): string =>
      `nbd+unix:///${name}?socket=${of.socketPath}`;

    async function endsWell(mounted: Mounted): Promise<string> {
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.equal(status, 0, stderr);
      return stderr;
    }

    async function sha(path: string): Promise<string> {
      return createHash('sha256')
        .update(await readFile(path))
        .digest('hex');
    }

    /** Has written 512 KiB that nothing has flushed. @returns syncs it, and tells what that said */
    async function hold(): Promise<() => Promise<string>> {
      const holding = place.start('python3', ['-c', HOLD], { deadline: 120_000 });
      await until('it is written', () => holding.stdout.includes('written'));
      return async () => {
        await place.file('go');
        return (await holding.ended).stdout.replace('written', '').trim();
      };
    }

    /** Kills and restarts the server while a tool runs. @returns how often */
    async function killUnder(tool: Running): Promise<number> {
      let kills = 0;
      while (!tool.hasEnded && kills < KILLS) {
        await sleep(150);
        await server?.kill();
        await sleep(50);
        server = await server?.again();
        kills++;
      }
      return kills;
    }

    const servers: readonly (readonly [string, string, () => Promise<RealServer>])[] = [
      ['nbdkit', '', () => startNbdkit(['file', image])],
      ['qemu-nbd', '', () => startQemuNbd(['-f', 'raw', '--shared=8', image])],
      ['nbd-server', 'd', () => startNbdServer({ d: { exportname: image, flush: 'true' } })],
      ['tsnbdkit', '', () => startTsnbdkit(['file', image])],
    ];
    for (const [name, exported, start] of servers) {
      for (const cache of ['writeback', 'none']) {
        it(`loses nothing that fio writes to ${name}, with --cache=${cache}`, async () => {
          server = await start();
          const mounted = await place.mount([
            `--cache=${cache}`,
            'disk.raw',
            uri(server, exported),
          ]);
          const fio = place.start('fio', FIO, { deadline: 120_000 });
          assert.ok((await killUnder(fio)) > 0);
          const { status, stdout, stderr } = await fio.ended;
          assert.equal(status, 0, `${stdout}${stderr}${mounted.running.stderr}`);
          assert.match(await endsWell(mounted), /reconnecting for up to 60 s\n.*restored after/s);
        });
      }
    }

    it('loses nothing of a copy that nobody has synced', async () => {
      server = await startNbdkit(['file', image]);
      const mounted = await place.mount(['disk.raw', uri(server)]);
      await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', `count=${SIZE / MIB}`]);
      const copy = place.start('cp', ['data', 'disk.raw'], { deadline: 120_000 });
      await killUnder(copy);
      assert.equal((await copy.ended).status, 0);
      await endsWell(mounted);
      assert.equal(await sha(image), await sha(place.join('data')));
    });

    it('is waited for by a reader', async () => {
      server = await startNbdkit(['file', image]);
      const mounted = await place.mount(['disk.raw', uri(server)]);
      await server.kill();
      const reading = place.start('dd', READ);
      await until('it is told', () => mounted.running.stderr.includes('reconnecting'));
      await place.untilWaits(reading);
      await sleep(300);
      assert.ok(!reading.hasEnded);
      server = await server.again();
      assert.equal((await reading.ended).status, 0);
      await endsWell(mounted);
    });

    it('may stall, which is no more than a pause', async () => {
      server = await startNbdkit(['file', image]);
      const mounted = await place.mount(['--timeout=1', 'disk.raw', uri(server)]);
      await place.ok('dd', [...WRITE, 'oflag=direct']);
      process.kill(server.pid, 'SIGSTOP');
      const writing = place.start('dd', [
        ...WRITE.slice(0, -2),
        'conv=notrunc,fsync',
        'oflag=direct',
      ]);
      await until('it is told', () =>
        mounted.running.stderr.includes('did not answer within 1 s; reconnecting'),
      );
      process.kill(server.pid, 'SIGCONT');
      assert.equal((await writing.ended).status, 0);
      await endsWell(mounted);
    });

    it('with another disk gets nothing', async () => {
      server = await startNbdkit(['file', image]);
      const mounted = await place.mount(['disk.raw', uri(server)]);
      const sync = await hold();
      await server.kill();
      await truncate(image, 0);
      await truncate(image, SIZE / 2);
      server = await server.again();
      assert.match((await place.run('dd', READ)).stderr, /Input\/output error/);
      assert.match(
        (await place.run('dd', [...WRITE, 'oflag=direct'])).stderr,
        /Input\/output error/,
      );
      assert.equal(await sync(), 'Input/output error');
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.equal(status, 7);
      assert.match(
        stderr,
        /: is back with another disk: it has 33554432 bytes, and had 67108864; 512 KiB that were written and not yet flushed are not confirmed; disk\.raw now gives I\/O errors/,
      );
      assert.ok((await readFile(image)).every((byte) => byte === 0));
    });

    it('too late is told of, and nothing hangs', async () => {
      server = await startNbdkit(['file', image]);
      const mounted = await place.mount(['--reconnect=1', 'disk.raw', uri(server)]);
      const sync = await hold();
      await server.kill();
      assert.match((await place.run('dd', READ)).stderr, /Input\/output error/);
      assert.equal(await sync(), 'Input/output error');
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.equal(status, 7);
      assert.match(
        stderr,
        /not back within 1 s.*512 KiB that were written .*; disk\.raw now gives/,
      );
    });

    it('is not waited for with --reconnect=0', async () => {
      server = await startNbdkit(['file', image]);
      const mounted = await place.mount(['--reconnect=0', 'disk.raw', uri(server)]);
      await server.kill();
      assert.match((await place.run('dd', READ)).stderr, /Input\/output error/);
      assert.equal((await mounted.unmount('disk.raw')).status, 7);
    });

    for (const how of ['an unmount', 'SIGTERM'] as const) {
      it(`does not keep ${how} from its end while it is waited for`, async () => {
        server = await startNbdkit(['file', image]);
        const options = ['--timeout=1', '--reconnect=600'];
        const mounted = await place.mount([...options, 'disk.raw', uri(server)]);
        const sync = await hold();
        await server.kill();
        const reading = place.start('dd', READ);
        await until('it is told', () => mounted.running.stderr.includes('up to 600 s'));
        // Or else it may open what is underneath.
        await place.untilWaits(reading);
        if (how === 'SIGTERM') {
          mounted.signal('SIGTERM');
          await until('it is busy', () => mounted.running.stderr.includes('is busy, held by'));
          mounted.signal('SIGTERM');
        } else {
          await place.ok('fusermount3', ['-uz', 'disk.raw']);
        }
        assert.match((await reading.ended).stderr, /Input\/output error/);
        // What is open is soon taken from its holder, who then hears that instead.
        assert.match(await sync(), /^(Input\/output error|Transport endpoint is not connected)$/);
        const { status, stderr } = await mounted.running.ended;
        assert.equal(status, 7);
        assert.match(stderr, /not back within .* 512 KiB that were written/);
      });
    }

    for (const [name, command] of [
      ['[ nbdkit ]', ['[', 'nbdkit', 'file', 'image', ']']],
      ['--command nbdkit', ['--command', 'nbdkit', '-s', 'file', 'image']],
      ['[ qemu-nbd ]', ['[', 'qemu-nbd', '-f', 'raw', '--shared=8', 'image', ']']],
    ] as const) {
      it(`is started again: --restart-server with ${name}`, async () => {
        const mounted = await place.mount(['--restart-server', 'disk.raw', ...command]);
        const fio = place.start('fio', FIO, { deadline: 120_000 });
        const program = name.includes('qemu') ? 'qemu-nbd' : 'nbdkit';
        for (let i = 0; i < 3 && !fio.hasEnded; i++) {
          await sleep(200);
          for (const [pid, line] of await place.processes()) {
            if (line.startsWith(`${program} `)) process.kill(pid, 'SIGKILL');
          }
        }
        const { status, stdout, stderr } = await fio.ended;
        assert.equal(status, 0, `${stdout}${stderr}${mounted.running.stderr}`);
        assert.match(await endsWell(mounted), /^tsnbdfuse: server \S+: .*restored after/ms);
      });
    }
  },
);
