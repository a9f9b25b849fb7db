/** A reader that is killed while the server hangs is free to go; one that goes on gets its data. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { LOOK_INTERVAL } from '../../src/fuse/interrupts.js';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted, Running } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

/** Less than after which a reader is let go of whose fate cannot be seen, in milliseconds. */
const AT_ONCE = 4_000;

const USER = 65534;

/** Of the page that is read: far from what is read when the disk is mounted. */
const OFFSET = 512 * 1024;

/**
 * Reads a page in the way that the first argument says, while signals come in that it handles. Says where it
 * is, and at the end the sum of what was read.
 */
const READER = `
import hashlib, mmap, os, signal, sys, time
how, path, offset = sys.argv[1], sys.argv[2], int(sys.argv[3])
def handle(number, frame):
    print("handled", number, flush=True)
signal.signal(signal.SIGUSR1, handle)
fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if how == "direct" else 0))
page = mmap.mmap(-1, 4096)
print("reading", flush=True)
if how == "fsync":
    os.fsync(fd)
elif how == "map":
    page = mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset)[:]
else:
    os.preadv(fd, [page], offset)
    page = page[:]
print("read", hashlib.sha256(page).hexdigest(), flush=True)
`;

const WRITER = `
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"x" * 4096, 0)
print("written", flush=True)
time.sleep(1000)
`;

describe(
  'a reader',
  requires({ root: true, fuse: true, programs: ['nbdkit', 'python3', 'setpriv'] }),
  () => {
    let place: Workplace;
    let server: RealServer;
    const content = randomBytes(1024 * 1024);

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('image', content);
      server = await startNbdkit(['file', place.join('image')]);
    });
    afterEach(async () => {
      try {
        process.kill(server.pid, 'SIGCONT');
        await server.stop();
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    const uri = (): string => `nbd+unix:///?socket=${server.socketPath}`;

    /** A mount whose server has stopped, and does not count as lost however long a busy machine takes. */
    async function stalled(...options: readonly string[]): Promise<Mounted> {
      await place.file('disk.raw');
      const mounted = await place.mount(['--timeout=0', ...options, 'disk.raw', uri()]);
      process.kill(server.pid, 'SIGSTOP');
      return mounted;
    }

    async function reader(how: string): Promise<Running> {
      const words = ['-c', READER, how, 'disk.raw', String(OFFSET)];
      const running = place.start('python3', words);
      await until('it reads', () => running.stdout.includes('reading'));
      await place.untilWaits(running);
      return running;
    }

    async function isGone(running: Running): Promise<void> {
      await until('it is gone', () => running.hasEnded, AT_ONCE);
      assert.equal(running.stdout.includes('read '), false);
    }

    async function ends(mounted: Mounted): Promise<void> {
      process.kill(server.pid, 'SIGCONT');
      const { status, signal, stderr } = await mounted.unmount('disk.raw');
      assert.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: '' });
    }

    for (const how of ['direct', 'buffered', 'map']) {
      for (const signal of ['SIGKILL', 'SIGTERM', 'SIGQUIT'] as const) {
        it(`is gone at once after ${signal}: ${how}`, async () => {
          const mounted = await stalled();
          const running = await reader(how);
          process.kill(running.pid, signal);
          await isGone(running);
          assert.equal((await running.ended).signal, signal);
          await ends(mounted);
        });
      }

      it(`goes on after a signal that it handles: ${how}`, async () => {
        const mounted = await stalled();
        const running = await reader(how);
        process.kill(running.pid, 'SIGUSR1');
        await until('it is seen', async () => (await signalled(running.pid)) !== 0n);
        // For longer than it takes to look at who waits.
        await delay(4 * LOOK_INTERVAL);
        process.kill(server.pid, 'SIGCONT');
        const { status, stdout } = await running.ended;
        assert.equal(status, 0);
        assert.match(stdout, /handled/);
        const page = content.subarray(OFFSET, OFFSET + 4096);
        assert.match(stdout, new RegExp(`^read ${await sha256(page)}$`, 'm'));
        await ends(mounted);
      });

      it(`is killed after a signal that it handles: ${how}`, async () => {
        const mounted = await stalled();
        const running = await reader(how);
        process.kill(running.pid, 'SIGUSR1');
        await delay(2 * LOOK_INTERVAL);
        process.kill(running.pid, 'SIGKILL');
        await isGone(running);
        await ends(mounted);
      });
    }

    /** The signals that a process has pending. */
    async function signalled(pid: number): Promise<bigint> {
      const status = await readFile(`/proc/${pid}/status`, 'latin1');
      return BigInt(`0x${/^ShdPnd:\s*(\w+)$/m.exec(status)?.[1] ?? '0'}`);
    }

    async function sha256(bytes: Uint8Array): Promise<string> {
      return (await place.ok('sha256sum', [], { input: bytes })).split(' ')[0] ?? '';
    }

    it('is gone at once, whatever others wrote and did not flush', async () => {
      const mounted = await stalled('--cache=none');
      process.kill(server.pid, 'SIGCONT');
      // Its file stays open, so that nothing is flushed for it.
      const writer = place.start('python3', ['-c', WRITER, 'disk.raw']);
      await until('it is written', () => writer.stdout.includes('written'));
      process.kill(server.pid, 'SIGSTOP');
      for (const how of ['direct', 'fsync']) {
        const running = await reader(how);
        process.kill(running.pid, 'SIGKILL');
        await isGone(running);
      }
      process.kill(writer.pid, 'SIGKILL');
      process.kill(server.pid, 'SIGCONT');
      await writer.ended;
      await ends(mounted);
    });

    it('is gone at once, for an ordinary user too', async () => {
      await place.file('disk.raw');
      await place.give(USER, 'disk.raw');
      for (const path of [dirname(server.socketPath), server.socketPath]) await chmod(path, 0o777);
      const mounted = await place.mount(['--timeout=0', 'disk.raw', uri()], { user: USER });
      process.kill(server.pid, 'SIGSTOP');
      const words = [
        'if=disk.raw',
        'of=/dev/null',
        'bs=4096',
        'skip=128',
        'count=1',
        'iflag=direct',
      ];
      const running = place.start('dd', words, { user: USER });
      await place.untilWaits(running);
      process.kill(running.pid, 'SIGKILL');
      await isGone(running);
      process.kill(server.pid, 'SIGCONT');
      mounted.signal('SIGTERM');
      assert.equal((await mounted.running.ended).status, 0);
    });
  },
);
