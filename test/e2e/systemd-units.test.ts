/** The units in systemd/, as far as they can be tried where systemd does not run. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { ExitStatus } from '../../src/cli/exit-status.js';
import { PACKAGE_ROOT } from '../../src/package-root.js';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import type { Result } from '../support/mounts.js';
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

  it('start again after what may be over the next time, and after nothing else', async () => {
    const { SAFE, FAILED, SERVER, ...others } = ExitStatus;
    const { SIGHUP, SIGINT, SIGTERM } = constants.signals;
    const unit = await settings(SERVICE);
    assert.equal(unit.get('Restart'), 'on-failure');
    assert.deepEqual(
      unit.get('RestartPreventExitStatus')?.split(' ').map(Number),
      [...Object.values(others), ...[SIGHUP, SIGINT, SIGTERM].map((signal) => 128 + signal)],
      `all but ${SAFE}, ${FAILED} and ${SERVER}`,
    );
  });

  it(
    'unmount, and write and detach when a program has the file open',
    requires({ root: true, fuse: true, programs: ['python3'] }),
    async () => {
      await place.file('disk.raw');
      const stop = (await settings(SERVICE)).get('ExecStop') ?? '';
      const script = /^-\/bin\/sh -c '(.*)'$/.exec(stop)?.[1] ?? '';
      assert.notEqual(script, '');
      const runStop = async (pid: number | ''): Promise<Result> => {
        // systemd leaves these to the shell.
        const env = {
          MAINPID: String(pid),
          MOUNTPOINT: place.join('disk.raw'),
          PATH: `${dirname(TSNBDFUSE)}:${process.env['PATH'] ?? ''}`,
        };
        return place.run('sh', ['-c', script], { env });
      };
      const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '4M', ']']);
      const stopped = await runStop(mounted.pid);
      assert.deepEqual([stopped.status, stopped.stderr], [0, '']);
      assert.deepEqual(await place.mounts(), []);
      assert.equal((await mounted.running.ended).status, 0);

      // It was unmounted before, which ends it as well.
      const nothing = await runStop('');
      assert.deepEqual([nothing.status, nothing.stderr], [0, '']);

      const busy = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '4M', ']']);
      const hold = 'f = open("disk.raw"); print("open", flush=True); input()';
      const holder = place.start('python3', ['-c', hold], { talk: true });
      await until('it is open', () => holder.stdout.includes('open'));
      const { stderr } = await runStop(busy.pid);
      assert.match(stderr, /disk\.raw is still busy after 10 s, held by python3/);
      await until('it has the signal', () => busy.running.stderr.includes('is busy'));
      // What systemd does then.
      busy.signal('SIGTERM');
      await until('it is detached', async () => (await place.mounts()).length === 0);
      holder.tell('\n');
      assert.equal((await busy.running.ended).status, 0);
      await holder.ended;
    },
  );
});
