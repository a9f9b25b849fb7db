/** The units in systemd/, as far as they can be tried where systemd does not run. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PACKAGE_ROOT } from '../../src/package-root.js';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const UNITS = join(PACKAGE_ROOT, 'systemd');
const SERVICE = join(UNITS, 'tsnbdfuse@.service');

/** Each line of a unit that sets something. */
async function settings(path: string): Promise<Map<string, string>> {
  const lines = (await readFile(path, 'utf8')).split('\n');
  return new Map(
    lines.flatMap((line) => {
      const [, name, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name, value] as const];
    }),
  );
}

describe('the units of systemd', () => {
  let place: Workplace;
  beforeEach(async () => {
    place = await Workplace.create();
  });
  afterEach(() => place.finish());

  it(
    'are understood by systemd, without a complaint',
    requires({ programs: ['systemd-analyze'] }),
    async () => {
      // As it is when the package is installed where systemd looks.
      const service = (await readFile(SERVICE, 'utf8')).replace(
        'ExecStart=tsnbdfuse ',
        `ExecStart=${TSNBDFUSE} `,
      );
      assert.ok(service.includes(TSNBDFUSE));
      await place.file('tsnbdfuse@disk.service', service);
      await place.file('mnt-disk.mount', await readFile(join(UNITS, 'mnt-disk.mount')));
      for (const unit of ['./tsnbdfuse@disk.service', './mnt-disk.mount']) {
        const words = ['verify', '--man=no', unit];
        const { status, stdout, stderr } = await place.run('systemd-analyze', words);
        assert.deepEqual([status, stdout, stderr], [0, '', ''], unit);
      }
    },
  );

  it(
    'unmount, and write and detach when a program has the file open',
    requires({ root: true, fuse: true, programs: ['python3'] }),
    async () => {
      await place.file('disk.raw');
      const stop = (await settings(SERVICE)).get('ExecStop') ?? '';
      const script = /^\/bin\/sh -c '(.*)'$/.exec(stop)?.[1] ?? '';
      const runStop = async (pid: number): Promise<void> => {
        // systemd has expanded this one for the shell.
        await place.ok('sh', ['-c', script], { env: { MAINPID: String(pid) } });
      };
      const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '4M', ']']);
      await runStop(mounted.pid);
      assert.equal((await mounted.running.ended).status, 0);

      const busy = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '4M', ']']);
      const hold = 'f = open("disk.raw"); print("open", flush=True); input()';
      const holder = place.start('python3', ['-c', hold], { talk: true });
      await until('it is open', () => holder.stdout.includes('open'));
      await runStop(busy.pid);
      assert.ok(busy.running.stderr.includes('is busy, held by python3'));
      // What systemd does then.
      busy.signal('SIGTERM');
      await until('it is detached', async () => (await place.mounts()).length === 0);
      holder.tell('\n');
      assert.equal((await busy.running.ended).status, 0);
      await holder.ended;
    },
  );
});
