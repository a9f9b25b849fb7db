/** A server that has stopped answering does not keep an unmount for more than 10 s beyond --timeout. */

import assert from 'node:assert/strict';
import { truncate } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { TOO_LATE, within } from '../../src/deadline.js';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted, Result, Running } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

/** Seconds for a request, and what the end may take beside that. */
const TIMEOUT = 1;
const BESIDE = 10;

const SIZE = 64 * 1024 * 1024;

const WRITE = ['if=/dev/urandom', 'of=disk.raw', 'bs=1M', 'count=8', 'conv=notrunc', 'status=none'];
const READ = ['if=disk.raw', 'of=/dev/null', 'bs=4096', 'count=1', 'iflag=direct', 'status=none'];

/** A server that a wrapper starts beside something that no SIGTERM ends. */
const DEAF = `trap '' TERM; sleep 300 & exec nbdkit -f --filter=exitlast file image`;

describe(
  'an unmount of a server that has stopped',
  requires({ root: true, fuse: true, programs: ['nbdkit', 'dd', 'fusermount3'] }),
  () => {
    let place: Workplace;
    let server: RealServer | undefined;

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
      await truncate(await place.file('image'), SIZE);
    });
    afterEach(async () => {
      try {
        if (server !== undefined) {
          process.kill(server.pid, 'SIGCONT');
          await server.stop();
        }
        server = undefined;
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    const mount = (options: readonly string[], source: readonly string[]): Promise<Mounted> =>
      place.mount([`--timeout=${TIMEOUT}`, ...options, 'disk.raw', ...source]);

    /** Starts a server by itself, mounted. */
    async function mountUri(...options: readonly string[]): Promise<Mounted> {
      server = await startNbdkit(['file', place.join('image')]);
      return mount(options, [`nbd+unix:///?socket=${server.socketPath}`]);
    }

    /** Stops every process that serves, however it was started. */
    async function stopServing(): Promise<void> {
      if (server !== undefined) process.kill(server.pid, 'SIGSTOP');
      for (const [pid, line] of await place.processes()) {
        if (line.startsWith('nbdkit ')) process.kill(pid, 'SIGSTOP');
      }
    }

    /** An end that was asked for comes in time. */
    async function endsInTime({ running }: Mounted): Promise<Result> {
      const ended = await within(running.ended, (TIMEOUT + BESIDE) * 1000);
      if (ended === TOO_LATE) throw new Error(`it has not ended; it said: ${running.stderr}`);
      return ended;
    }

    // Who unmounts waits for what is written back: it is no helper that is looked at, but the command.
    const unmount = (...options: readonly string[]): Running =>
      place.start('fusermount3', [...options, 'disk.raw']);

    /** Somebody waits for a server that has stopped with what was written, which the page cache has. */
    async function writeInVain(): Promise<Running> {
      await stopServing();
      const writing = place.start('dd', WRITE, { deadline: 60_000 });
      await place.untilWaits(writing);
      return writing;
    }

    it('ends in time: with nothing that is unwritten', async () => {
      const mounted = await mountUri();
      await place.ok('dd', WRITE);
      await stopServing();
      unmount('-u');
      // The file is shared with others, so that nobody knows what is flushed.
      await endsInTime(mounted);
    });

    it('ends in time: a lazy unmount, with unwritten pages', async () => {
      const mounted = await mountUri();
      const writing = await writeInVain();
      unmount('-uz');
      const { status, stderr } = await endsInTime(mounted);
      assert.equal(status, 7);
      assert.match(stderr, /did not answer within 1 s/);
      assert.notEqual((await writing.ended).status, 0);
    });

    it('ends in time: SIGTERM twice, with unwritten pages', async () => {
      const mounted = await mountUri();
      const writing = await writeInVain();
      mounted.signal('SIGTERM');
      await until('it is busy', () => mounted.running.stderr.includes('is busy'));
      mounted.signal('SIGTERM');
      assert.equal((await endsInTime(mounted)).status, 7);
      assert.notEqual((await writing.ended).status, 0);
    });

    it('ends in time: during a reconnect, and nothing is lost if the server is back', async () => {
      const mounted = await mountUri('--reconnect=600');
      await stopServing();
      const reading = place.start('dd', READ, { deadline: 60_000 });
      await until('it is told', () => mounted.running.stderr.includes('reconnecting'));
      unmount('-uz');
      if (server !== undefined) process.kill(server.pid, 'SIGCONT');
      const { status, stderr } = await endsInTime(mounted);
      assert.equal(status, 0, stderr);
      await reading.ended;
    });

    it('ends in time: read-only, with a read that nobody waits for any more', async () => {
      const mounted = await mountUri('-r');
      await stopServing();
      const reading = place.start('dd', READ);
      await place.untilWaits(reading);
      process.kill(reading.pid, 'SIGKILL');
      await reading.ended;
      unmount('-u');
      await endsInTime(mounted);
    });

    for (const [name, source, options] of [
      ['captive', ['[', 'nbdkit', 'file', 'image', ']'], []],
      ['captive over a pipe', ['--command', 'nbdkit', '-s', 'file', 'image'], []],
      ['captive, and deaf', ['[', 'sh', '-c', DEAF, ']'], []],
      [
        'captive, deaf, and to be started again',
        ['[', 'sh', '-c', DEAF, ']'],
        ['--restart-server'],
      ],
    ] as const) {
      it(`ends in time: ${name}`, async () => {
        const mounted = await mount(options, source);
        const writing = await writeInVain();
        unmount('-uz');
        const { status, stderr } = await endsInTime(mounted);
        assert.equal(status, 7);
        assert.match(stderr, /did not answer within 1 s/);
        assert.notEqual((await writing.ended).status, 0);
      });
    }
  },
);
