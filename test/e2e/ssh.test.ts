/**
 * A disk behind nbd+ssh: mounted. A script stands in for ssh: it runs here what ssh would run on the
 * far side, and, as ssh does, lasts as long as that.
 */

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { TSNBDKIT, Workplace, until } from '../support/mounts.js';
import type { Mounted, RunOptions, Running } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const SSH = `#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift 2
# Not exec: it stays, as ssh does, until the far side has ended.
exec 3<&0
sh -c "exec $*" <&3 3<&- &
far=$!
exec 3<&- <&- >&-
trap 'kill $far; exit 143' TERM
wait
`;

describe('a disk through ssh', requires({ fuse: true, programs: ['nc'] }), () => {
  let place: Workplace;
  let kit: Running;
  let image = '';
  let uri = '';
  let options: RunOptions = {};

  before(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    image = await place.file('image', Buffer.alloc(4 << 20));
    await mkdir(place.join('bin'));
    await place.file('bin/ssh', SSH, 0o755);
    options = { env: { PATH: `${place.join('bin')}:${place.env['PATH'] ?? ''}` } };
    const socket = place.join("it's.sock");
    kit = place.start(TSNBDKIT, ['-U', socket, 'file', image], { deadline: 600_000 });
    await until(
      'tsnbdkit listens',
      async () => (await place.run('test', ['-S', socket])).status === 0,
    );
    uri = `nbd+ssh://me@far.example/?socket=${encodeURIComponent(socket)}`;
  });
  after(async () => {
    process.kill(kit.pid, 'SIGTERM');
    await kit.ended;
    await place.nothingLeft();
    await place.remove();
  });

  /** The processes that are ssh or were started by it, or guard it. */
  const far = async (): Promise<[number, string][]> =>
    [...(await place.processes())].filter(([, words]) => /\/bin\/ssh |nc -U |guardian/.test(words));

  afterEach(() => until('ssh has ended', async () => (await far()).length === 0));

  const mount = (...args: readonly string[]): Promise<Mounted> =>
    place.mount([...args, 'disk.raw', uri], options);
  const write = (text: string): Promise<string> =>
    place.ok('dd', ['of=disk.raw', 'conv=notrunc'], { input: text });
  const content = async (length: number): Promise<string> =>
    (await readFile(image)).toString('latin1', 0, length);

  it('is read and written over one connection, and unmounted', async () => {
    const mounted = await mount();
    await write('by ssh');
    // tsnbdkit takes several connections, but each would be a login.
    const ssh = (await far()).filter(([, words]) => words.includes('/bin/ssh '));
    assert.deepEqual(
      ssh.map(([, words]) => words.replace(/^.*\/bin\/ssh /, '')),
      [`-T -l me -- far.example nc -U '${place.path}/it'\\''s.sock'`],
    );
    const result = await mounted.unmount('disk.raw');
    assert.deepEqual([result.status, result.stderr], [0, '']);
    assert.equal(await content(6), 'by ssh');
  });

  it('is flushed when Ctrl-C reaches ssh as well', async () => {
    const mounted = await mount();
    const script = 'printf interrupted | dd of=disk.raw conv=notrunc 2>dd.err && echo done >&2';
    const { stderr } = await place.run('sh', ['-c', script]);
    assert.equal(stderr, 'done\n');
    for (const [pid, words] of await far()) {
      // What a terminal does; the guardian is in a session of its own.
      if (words.includes('/bin/ssh ')) process.kill(pid, 'SIGINT');
    }
    mounted.signal('SIGINT');
    const result = await mounted.running.ended;
    assert.deepEqual([result.status, result.stderr], [0, '']);
    assert.equal(await content(11), 'interrupted');
  });

  it('leaves no ssh behind when it is killed', async () => {
    const mounted = await mount();
    mounted.signal('SIGKILL');
    assert.equal((await mounted.running.ended).signal, 'SIGKILL');
    await place.ok('umount', ['-l', 'disk.raw']);
  });

  it('gives errors once ssh is gone', async () => {
    const mounted = await mount('--reconnect=0');
    for (const [pid, words] of await far()) {
      if (words.includes('/bin/ssh ')) process.kill(pid, 'SIGTERM');
    }
    await until('it is told', () => mounted.running.stderr.includes('\n'));
    assert.match(
      mounted.running.stderr,
      /^tsnbdfuse: nbd\+ssh:\S+: closed the connection; disk\.raw now gives I\/O errors/,
    );
    assert.equal((await mounted.unmount('disk.raw')).status, 7);
  });

  it('is not mounted where ssh says no', async () => {
    await place.file('bin/ssh', '#!/bin/sh\necho "Permission denied" >&2\nexit 255\n', 0o755);
    const result = await place.tsnbdfuse(['disk.raw', uri], options);
    assert.equal(result.status, 4);
    assert.match(
      result.stderr,
      /^Permission denied\ntsnbdfuse: NBD server at \S+ on me@far\.example: it closed the connection before it said anything\n$/,
    );
    await place.file('bin/ssh', SSH, 0o755);
  });
});
