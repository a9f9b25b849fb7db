/** A terminal that is closed ends the mount in good order, as SIGTERM does. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import { requires } from '../support/requires.js';

/** Runs the command in a terminal of its own, which is closed when there is a file of that name. */
const TERMINAL = `
import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
def wait(name):
    while not os.path.exists(name):
        time.sleep(0.02)
wait('pid')
print('mounted', flush=True)
wait('close')
os.close(terminal)
print('status', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
`;

describe('a closed terminal', requires({ root: true, fuse: true, programs: ['python3'] }), () => {
  let place: Workplace;
  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    await place.ok('truncate', ['-s', '4M', 'image']);
  });
  afterEach(async () => {
    try {
      await place.nothingLeft();
    } finally {
      await place.remove();
    }
  });

  for (const [name, options] of [
    ['with nothing to say', []],
    ['with much to say to it', ['-v']],
  ] as const) {
    it(`flushes, unmounts and exits with 0, ${name}`, async () => {
      const server = ['[', 'tsnbdkit', 'file', 'image', ']'];
      const command = [TSNBDFUSE, ...options, '-P', 'pid', 'disk.raw', ...server];
      const running = place.start('python3', ['-c', TERMINAL, ...command]);
      await until('it is mounted', () => running.hasEnded || running.stdout.includes('mounted'));
      await place.ok('sh', ['-c', 'head -c 4M /dev/urandom >data']);
      // The terminal closes while the data are in the page cache at the latest.
      const script = 'exec 5<>disk.raw; cat data >&5; : >close';
      await place.ok('sh', ['-c', script]);
      const { stdout } = await running.ended;
      assert.match(stdout, /^status 0$/m);
      await place.ok('cmp', ['data', 'image']);
    });
  }
});
