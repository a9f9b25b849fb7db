/** What runs out on a machine, descriptors and space, is told in one line, and nothing is left of the attempt. */

import assert from 'node:assert/strict';
import { mkdir, readdir } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import type { Result, RunOptions } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const SERVER = ['[', 'tsnbdkit', 'memory', '1M', ']'];

describe('a shortage', requires({ root: true, fuse: true, programs: ['nbdkit', 'mount'] }), () => {
  let place: Workplace;
  let server: RealServer | undefined;
  /** Where a small file system is mounted. */
  let small = '';

  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    small = place.join('small');
    await mkdir(small);
  });
  afterEach(async () => {
    try {
      await server?.stop();
      server = undefined;
      if ((await place.mounts()).includes(small)) await place.ok('umount', [small]);
      await place.nothingLeft();
    } finally {
      await place.remove();
    }
  });

  const mountSmall = (options: string): Promise<string> =>
    place.ok('mount', ['-t', 'tmpfs', '-o', options, 'none', small]);

  /** The command fails with one line, and leaves no mount. */
  async function fails(
    expected: number,
    args: readonly string[],
    message: RegExp,
    options: RunOptions = {},
  ): Promise<Result> {
    const result = await place.tsnbdfuse([...args, 'disk.raw', ...SERVER], options);
    assert.equal(result.status, expected, result.stderr);
    assert.match(result.stderr, message);
    assert.deepEqual(await place.mounts(), [small]);
    return result;
  }

  /** Runs the command with so many descriptors. */
  const limited = (most: number, args: readonly string[]): readonly string[] => [
    '-c',
    `ulimit -n ${most}; exec "$0" "$@"`,
    TSNBDFUSE,
    ...args,
  ];

  it('of descriptors leaves some for all else, however many connections there may be', async () => {
    server = await startNbdkit(['memory', '1M']);
    const uri = `nbd+unix:///?socket=${server.socketPath}`;
    const options = ['-C', '200', '-P', 'pid', 'disk.raw', uri];
    const running = place.start('sh', limited(64, options));
    await until('it is mounted', async () => (await readdir(place.path)).includes('pid'));
    await place.ok('dd', [
      'if=/dev/zero',
      'of=disk.raw',
      'bs=64k',
      'count=16',
      'conv=notrunc,fsync',
    ]);
    const descriptors = await readdir(`/proc/${running.pid}/fd`);
    assert.ok(descriptors.length > 24, `${descriptors.length}: there are several connections`);
    process.kill(running.pid, 'SIGTERM');
    const { status, stderr } = await running.ended;
    assert.equal(status, 0, stderr);
    assert.match(
      stderr,
      /^tsnbdfuse: at the most 16 of 200 connections are made, as only 64 open files are allowed; allow more with: ulimit -n 248$/m,
    );
  });

  it('of descriptors of a captive server as well is no harm', async () => {
    const running = place.start('sh', limited(64, ['-P', 'pid', 'disk.raw', ...SERVER]));
    await until('it is mounted', async () => (await readdir(place.path)).includes('pid'));
    process.kill(running.pid, 'SIGTERM');
    const { status, stderr } = await running.ended;
    assert.deepEqual([status, stderr], [0, '']);
  });

  it('of space for the pidfile', async () => {
    await mountSmall('size=4k');
    await place.file('small/full', Buffer.alloc(4096));
    await fails(
      1,
      ['-P', 'small/pid'],
      /^tsnbdfuse: cannot write the pidfile small\/pid: no space left on device\n$/,
    );
    assert.deepEqual(await readdir(small), ['full']);
  });

  it('of places for the pidfile', async () => {
    await mountSmall('nr_inodes=1');
    await fails(
      1,
      ['-P', 'small/pid'],
      /^tsnbdfuse: cannot write the pidfile small\/pid: no space left on device\n$/,
    );
    assert.deepEqual(await readdir(small), []);
  });

  it('of places for the socket', async () => {
    // One for the directory, and none for the socket in it.
    await mountSmall('nr_inodes=2');
    await fails(4, [], /^tsnbdfuse: .*\/small\/tsnbdfuse-\w+\/socket: no space left on device\n$/, {
      env: { XDG_RUNTIME_DIR: small },
    });
    assert.deepEqual(await readdir(small), []);
  });

  it('of places for the directory of the socket leads elsewhere', async () => {
    await mountSmall('nr_inodes=1');
    const mounted = await place.mount(['disk.raw', ...SERVER], { env: { XDG_RUNTIME_DIR: small } });
    const [name] = await readdir(place.join('run'));
    assert.match(name ?? '', /^tsnbdfuse-/);
    const { status, stderr } = await mounted.unmount('disk.raw');
    assert.deepEqual([status, stderr], [0, '']);
  });
});
