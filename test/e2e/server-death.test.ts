/** A server that dies under a mount, and a mount whose own process does. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const READ = ['if=disk.raw', 'of=/dev/null', 'bs=4096', 'count=1', 'iflag=direct', 'status=none'];
const WRITE = ['if=/dev/zero', 'of=disk.raw', 'bs=4096', 'count=1', 'conv=notrunc,fsync'];

describe('a death', requires({ root: true, fuse: true, programs: ['nbdkit', 'qemu-nbd'] }), () => {
  let place: Workplace;
  let server: RealServer | undefined;

  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    await place.ok('truncate', ['-s', '1M', 'image']);
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

  /** The process that was started here and whose command line begins with this. */
  async function pidOf(command: string): Promise<number> {
    const found = [...(await place.processes())].filter(([, line]) => line.startsWith(command));
    assert.equal(found.length, 1, `one process ${command}`);
    return found[0]?.[0] ?? -1;
  }

  async function givesErrors(): Promise<void> {
    for (const args of [READ, WRITE]) {
      const { status, stderr } = await place.run('dd', args);
      assert.notEqual(status, 0);
      assert.match(stderr, /Input\/output error/);
    }
    // What needs no server goes on.
    assert.equal((await place.ok('stat', ['-c', '%s', 'disk.raw'])).trim(), String(1024 * 1024));
  }

  async function endsWithOneLine(mounted: Mounted, message: RegExp): Promise<void> {
    const { status, stderr } = await mounted.unmount('disk.raw');
    assert.equal(status, 7);
    const lines = stderr.split('\n').filter((line) => line.startsWith('tsnbdfuse: '));
    assert.equal(lines.length, 1, stderr);
    assert.match(lines[0] ?? '', message);
  }

  for (const [name, command] of [
    ['nbdkit', ['nbdkit', 'file', 'image']],
    ['qemu-nbd', ['qemu-nbd', '-f', 'raw', 'image']],
  ] as const) {
    for (const cache of ['writeback', 'none']) {
      it(`of a captive ${name} gives errors at once, with --cache=${cache}`, async () => {
        const mounted = await place.mount([`--cache=${cache}`, 'disk.raw', '[', ...command, ']']);
        await place.ok('dd', WRITE);
        process.kill(await pidOf(name), 'SIGKILL');
        await until('it is told', () => mounted.running.stderr.includes('tsnbdfuse: '));
        await givesErrors();
        await endsWithOneLine(
          mounted,
          /^tsnbdfuse: server \S+ was killed by SIGKILL; disk\.raw now/,
        );
      });
    }
  }

  it('of a server that somebody else runs does the same', async () => {
    server = await startNbdkit(['file', place.join('image')]);
    const uri = `nbd+unix:///?socket=${server.socketPath}`;
    const mounted = await place.mount(['--reconnect=0', 'disk.raw', uri]);
    process.kill(server.pid, 'SIGKILL');
    await until('it is told', () => mounted.running.stderr.includes('tsnbdfuse: '));
    await givesErrors();
    await endsWithOneLine(mounted, /^tsnbdfuse: nbd\+unix:.* closed .*; disk\.raw now gives/);
  });

  it('answers requests that were waiting for the server', async () => {
    const slow = ['nbdkit', '--filter=delay', 'file', 'image', 'rdelay=600', 'wdelay=600'];
    const mounted = await place.mount(['-r', '--cache=none', 'disk.raw', '[', ...slow, ']']);
    const reading = place.start('dd', READ);
    const writing = place.start('dd', [...READ.slice(0, -1), 'skip=100', 'status=none']);
    await until('both wait', async () => {
      const lines = [...(await place.processes()).values()];
      return lines.filter((line) => line.startsWith('dd ')).length === 2;
    });
    assert.ok(!reading.hasEnded);
    process.kill(await pidOf('nbdkit'), 'SIGKILL');
    for (const { ended } of [reading, writing]) {
      const { status, stderr } = await ended;
      assert.notEqual(status, 0);
      assert.match(stderr, /Input\/output error/);
    }
    await endsWithOneLine(mounted, /was killed by SIGKILL/);
  });

  it('of the command itself takes the server and its socket along', async () => {
    const mounted = await place.mount(['disk.raw', '[', 'nbdkit', 'file', 'image', ']']);
    await place.ok('dd', WRITE);
    mounted.signal('SIGKILL');
    assert.equal((await mounted.running.ended).signal, 'SIGKILL');
    await until('the server is gone', async () => (await place.processes()).size === 0);
    assert.match((await place.run('dd', READ)).stderr, /not connected/);
    await place.ok('fusermount3', ['-u', 'disk.raw']);
    assert.ok(existsSync(place.join('disk.raw')));
  });

  it('of the command by SIGTERM is an orderly unmount', async () => {
    const mounted = await place.mount(['disk.raw', '[', 'nbdkit', 'file', 'image', ']']);
    await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', 'count=1', 'status=none']);
    await place.ok('cp', ['data', 'disk.raw']);
    mounted.signal('SIGTERM');
    const { status, stderr } = await mounted.running.ended;
    assert.deepEqual([status, stderr], [0, '']);
    await place.ok('cmp', ['data', 'image']);
  });
});
