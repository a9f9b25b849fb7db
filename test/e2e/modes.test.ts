/** Every way of saying where the disk comes from, each with a real server and a real mount. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { native } from '../../src/native.js';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import type { Mounted, RunOptions, Running } from '../support/mounts.js';
import { startNbdkit, startQemuNbd, startTsnbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const MIB = 1024 * 1024;

describe(
  'the modes of nbdfuse',
  requires({ root: true, fuse: true, programs: ['nbdkit', 'qemu-nbd', 'fusermount3'] }),
  () => {
    let place: Workplace;
    const servers: RealServer[] = [];

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
    });
    afterEach(async () => {
      try {
        for (const server of servers.splice(0)) await server.stop();
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    const keep = async (starting: Promise<RealServer>): Promise<RealServer> => {
      const server = await starting;
      servers.push(server);
      return server;
    };

    /** Writes the whole of a disk of 4 MiB, and reads it back. */
    async function useDisk(): Promise<void> {
      assert.equal((await stat(place.join('disk.raw'))).size, 4 * MIB);
      await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', 'count=4', 'status=none']);
      await place.ok('dd', ['if=data', 'of=disk.raw', 'bs=1M', 'conv=notrunc', 'status=none']);
      await place.ok('dd', ['if=disk.raw', 'of=copy', 'bs=64K', 'iflag=direct', 'status=none']);
      await place.ok('cmp', ['data', 'copy']);
    }

    async function unmounts(mounted: Mounted): Promise<void> {
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.equal(status, 0, stderr);
      assert.equal(stderr, '');
    }

    async function works(args: readonly string[], options: RunOptions = {}): Promise<void> {
      const mounted = await place.mount(args, options);
      await useDisk();
      await unmounts(mounted);
    }

    const nbdkit = ['nbdkit', '--exit-with-parent', 'memory', '4M'];
    const captives: readonly (readonly string[])[] = [
      ['[', ...nbdkit, ']'],
      ['[', 'tsnbdkit', 'memory', '4M', ']'],
      ['--socket-activation', ...nbdkit],
      ['--systemd-socket-activation', 'tsnbdkit', 'memory', '4M'],
      ['--socket-activation', 'qemu-nbd', '-f', 'raw', 'image'],
      ['--command', 'nbdkit', '-s', 'memory', '4M'],
      ['--cmd', 'nbdkit', '-s', 'memory', '4M'],
    ];
    for (const mode of captives) {
      it(mode.join(' '), async () => {
        await place.file('image', Buffer.alloc(4 * MIB));
        await works(['disk.raw', ...mode]);
      });
    }

    it('--unix, a URI and --uri', async () => {
      const { socketPath } = await keep(startNbdkit(['memory', '4M']));
      await works(['disk.raw', '--unix', socketPath]);
      await works(['disk.raw', `nbd+unix:///?socket=${socketPath}`]);
      await works(['disk.raw', '--uri', `nbd+unix:///?socket=${socketPath}`]);
    });

    it('--unix with a path that is not absolute', async () => {
      const { socketPath } = await keep(startTsnbdkit(['memory', '4M']));
      await symlink(socketPath, place.join('here.sock'));
      await works(['disk.raw', '--unix', 'here.sock']);
    });

    it('--tcp', async () => {
      const server = place.start('tsnbdkit', ['-p', '0', '-P', 'kit.pid', 'memory', '4M']);
      await until('the server is ready', () => existsSync(place.join('kit.pid')));
      const [, port = ''] = /listening on port (\d+)/.exec(server.stderr) ?? [];
      await works(['disk.raw', '--tcp', 'localhost', port]);
      await works(['disk.raw', '--tcp', '127.0.0.1', port]);
      await works(['disk.raw', '--tcp', '::1', port]);
      process.kill(server.pid, 'SIGTERM');
      await server.ended;
    });

    it('--vsock', async () => {
      // A port that nobody has; where the kernel has no vsock it says so.
      const result = await place.tsnbdfuse(['disk.raw', '--vsock', '1', '4000000000']);
      assert.equal(result.status, 4);
      assert.match(result.stderr, /^tsnbdfuse: cannot connect to vsock:1:4000000000: .*\n$/);
    });

    describe('--fd', () => {
      /** Runs with a descriptor of ours, which the command has as 3. */
      async function withSocket<T>(
        path: string,
        run: (options: RunOptions) => Promise<T>,
      ): Promise<T> {
        const fd = native.unixConnect(path);
        assert.ok(fd >= 0);
        try {
          return await run({ descriptors: [fd] });
        } finally {
          native.close(fd);
        }
      }

      it('works with a socket that it inherits', async () => {
        const { socketPath } = await keep(startNbdkit(['memory', '4M']));
        await withSocket(socketPath, (options) => works(['disk.raw', '--fd', '3'], options));
      });

      it('keeps the socket from the programs that it starts', async () => {
        const { socketPath } = await keep(startNbdkit(['memory', '4M']));
        await withSocket(socketPath, async (options) => {
          const args = ['-o', 'auto_unmount', 'disk.raw', '--fd', '3'];
          const mounted = await place.mount(args, options);
          const socket = await readlink(`/proc/${mounted.pid}/fd/3`);
          assert.match(socket, /^socket:/);
          const others = [...(await place.processes()).keys()].filter((pid) => pid !== mounted.pid);
          assert.ok(others.length > 0, 'there is one that would unmount');
          for (const pid of others) {
            for (const fd of ['0', '1', '2', '3', '4', '5']) {
              const its = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
              assert.notEqual(its, socket);
            }
          }
          await unmounts(mounted);
        });
      });

      it('refuses what is no socket', async () => {
        const file = await open(place.join('disk.raw'));
        try {
          for (const [fd, why] of [
            ['3', /--fd 3: it is not a socket/],
            ['2', /--fd 2: it is standard error/],
            ['99', /--fd 99: it is not open/],
          ] as const) {
            const args = ['disk.raw', '--fd', fd];
            const result = await place.tsnbdfuse(args, { descriptors: [file.fd] });
            assert.equal(result.status, 4);
            assert.match(result.stderr, why);
            assert.equal(result.stderr.split('\n').length, 2, 'one line');
          }
        } finally {
          await file.close();
        }
      });

      it('tells of a peer that hangs up', async () => {
        const ends = new Int32Array(2);
        assert.equal(native.socketpair(ends), 0);
        const [ours = -1, theirs = -1] = ends;
        native.close(theirs);
        const result = await place.tsnbdfuse(['disk.raw', '--fd', '3'], { descriptors: [ours] });
        native.close(ours);
        assert.equal(result.status, 4);
        assert.match(result.stderr, /file descriptor 3: it closed the connection/);
      });
    });

    describe('a server on its standard input and output', () => {
      it('is told of when it is no server', async () => {
        for (const [script, why] of [
          ['exit 3', /server sh exited with status 3 before it served the disk/],
          ['echo no image >&2; exit 1', /no image\ntsnbdfuse: server sh exited with status 1/],
          ['exec cat', /^tsnbdfuse: server sh: no answer within 2 s; is it an NBD server\?\n$/],
          ['exec yes', /^tsnbdfuse: server sh: it /m],
        ] as const) {
          // The others are to end before, however busy the machine is.
          const quick = script === 'exec cat' ? ['--connect-timeout=2'] : [];
          const args = [...quick, 'disk.raw', '--command', 'sh', '-c', script];
          const result = await place.tsnbdfuse(args);
          assert.equal(result.status, 4);
          assert.match(result.stderr, why);
        }
        const missing = await place.tsnbdfuse(['disk.raw', '--command', 'no-such-server']);
        assert.match(missing.stderr, /server command no-such-server was not found in PATH/);
      });

      it('whose death gives I/O errors, and one line', async () => {
        const mounted = await place.mount([
          'disk.raw',
          '--command',
          'nbdkit',
          '-s',
          'memory',
          '4M',
        ]);
        const [server] = [...(await place.processes())].filter(([, line]) =>
          line.startsWith('nbdkit'),
        );
        assert.ok(server !== undefined);
        process.kill(server[0], 'SIGKILL');
        await until('it is told', () => mounted.running.stderr.includes('\n'));
        assert.match(
          mounted.running.stderr,
          /server nbdkit was killed by SIGKILL; disk.raw now gives I\/O/,
        );
        assert.notEqual((await place.run('dd', ['if=disk.raw', 'of=x', 'iflag=direct'])).status, 0);
        assert.equal((await mounted.unmount('disk.raw')).status, 7);
      });

      it('ends when the command is killed', async () => {
        const script = 'trap "" TERM HUP; nbdkit -s memory 4M; while :; do sleep 1; done';
        const mounted = await place.mount(['disk.raw', '--command', 'sh', '-c', script]);
        mounted.signal('SIGKILL');
        await mounted.running.ended;
        await place.ok('fusermount3', ['-u', 'disk.raw']);
      });

      it('has a moment for what it does at its end', async () => {
        const script = 'nbdkit -s memory 4M; sleep 0.3; : > done';
        const trapped = `trap "" TERM; ${script}`;
        const mounted = await place.mount(['disk.raw', '--command', 'sh', '-c', trapped]);
        await unmounts(mounted);
        assert.ok(existsSync(place.join('done')));
      });
    });

    describe('a captive server that goes into the background', () => {
      it('is used and ended: qemu-nbd --fork', async () => {
        await place.file('image', Buffer.alloc(4 * MIB));
        const server = ['[', 'qemu-nbd', '--fork', '-f', 'raw', 'image', ']'];
        const mounted = await place.mount(['disk.raw', ...server]);
        await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', 'count=4', 'status=none']);
        await place.ok('dd', ['if=data', 'of=disk.raw', 'bs=1M', 'status=none']);
        await unmounts(mounted);
        await place.ok('cmp', ['data', 'image']);
      });

      it('is ended when it does not answer', async () => {
        const script = 'setsid sleep 1000 & while ! pgrep -s 0 sh; do :; done; exit 0';
        const command = ['--connect-timeout', '2', 'disk.raw', '[', 'sh', '-c', script, ']'];
        const result = await place.tsnbdfuse(command);
        assert.equal(result.status, 4);
        assert.match(result.stderr, /^tsnbdfuse: server sh: no answer within 2 s/);
      });

      it('is no server when it leaves nothing behind', async () => {
        const result = await place.tsnbdfuse(['disk.raw', '[', 'true', ']']);
        assert.equal(result.status, 4);
        assert.match(
          result.stderr,
          /^tsnbdfuse: server true exited with status 0 before it served/,
        );
      });
    });

    describe('-C', () => {
      /** The connections that a server of nbdkit logged, and those that carried reads. */
      async function connections(args: readonly string[]): Promise<{ all: number; used: number }> {
        const log = place.join('log');
        const server = ['nbdkit', '--filter=log', '--filter=delay', 'memory', '4M'];
        const mounted = await place.mount([
          ...args,
          'disk.raw',
          '[',
          ...server,
          `logfile=${log}`,
          'rdelay=400ms',
          ']',
        ]);
        // Each of them is enough for one connection: the next one goes over another.
        await Promise.all(
          [0, 1, 2, 3, 4, 5, 6, 7].map((i) =>
            place.ok('dd', [
              'if=disk.raw',
              'of=/dev/null',
              'bs=512K',
              'count=1',
              `skip=${i}`,
              'iflag=direct',
            ]),
          ),
        );
        await unmounts(mounted);
        const text = await readFile(log, 'utf8');
        const count = (pattern: RegExp): number =>
          new Set([...text.matchAll(pattern)].map(([, connection]) => connection)).size;
        return { all: count(/connection=(\d+) Connect/g), used: count(/connection=(\d+) Read/g) };
      }

      for (const [args, count] of [
        [[], 4],
        [['-C', '1'], 1],
        [['-C', '3'], 3],
        [['--connections', '6'], 6],
      ] as const) {
        it(`${args.join(' ') || '(none)'}: ${count}, all of them in use`, async () =>
          assert.deepEqual(await connections(args), { all: count, used: count }));
      }

      it('is limited by what the server takes', async () => {
        await place.file('image', Buffer.alloc(4 * MIB));
        await works(['-C', '8', 'disk.raw', '[', 'qemu-nbd', '-f', 'raw', 'image', ']']);
        const { socketPath } = await keep(
          startQemuNbd(['-e', '2', '-f', 'raw', place.join('image')]),
        );
        await works(['-C', '8', 'disk.raw', '--unix', socketPath]);
      });
    });

    describe('a script that was written for nbdfuse', () => {
      it('runs unchanged when nbdfuse is a link to us', async () => {
        await mkdir(place.join('bin'));
        await symlink(TSNBDFUSE, place.join('bin/nbdfuse'));
        await writeFile(
          place.join('script'),
          `set -e
          PATH=$PWD/bin:$PATH
          nbdfuse --version
          nbdfuse -C 2 -s -o kernel_cache,uid=0 -P pid disk.raw [ nbdkit --exit-with-parent memory 4M ] &
          job=$!
          i=0; until [ -e pid ]; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ]; done
          [ "$(cat pid)" = "$job" ]
          head -c 4194304 /dev/urandom > data
          dd if=data of=disk.raw bs=1M conv=notrunc status=none
          cmp data disk.raw
          fusermount3 -u disk.raw
          wait $job
          nbdfuse disk.raw --command nbdkit -s memory 4M &
          job=$!
          i=0; until grep -q "$PWD/disk.raw " /proc/mounts; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ]; done
          cmp -n 4194304 /dev/zero disk.raw
          fusermount3 -u disk.raw
          wait $job`,
        );
        await place.ok('sh', ['script']);
      });
    });

    it('a mountpoint that is a symbolic link shows the disk in the place of its target', async () => {
      await symlink('disk.raw', place.join('link'));
      const mounted = await place.mount(['link', '[', 'tsnbdkit', 'memory', '4M', ']']);
      await useDisk();
      assert.equal((await stat(place.join('link'))).size, 4 * MIB);
      // fusermount3 knows the target only, so that is what a message names.
      const holder: Running = place.start('sh', ['-c', 'exec sleep 1000 < link']);
      await until('the file is held', async () =>
        (await readlink(`/proc/${holder.pid}/fd/0`).catch(() => '')).endsWith('disk.raw'),
      );
      mounted.signal('SIGTERM');
      await until('it is told', () => mounted.running.stderr.includes('\n'));
      assert.match(mounted.running.stderr, /^tsnbdfuse: link is busy/);
      const [, command = ''] = /unmount with: (.*), or/.exec(mounted.running.stderr) ?? [];
      process.kill(holder.pid, 'SIGTERM');
      await holder.ended;
      await place.ok('sh', ['-c', command]);
      assert.equal((await mounted.running.ended).status, 0);
    });

    it('a pidfile that a killed one left behind is not there before the disk is', async () => {
      await place.ok('sh', ['-c', 'echo $$ > pid']);
      const script = 'test ! -e pid && exec tsnbdkit memory 4M';
      const args = ['-P', 'pid', 'disk.raw', '[', 'sh', '-c', script, ']'];
      const running = place.start(TSNBDFUSE, args);
      const written = async (): Promise<boolean> =>
        (await readFile(place.join('pid'), 'utf8').catch(() => '')) === `${running.pid}\n`;
      await until('it is mounted', async () => running.hasEnded || (await written()));
      await place.ok('fusermount3', ['-u', 'disk.raw']);
      assert.equal((await running.ended).status, 0);
    });
  },
);
