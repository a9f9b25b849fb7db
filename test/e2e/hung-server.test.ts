/** A server that answers no more and does not end either: signals still end the command. */

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { Reply, WriteOptions } from '../../src/disk/disk.js';
import { errno } from '../../src/errno.js';
import { Listener } from '../../src/server/listen.js';
import { serve } from '../../src/server/server.js';
import { MemoryDisk } from '../support/memory-disk.js';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted, Running } from '../support/mounts.js';
import { putRecord } from '../support/partition-tables.js';
import { startNbdkit } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const PAGE = 4096;
const PARTITION = 64 * 1024;
const PARTITIONS = [1, 2, 3, 4];
const SIZE = 16 * PARTITION;

/** Milliseconds. The command may wait for one deadline after the other. */
const PATIENCE = 200_000;

/** Has a file open, with pages that were written and are nowhere but in the page cache. */
const HOLD = `
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
for offset in sys.argv[2:]:
    os.pwrite(fd, b"x" * ${PAGE}, int(offset))
print("written", flush=True)
time.sleep(${PATIENCE / 1000})
`;

/** Writes and syncs the page that HOLD has in the file of the whole disk. */
const OVERWRITE = `
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"y" * ${PAGE}, ${PAGE})
print("written", flush=True)
os.fsync(fd)
`;

/** Does not answer writes of what HOLD writes. */
class HangingDisk extends MemoryDisk {
  readonly #held: Reply[] = [];

  override write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    if (bytes[start] === 'x'.charCodeAt(0)) this.#held.push(reply);
    else super.write(offset, bytes, start, length, options, reply);
  }

  get hangs(): boolean {
    return this.#held.length > 0;
  }

  letGo(): void {
    for (const reply of this.#held.splice(0)) reply.done(errno.EIO);
  }
}

function putPartitions(disk: Buffer): void {
  const count = PARTITION / 512;
  putRecord(
    disk,
    0,
    PARTITIONS.map((n) => ({ index: n - 1, type: 0x83, start: n * count, count })),
  );
}

describe(
  'a server that hangs',
  requires({ root: true, fuse: true, programs: ['nbdkit', 'python3'] }),
  () => {
    let place: Workplace;
    const helpers: Running[] = [];
    let stopServer: () => Promise<void>;

    beforeEach(async () => {
      place = await Workplace.create();
      await mkdir(place.join('dir'));
      stopServer = () => Promise.resolve();
    });
    afterEach(async () => {
      try {
        for (const { pid, hasEnded } of helpers) if (!hasEnded) process.kill(pid, 'SIGKILL');
        await Promise.all(helpers.splice(0).map(({ ended }) => ended));
        await stopServer();
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    async function python(script: string, ...args: readonly string[]): Promise<Running> {
      const running = place.start('python3', ['-c', script, ...args], { deadline: PATIENCE });
      helpers.push(running);
      await until(`${args[0] ?? ''} is written`, () => running.stdout.includes('written'));
      return running;
    }

    const mount = (socket: string): Promise<Mounted> =>
      place.mount(['--partitions', 'dir/disk', `nbd+unix:///?socket=${socket}`]);

    async function isBusy({ running }: Mounted): Promise<void> {
      await until('it names the holder', () =>
        running.stderr.includes('dir/disk is busy, held by python3 '),
      );
    }

    /** Every thread that tells the kernel what has changed behind a file waits for the server. */
    async function hang(): Promise<Mounted> {
      const disk = new HangingDisk({ size: SIZE });
      putPartitions(disk.content);
      const listener = Listener.unix(place.join('socket'));
      const server = serve(disk, [listener], {});
      stopServer = async () => {
        disk.letGo();
        await server.close();
        listener.close();
      };
      const mounted = await mount(place.join('socket'));
      await python(HOLD, 'dir/disk', ...PARTITIONS.map((n) => String(n * PARTITION + PAGE)));
      const writers = await Promise.all(PARTITIONS.map((n) => python(OVERWRITE, `dir/disk${n}`)));
      await until('it hangs', () => disk.hangs);
      // A sync does not wait for the other files for ever.
      for (const { ended } of writers) assert.equal((await ended).status, 0);
      return mounted;
    }

    it('and was stopped is left after the third signal', async () => {
      const image = Buffer.alloc(SIZE);
      putPartitions(image);
      await place.file('image', image);
      const server = await startNbdkit(['file', place.join('image')]);
      stopServer = () => server.stop();
      const mounted = await mount(server.socketPath);
      process.kill(server.pid, 'SIGSTOP');
      try {
        for (const name of ['disk', ...PARTITIONS.map((n) => `disk${n}`)]) {
          await python(HOLD, `dir/${name}`, String(PAGE));
        }
        mounted.signal('SIGTERM');
        await isBusy(mounted);
        // Of two that are the same, one may be all that arrives.
        mounted.signal('SIGINT');
        mounted.signal('SIGTERM');
        const { status, stderr } = await mounted.running.ended;
        assert.equal(status, 8);
        assert.match(stderr, /\ntsnbdfuse: dir\/disk: not all was written when it ended; .*\n$/);
      } finally {
        process.kill(server.pid, 'SIGCONT');
      }
    });

    it('in the way of the page cache is left after the third signal', async () => {
      const mounted = await hang();
      mounted.signal('SIGTERM');
      await isBusy(mounted);
      mounted.signal('SIGINT');
      mounted.signal('SIGTERM');
      const { status, stderr } = await mounted.running.ended;
      assert.equal(status, 8);
      assert.match(stderr, /\ntsnbdfuse: dir\/disk: not all was written when it ended; .*\n$/);
    });

    it('in the way of the page cache is left after the second signal, a while later', async () => {
      const mounted = await hang();
      mounted.signal('SIGTERM');
      await isBusy(mounted);
      mounted.signal('SIGTERM');
      const { status, stderr } = await mounted.running.ended;
      assert.equal(status, 8);
      assert.match(stderr, /was detached while it was open, and not all that was written could be/);
    });
  },
);
