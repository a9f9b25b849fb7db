/** Servers that somebody else runs, reached by a URI, and mounting as an ordinary user. */

import assert from 'node:assert/strict';
import { chmod, chown, stat } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import type { Running } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const NOBODY = 65534;

describe(
  'reaching a disk',
  requires({ root: true, fuse: true, programs: ['setpriv', 'fusermount3', 'nbdinfo'] }),
  () => {
    let place: Workplace;
    let server: Running | undefined;

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
    });
    afterEach(async () => {
      try {
        if (server !== undefined) {
          process.kill(server.pid, 'SIGTERM');
          await server.ended;
        }
        server = undefined;
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    async function useIt(uri: string): Promise<void> {
      const mounted = await place.mount(['disk.raw', uri]);
      await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', 'count=4', 'status=none']);
      await place.ok('dd', ['if=data', 'of=disk.raw', 'bs=1M', 'conv=notrunc', 'status=none']);
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
      const again = await place.mount(['-r', 'disk.raw', uri]);
      await place.ok('cmp', ['data', 'disk.raw']);
      assert.notEqual((await place.run('dd', ['if=data', 'of=disk.raw', 'count=1'])).status, 0);
      assert.equal((await again.unmount('disk.raw')).status, 0);
    }

    it('works by nbd+unix: with an export name', async () => {
      server = place.start('tsnbdkit', [
        '-U',
        'nbd.sock',
        '-P',
        'kit.pid',
        '-e',
        'a/b',
        'memory',
        '4M',
      ]);
      await until('the server is ready', async () =>
        stat(place.join('kit.pid')).then(
          () => true,
          () => false,
        ),
      );
      await useIt(`nbd+unix:///a/b?socket=${place.join('nbd.sock')}`);
    });

    it('works by nbd: over TCP', async () => {
      server = place.start('tsnbdkit', ['-p', '10919', '-P', 'kit.pid', 'memory', '4M']);
      await until('the server is ready', async () =>
        stat(place.join('kit.pid')).then(
          () => true,
          () => false,
        ),
      );
      await useIt('nbd://localhost:10919');
      await useIt('nbd://127.0.0.1:10919/');
    });

    describe('as an ordinary user', () => {
      let mode = 0;

      before(async () => {
        // As udev has it on a usual machine.
        ({ mode } = await stat('/dev/fuse'));
        await chmod('/dev/fuse', 0o666);
      });
      after(() => chmod('/dev/fuse', mode & 0o777));

      it('works by fusermount3', async () => {
        for (const path of [place.path, place.join('run'), place.join('disk.raw')]) {
          await chown(path, NOBODY, NOBODY);
        }
        const user = ['--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups'];
        const script = `set -e
        tsnbdfuse -P pid disk.raw [ tsnbdkit memory 4M ] & job=$!
        i=0; until [ -e pid ]; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ]; done
        head -c 4194304 /dev/urandom > data
        dd if=data of=disk.raw bs=1M conv=notrunc status=none
        cmp data disk.raw
        fusermount3 -u disk.raw
        wait $job`;
        await place.ok('setpriv', [...user, 'sh', '-c', script]);
      });
    });
  },
);
