/** A bug of ours, in the middle of a request: nobody is left waiting, and nothing is left behind. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CRASH_AT } from '../support/e2e-crash.js';
import { Workplace, until } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const CRASHING = fileURLToPath(new URL('../support/e2e-crash.js', import.meta.url));
const BLOCK = 4096;

describe('a crash', requires({ root: true, fuse: true, programs: ['nbdkit'] }), () => {
  let place: Workplace;

  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    await place.ok('truncate', ['-s', '1M', 'image']);
  });
  afterEach(async () => {
    try {
      await place.nothingLeft();
    } finally {
      await place.remove();
    }
  });

  for (const way of ['at once', 'later', 'in a promise']) {
    for (const slow of [false, true]) {
      it(`${way}, with ${slow ? 'others that wait' : 'nobody else'}`, async () => {
        const delays = slow ? ['--filter=delay', 'rdelay=600', 'delay-close=0'] : [];
        const server = ['nbdkit', 'file', 'image', ...delays.slice(1)];
        server.splice(1, 0, ...delays.slice(0, 1));
        const command = ['-P', 'pid', '--cache=none', 'disk.raw', '[', ...server, ']'];
        const running = place.start(process.execPath, [CRASHING, way, ...command]);
        await until('it is mounted', () => running.hasEnded || existsSync(place.join('pid')));
        const write = ['if=/dev/zero', 'of=disk.raw', 'bs=4096', 'count=1', 'conv=notrunc,fsync'];
        await place.ok('sh', ['-c', `head -c ${BLOCK} /dev/zero | tr '\\0' x >data`]);
        await place.ok('dd', [...write.map((word) => word.replace('/dev/zero', 'data'))]);
        const read = (block: bigint): string[] => [
          'if=disk.raw',
          'of=/dev/null',
          `bs=${BLOCK}`,
          'count=1',
          `skip=${block.toString()}`,
        ];
        const other = slow ? [place.start('dd', read(7n))] : [];
        await until('others wait', async () => {
          const waiting = [...(await place.processes()).values()];
          return waiting.filter((line) => line.startsWith('dd ')).length === other.length;
        });
        const readers = [place.start('dd', read(CRASH_AT / BigInt(BLOCK))), ...other];
        for (const { ended } of readers) {
          const { status, stderr } = await ended;
          assert.equal(status, 1);
          assert.match(stderr, /error reading|failed to open/);
        }
        const { status, stderr } = await running.ended;
        assert.equal(status, 1);
        assert.match(
          stderr,
          /^tsnbdfuse: internal error: a bug that was put in \(a bug; please report it with what follows\)\nError: a bug that was put in\n +at /m,
        );
        assert.ok(
          (await readFile(place.join('image')))
            .subarray(0, BLOCK)
            .every((byte) => byte === 'x'.charCodeAt(0)),
        );
        assert.ok(!existsSync(place.join('pid')));
      });
    }
  }
});
