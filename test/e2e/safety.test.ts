/** Nobody is let in who is not meant to be, and nothing that a user writes is run by a shell. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const USER = 65534;

/** Names by which a shell that saw them would make the file `pwned`. */
const NAMES = [
  '$(touch pwned)',
  '`touch pwned`',
  "'; touch pwned; '",
  '"; touch pwned; "',
  'a\ntouch pwned\n',
  '& touch pwned &',
  '-rf; touch pwned #',
  '\\$(touch pwned)\\',
] as const;

describe(
  'safety',
  requires({ root: true, fuse: true, programs: ['nbdkit', 'fusermount3', 'setpriv', 'find'] }),
  () => {
    let place: Workplace;
    beforeEach(async () => {
      place = await Workplace.create();
    });
    afterEach(async () => {
      try {
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    /** Every process with what others can see of it, or who has the same user: arguments and environment. */
    async function listings(): Promise<string> {
      const texts: string[] = [];
      for (const pid of (await place.processes()).keys()) {
        for (const file of ['cmdline', 'environ', 'comm']) {
          texts.push(await readFile(`/proc/${pid}/${file}`, 'latin1').catch(() => ''));
        }
      }
      return texts.join('\0');
    }

    async function nothingRan(): Promise<void> {
      const folders = [place.path, '/'];
      for (const folder of folders) assert.ok(!existsSync(join(folder, 'pwned')));
      assert.equal(await place.ok('find', ['.', '-name', 'pwned']), '');
    }

    const unmounts = async (mounted: Mounted, status = 0): Promise<void> => {
      mounted.signal('SIGTERM');
      assert.equal((await mounted.running.ended).status, status);
    };

    for (const name of NAMES) {
      describe(`no shell sees the name ${JSON.stringify(name)}`, () => {
        it('of a mountpoint, an image and a pidfile', async () => {
          await place.file(`./${name}`);
          await place.file(`./${name}.image`, Buffer.alloc(1 << 20, 1));
          const image = join(place.path, `${name}.image`);
          const server = ['[', 'nbdkit', 'file', image, ']'];
          await unmounts(await place.mount([`./${name}`, ...server]));
          await nothingRan();
        });

        it('of a directory that is mounted on, also when the command is killed', async () => {
          await mkdir(place.join(name));
          const options = ['-o', 'auto_unmount'];
          const server = ['[', 'tsnbdkit', 'memory', '1M', ']'];
          const mounted = await place.mount([...options, `./${name}/disk`, ...server]);
          await mounted.kill();
          await until('the mount is gone', async () => (await place.mounts()).length === 0);
          await nothingRan();
        });

        it('of the folder for sockets, also when the command is killed', async () => {
          await place.file('disk.raw');
          const folder = place.join(name);
          await mkdir(folder);
          const env = { XDG_RUNTIME_DIR: folder };
          const server = ['[', 'tsnbdkit', 'memory', '1M', ']'];
          const mounted = await place.mount(['disk.raw', ...server], { env });
          assert.equal((await readdir(folder)).length, 1);
          await mounted.kill();
          await until('its folder is gone', async () => (await readdir(folder)).length === 0);
          await place.ok('umount', ['disk.raw']);
          await nothingRan();
        });

        it('of a partition’s disk, or of a server that is not there', async () => {
          await mkdir(place.join('dir'));
          const disk = `dir/${name.replaceAll('/', '')}`;
          const server = ['[', 'tsnbdkit', 'memory', '1M', ']'];
          await unmounts(await place.mount(['--partitions', disk, ...server]));
          const failed = await place.tsnbdfuse([disk, '[', name, ']']);
          assert.equal(failed.status, 4);
          assert.equal(failed.stderr.trimEnd().split('\n').length, 1, failed.stderr);
          await nothingRan();
        });
      });
    }

    it('the socket of a captive server is behind a door that is its owner’s alone', async () => {
      await place.file('disk.raw');
      const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']']);
      const [folder = ''] = await readdir(place.join('run'));
      const path = join(place.join('run'), folder);
      assert.equal((await stat(path)).mode & 0o777, 0o700);
      await place.ok('chmod', ['a+rx', '.', 'run']);
      const looked = await place.run('ls', [path], { user: USER });
      assert.match(looked.stderr, /Permission denied/);
      await unmounts(mounted);
    });

    it('a key is in no trace and in no listing of processes', async () => {
      await place.file('disk.raw');
      const key = randomBytes(32).toString('hex');
      const keys = await place.file('keys.psk', `somebody:${key}\n`, 0o600);
      const server = await startNbdkit(['--tls=require', `--tls-psk=${keys}`, 'memory', '1M']);
      try {
        const query = `socket=${server.socketPath}&tls-psk-file=${keys}&tls-username=somebody`;
        const uri = `nbds+unix:///?${query}`;
        const mounted = await place.mount(['-v', 'disk.raw', uri], { env: { DEBUG: '*' } });
        await place.ok('dd', ['if=disk.raw', 'of=/dev/null', 'bs=64k', 'status=none']);
        const listed = await listings();
        assert.ok(listed.includes('tls-username=somebody'), 'the command is among them');
        assert.ok(!listed.includes(key));
        mounted.signal('SIGTERM');
        const { status, stderr } = await mounted.running.ended;
        assert.equal(status, 0);
        assert.match(stderr, /tsnbdfuse:nbd /);
        for (const form of [key, Buffer.from(key, 'hex').toString('base64')]) {
          assert.ok(!stderr.includes(form));
        }
      } finally {
        await server.stop();
      }
    });

    it('what a captive server is told is in no message, nor in the table of mounts', async () => {
      await place.file('disk.raw');
      const secret = `password=${randomBytes(16).toString('hex')}`;
      const server = ['[', 'nbdkit', 'memory', '1M', '-D', secret, ']'];
      const result = await place.tsnbdfuse(['disk.raw', ...server]);
      // Neither in what is said of it when it fails.
      const own = result.stderr.split('\n').filter((line) => line.startsWith('tsnbdfuse: '));
      assert.equal(result.status, 4);
      assert.ok(
        own.every((line) => !line.includes(secret)),
        own.join('\n'),
      );
      const image = ['[', 'tsnbdkit', 'memory', '1M', ']'];
      const mounted = await place.mount(['disk.raw', ...image]);
      const table = await readFile('/proc/self/mountinfo', 'utf8');
      const line = table.split('\n').find((one) => one.includes(place.join('disk.raw'))) ?? '';
      assert.match(line, / - fuse\.tsnbdfuse tsnbdkit /, 'the name of the server, and no argument');
      await unmounts(mounted);
    });
  },
);
