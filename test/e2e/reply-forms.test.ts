/** Real servers with connections of both kinds: what they are asked over which, and what is read. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { exercise, prepare } from '../support/exerciser.js';
import { Workplace } from '../support/mounts.js';
import { startNbdServer, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const MIB = 1024 * 1024;
const SIZE = 16 * MIB;
const STEPS = 150;
const WORKERS = 3;
const SMALL = 32 * 1024;

const NEEDED = {
  root: true,
  fuse: true,
  programs: ['nbdkit', 'qemu-nbd', 'qemu-img', 'nbd-server', 'python3', 'dd'],
};

describe('connections with replies of both kinds', requires(NEEDED), () => {
  let place: Workplace;
  let server: RealServer | undefined;

  before(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
  });
  afterEach(async () => {
    await server?.stop();
    server = undefined;
    await place.nothingLeft();
  });
  after(() => place.remove());

  it('are asked for large reads, or for small ones', async () => {
    const data = await prepare(place, SIZE);
    const log = place.join('log');
    const file = place.join('image');
    server = await startNbdkit(['-v', '--filter=log', 'file', file, `logfile=${log}`]);
    const uri = `nbd+unix:///?socket=${server.socketPath}`;
    const mounted = await place.mount(['-r', '--cache=none', 'disk.raw', uri]);
    const read = (bytes: number, count: number): Promise<string> =>
      place.ok('sh', ['-c', `dd if=disk.raw bs=${bytes} count=${count} iflag=direct | cksum`]);
    for (const bytes of [4096, SMALL, 4 * SMALL]) {
      const sum = await place.ok('sh', ['-c', `head -c ${64 * bytes} model | cksum`]);
      assert.equal(await read(bytes, 64), sum);
    }
    assert.equal(data.length, SIZE);
    const said = await readFile(join(dirname(server.socketPath), 'errors'), 'utf8');
    const { status, stderr } = await mounted.unmount('disk.raw');
    assert.deepEqual([status, stderr], [0, '']);

    // Of four connections.
    const numbers = (text: string, pattern: RegExp): number[] =>
      Array.from(text.matchAll(pattern), (match) => Number(match[1]));
    const structured = new Set(
      numbers(said, /\[(\d+)\]: debug: newstyle negotiation: NBD_OPT_STRUCTURED_REPLY/g),
    );
    assert.equal(structured.size, 2);
    const lines = await readFile(log, 'utf8');
    assert.equal(new Set(numbers(lines, /connection=(\d+) Connect/g)).size, 4);
    const asked = Array.from(lines.matchAll(/connection=(\d+) Read .*count=0x([0-9a-f]+)/g));
    const [small, large] = [new Set<number>(), new Set<number>()];
    for (const [, connection, count] of asked) {
      (parseInt(count ?? '', 16) <= SMALL ? small : large).add(Number(connection));
    }
    assert.ok(small.size > 0 && large.size > 0, lines);
    for (const one of large) assert.ok(structured.has(one), `large reads over ${one}`);
    // Before the others had joined, the first one did all.
    small.delete(1);
    assert.ok(small.size > 0);
    for (const one of small) assert.ok(!structured.has(one), `small reads over ${one}`);
  });

  const start: Readonly<Record<string, () => Promise<RealServer>>> = {
    nbdkit: () => startNbdkit(['file', place.join('image')]),
    'qemu-nbd, raw': () => startQemuNbd(['--shared=8', '-f', 'raw', place.join('image')]),
    'qemu-nbd, qcow2': async () => {
      await place.ok('qemu-img', 'convert -f raw -O qcow2 image image.qcow2'.split(' '));
      return startQemuNbd(['--shared=8', '-f', 'qcow2', place.join('image.qcow2')]);
    },
    'nbd-server': () =>
      startNbdServer({ disk: { exportname: place.join('image'), flush: 'true' } }),
  };
  for (const [name, begin] of Object.entries(start)) {
    for (const readOnly of [true, false]) {
      it(`give what is there, of ${name}, ${readOnly ? 'read only' : 'and written'}`, async () => {
        await prepare(place, SIZE);
        server = await begin();
        const exportName = name === 'nbd-server' ? 'disk' : '';
        const uri = `nbd+unix:///${exportName}?socket=${server.socketPath}`;
        const mounted = await place.mount([
          ...(readOnly ? ['-r'] : []),
          '--cache=none',
          'disk.raw',
          uri,
        ]);
        const how = { seed: 1, steps: STEPS, workers: WORKERS, cache: 'none', readOnly } as const;
        await exercise(place, how);
        const { status, stderr } = await mounted.unmount('disk.raw');
        assert.deepEqual([status, stderr], [0, '']);
      });
    }
  }

  it('give what is there, of tsnbdkit', async () => {
    await prepare(place, SIZE);
    const captive = ['[', 'tsnbdkit', 'file', 'image', ']'];
    const mounted = await place.mount(['--cache=none', 'disk.raw', ...captive]);
    await exercise(place, { seed: 2, steps: STEPS, workers: WORKERS, cache: 'none' });
    const { status, stderr } = await mounted.unmount('disk.raw');
    assert.deepEqual([status, stderr], [0, '']);
  });
});
