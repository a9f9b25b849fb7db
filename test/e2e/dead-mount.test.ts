/** A mount that a killed command has left behind makes room for the next one, if it is ours, and nobody else's. */

import assert from 'node:assert/strict';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted, Result } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const SERVER = ['[', 'tsnbdkit', 'memory', '1M', ']'];
const USER = 65534;

const cleared = (shown: string): string =>
  `tsnbdfuse: ${shown} was still the mount of a tsnbdfuse that was killed; it was taken away\n`;

describe(
  'a dead mount',
  requires({ root: true, fuse: true, programs: ['fusermount3', 'setpriv'] }),
  () => {
    let place: Workplace;

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw', 'below');
      await mkdir(place.join('dir'));
    });
    afterEach(async () => {
      try {
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    /** Kills a mount. The captive server ends by itself. */
    async function die(mounted: Mounted): Promise<void> {
      await mounted.kill();
      await until('its server is gone', async () => (await place.processes()).size === 0);
    }

    async function worksAndEnds(mounted: Mounted, file: string, at: string): Promise<Result> {
      await place.ok('dd', ['if=/dev/zero', `of=${file}`, 'bs=4k', 'count=1', 'conv=notrunc']);
      const result = await mounted.unmount(at);
      assert.equal(result.status, 0);
      return result;
    }

    for (const user of [undefined, USER]) {
      const who = user === undefined ? 'root' : 'an ordinary user';
      for (const [name, mountpoint, shown, file] of [
        ['a file', 'disk.raw', 'disk.raw', 'disk.raw'],
        ['a directory', 'dir', 'dir', 'dir/nbd'],
      ] as const) {
        it(`on ${name} is taken away by the next: ${who}`, async () => {
          if (user !== undefined) await place.give(user, 'disk.raw', 'dir');
          await die(await place.mount([mountpoint, ...SERVER], { user }));
          const mounted = await place.mount([mountpoint, ...SERVER], { user });
          assert.equal(mounted.running.stderr, cleared(shown));
          if (user === undefined) await worksAndEnds(mounted, file, shown);
          else {
            mounted.signal('SIGTERM');
            assert.equal((await mounted.running.ended).status, 0);
          }
          assert.equal(await readFile(place.join('disk.raw'), 'utf8'), 'below');
        });
      }
    }

    it('with a name in a directory is taken away by the next', async () => {
      await die(await place.mount(['dir/disk.raw', ...SERVER]));
      const mounted = await place.mount(['dir/other.raw', ...SERVER]);
      assert.equal(mounted.running.stderr, cleared(place.join('dir')));
      await worksAndEnds(mounted, 'dir/other.raw', 'dir');
    });

    it('behind a symbolic link is taken away by the next', async () => {
      await symlink('dir', place.join('link'));
      await die(await place.mount(['link/disk.raw', ...SERVER]));
      const mounted = await place.mount(['link/disk.raw', ...SERVER]);
      assert.match(mounted.running.stderr, /was still the mount of a tsnbdfuse that was killed/);
      await worksAndEnds(mounted, 'dir/disk.raw', 'dir');
    });

    it('that somebody still has open is taken away by the next', async () => {
      const killed = await place.mount(['disk.raw', ...SERVER]);
      const holder = place.start('sh', ['-c', 'exec 5<>disk.raw; echo open; exec sleep 1000']);
      await until('it is open', () => holder.stdout.includes('open'));
      await killed.kill();
      const mounted = await place.mount(['disk.raw', ...SERVER]);
      assert.equal(mounted.running.stderr, cleared('disk.raw'));
      await worksAndEnds(mounted, 'disk.raw', 'disk.raw');
      process.kill(holder.pid, 'SIGKILL');
      await holder.ended;
    });

    async function isRefused(args: readonly string[], kind: string, user?: number): Promise<void> {
      const before = await place.mounts();
      const { status, stderr } = await place.tsnbdfuse([...args, ...SERVER], { user });
      assert.equal(status, 3);
      assert.match(stderr, new RegExp(`^tsnbdfuse: \\S+ is already a mount \\(${kind}, \\w+\\);`));
      assert.deepEqual(await place.mounts(), before);
    }

    it('of somebody else stays, also for root', async () => {
      await place.give(USER, 'disk.raw');
      await die(await place.mount(['disk.raw', ...SERVER], { user: USER }));
      await isRefused(['disk.raw'], 'fuse.tsnbdfuse');
      await place.ok('umount', ['disk.raw']);
    });

    it('of root stays, for an ordinary user', async () => {
      await die(await place.mount(['disk.raw', ...SERVER]));
      await place.give(USER);
      await isRefused(['disk.raw'], 'fuse.tsnbdfuse', USER);
      await place.ok('umount', ['disk.raw']);
    });

    it('of another kind stays', async () => {
      await die(await place.mount(['-o', 'subtype=other', 'disk.raw', ...SERVER]));
      await isRefused(['disk.raw'], String.raw`fuse\.other`);
      await place.ok('umount', ['disk.raw']);
    });

    it('is not one that lives, on whatever it waits', async () => {
      const mounted = await place.mount(['dir/disk.raw', ...SERVER]);
      await isRefused(['dir'], 'fuse.tsnbdfuse');
      mounted.signal('SIGSTOP');
      await isRefused(['dir'], 'fuse.tsnbdfuse');
      await isRefused(['dir/disk.raw'], 'fuse.tsnbdfuse');
      mounted.signal('SIGCONT');
      assert.equal((await worksAndEnds(mounted, 'dir/disk.raw', 'dir')).stderr, '');
    });
  },
);
