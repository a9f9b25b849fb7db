/** Real servers with connections of both kinds: what they are asked over which, and what is read. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import type { MountStatus } from '../../src/observe/mount-status.js';
import { exercise, prepare } from '../support/exerciser.js';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
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

/** @returns how many connections the mount at `disk.raw` has by now */
async function connectionsOf(place: Workplace): Promise<number | null | undefined> {
  const status = await place.ok(TSNBDFUSE, ['--status', 'disk.raw', '--json']);
  const { mounts } = JSON.parse(status) as { mounts: Pick<MountStatus, 'connections'>[] };
  return mounts[0]?.connections;
}

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
    // One thread for each connection, whose number is in what is said of its reads.
    const verbose = ['-v', '--threads=1'];
    server = await startNbdkit([...verbose, 'file', place.join('image')]);
    const uri = `nbd+unix:///?socket=${server.socketPath}`;
    const mounted = await place.mount(['-r', '--cache=none', 'disk.raw', uri]);
    // Until then a large or a small read goes over what there is.
    await until('all connections are made', async () => (await connectionsOf(place)) === 4);
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

    const numbers = (pattern: RegExp): Set<number> =>
      new Set(Array.from(said.matchAll(pattern), (match) => Number(match[1])));
    assert.equal(numbers(/\[(\d+)\]: debug: file: open readonly/g).size, 4);
    const structured = numbers(/\[(\d+)\]: debug: newstyle negotiation: NBD_OPT_STRUCTURED_REPLY/g);
    assert.equal(structured.size, 2);
    const asked = Array.from(said.matchAll(/\[(\d+)\]: debug: file: pread count=(\d+)/g));
    const [small, large] = [new Set<number>(), new Set<number>()];
    for (const [, connection, count] of asked) {
      (Number(count) <= SMALL ? small : large).add(Number(connection));
    }
    assert.ok(small.size > 0 && large.size > 0, said);
    for (const one of large) assert.ok(structured.has(one), `large reads over ${one}`);
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
