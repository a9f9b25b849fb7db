/** The memory of the command stays within bounds, and little memory is enough for any amount of data. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { MemoryGroup, memoryGroups } from '../support/memory-group.js';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import type { Mounted, Running } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const MIB = 1024 * 1024;
/** Node alone takes 50 MiB, what we hold is bounded by some tens of them, and what is not flushed by 64. */
const MOST = 192 * MIB;
/** Milliseconds. */
const PATIENCE = 200_000;

const USER = 65534;

/** Fills pipes that nobody reads with the pages of the file. */
const CLOG = `
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
pipes = []
for i in range(64):
    pipes.append(os.pipe())
    os.set_blocking(pipes[-1][1], False)
    offset = i << 20
    try:
        while True:
            offset += os.splice(fd, pipes[-1][1], 1 << 20, offset_src=offset)
    except BlockingIOError:
        pass
print("clogged", flush=True)
blocking = os.pipe()
while True:
    os.splice(fd, blocking[1], 1 << 20, offset_src=0)
`;

async function peakMemory(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1');
  return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

describe(
  'memory',
  requires({ root: true, fuse: true, programs: ['nbdkit', 'fio', 'python3', 'setpriv'] }),
  () => {
    let place: Workplace;
    let server: RealServer | undefined;

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
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

    async function mount(kit: readonly string[], ...options: string[]): Promise<Mounted> {
      server = await startNbdkit(kit);
      const uri = `nbd+unix:///?socket=${server.socketPath}`;
      return place.mount([...options, 'disk.raw', uri]);
    }

    async function staysSmall(mounted: Mounted): Promise<void> {
      const peak = await peakMemory(mounted.pid);
      assert.ok(peak < MOST, `${Math.round(peak / MIB)} MiB`);
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.deepEqual([status, stderr], [0, '']);
    }

    for (const [name, words] of [
      ['4 KiB reads', ['--rw=randread', '--bs=4k', '--io_size=4m']],
      ['4 KiB writes', ['--rw=randwrite', '--bs=4k', '--io_size=4m']],
      ['1 MiB reads', ['--rw=read', '--bs=1m', '--io_size=64m']],
      ['1 MiB writes', ['--rw=write', '--bs=1m', '--io_size=64m']],
    ] as const) {
      it(`is bounded with 10,240 ${name} that wait for a server which is slow`, async () => {
        const delays = ['delay-read=20ms', 'delay-write=20ms'];
        const mounted = await mount(['--filter=delay', 'memory', '64M', ...delays]);
        const jobs = ['--numjobs=16', '--iodepth=640', '--thread', '--group_reporting'];
        const common = ['--name=queue', '--filename=disk.raw', '--size=64m', '--direct=1'];
        const fio = [...common, '--ioengine=libaio', ...jobs, ...words, '--allow_file_create=0'];
        await place.ok('fio', fio, { deadline: PATIENCE });
        await staysSmall(mounted);
      });
    }

    it('is bounded with data that nobody takes out of a pipe', async () => {
      const mounted = await mount(['pattern', '64M']);
      const clogging = place.start('python3', ['-c', CLOG, 'disk.raw'], { deadline: PATIENCE });
      await until('pipes are full', () => clogging.stdout.includes('clogged'));
      // All else goes on.
      await place.ok('dd', ['if=disk.raw', 'of=/dev/null', 'bs=1M', 'iflag=direct', 'status=none']);
      process.kill(clogging.pid, 'SIGKILL');
      await clogging.ended;
      await staysSmall(mounted);
    });

    describe('of 128 MiB for the command and a copy', { skip: noGroups() }, () => {
      let group: MemoryGroup;
      beforeEach(async () => {
        group = await MemoryGroup.create(128 * MIB);
      });
      afterEach(() => group.remove());

      const inGroup = (words: readonly string[], user?: number): Running => {
        const as = [`--reuid=${user ?? 0}`, `--regid=${user ?? 0}`, '--clear-groups'];
        const command = ['-c', group.join, 'setpriv', ...as, ...words];
        return place.start('sh', command, { deadline: PATIENCE });
      };

      for (const [who, user] of [
        ['root', undefined],
        ['an ordinary user', USER],
      ] as const) {
        it(`is enough for 1 GiB: ${who}`, async () => {
          await place.ok('sh', ['-c', 'head -c 1G /dev/urandom >data'], { deadline: PATIENCE });
          await place.ok('truncate', ['-s', '1G', 'image']);
          server = await startNbdkit(['file', place.join('image')]);
          if (user !== undefined) {
            await place.give(user, 'disk.raw', 'data');
            await place.ok('chmod', ['-R', 'a+rwX', dirname(server.socketPath)]);
          }
          const uri = `nbd+unix:///?socket=${server.socketPath}`;
          const running = inGroup([TSNBDFUSE, '-P', 'pid', 'disk.raw', uri], user);
          await until('it is mounted', async () => (await place.run('cat', ['pid'])).status === 0);
          const copying = inGroup(['cp', 'data', 'disk.raw'], user);
          const { status, stderr } = await copying.ended;
          assert.equal(status, 0, stderr);
          process.kill(running.pid, 'SIGTERM');
          const ended = await running.ended;
          assert.deepEqual([ended.status, ended.stderr], [0, '']);
          await place.ok('cmp', ['data', 'image'], { deadline: PATIENCE });
          assert.equal(await group.killed(), 0);
        });
      }
    });
  },
);

/** Why there are no such groups; false where there are. */
function noGroups(): string | false {
  return memoryGroups() ? false : 'there are no groups of processes with a limit on memory';
}
