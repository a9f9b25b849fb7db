/**
 * Power cuts of the server's machine, at any moment, without a reconnection: what fsync has acknowledged is in
 * the image all the same. (With reconnection nothing may be missing at all: test/torture.)
 */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CACHES } from '../support/exerciser.js';
import { Workplace, until } from '../support/mounts.js';
import { requires } from '../support/requires.js';
import { makePlan } from '../torture/plan.js';
import { ServerVictim } from '../torture/victim.js';

const PAGE = 4096;
const PAGES = 256;
const CUTS = 4;

/**
 * Writes a counter into random pages, syncs, and tells: `PAGE COUNT` for what is about to be written, `sync` for
 * what is safe, until the disk gives errors.
 */
const WRITER = `
import os, random, sys
fd = os.open(sys.argv[1], os.O_RDWR)
rng = random.Random(int(sys.argv[2]))
count = 0
try:
    while True:
        for _ in range(rng.randint(1, 20)):
            count += 1
            page = rng.randrange(${PAGES})
            print(page, count)
            os.pwrite(fd, count.to_bytes(8, "little") * ${PAGE / 8}, page * ${PAGE})
        sys.stdout.flush()
        os.fsync(fd)
        print("sync", flush=True)
except OSError:
    sys.stdout.flush()
    os._exit(0)
`;

describe('a power cut', requires({ root: true, fuse: true, programs: ['python3'] }), () => {
  let place: Workplace;

  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    await place.file('image', Buffer.alloc(PAGES * PAGE));
  });
  afterEach(async () => {
    try {
      await place.nothingLeft();
    } finally {
      await place.remove();
    }
  });

  /** What each page may hold: what was synced last, or anything that was written to it since. */
  function allowed(said: string): Map<number, Set<bigint>> {
    const values = new Map<number, Set<bigint>>();
    const last = new Map<number, bigint>();
    for (const line of said.split('\n')) {
      if (line === 'sync') {
        for (const [page, count] of last) values.set(page, new Set([count]));
        continue;
      }
      const [page, count] = line.split(' ').map(Number);
      if (page === undefined || count === undefined) continue;
      const some = values.get(page) ?? new Set([0n]);
      values.set(page, some.add(BigInt(count)));
      last.set(page, BigInt(count));
    }
    return values;
  }

  for (const [seed, cache] of CACHES.entries()) {
    it(`takes nothing that fsync acknowledged, with --cache=${cache}`, async () => {
      for (let cut = 0; cut < CUTS; cut++) {
        await place.file('image', Buffer.alloc(PAGES * PAGE));
        const plan = makePlan(seed * CUTS + cut, 'power-cut', 'power', 1);
        const server = await ServerVictim.start(place, plan);
        const mounted = await place.mount([
          ...['--reconnect', '0', `--cache=${cache}`, 'disk.raw', server.uri],
        ]);
        const writer = place.start('python3', ['-c', WRITER, 'disk.raw', String(plan.seed)]);
        await until('it has synced', () => writer.stdout.split('sync').length > 3);
        await sleep(10 * cut);
        await server.powerCut({
          kind: 'power',
          down: 0,
          kept: cut / (CUTS - 1),
          when: cut % 2 === 0 ? 'now' : 'flushed',
        });
        const { stdout } = await writer.ended;
        await mounted.unmount('disk.raw');

        const image = await readFile(place.join('image'));
        const values = allowed(stdout);
        assert.notEqual(values.size, 0);
        for (let page = 0; page < PAGES; page++) {
          const some = values.get(page) ?? new Set([0n]);
          for (let at = page * PAGE; at < (page + 1) * PAGE; at += 8) {
            const found = image.readBigUInt64LE(at);
            assert.ok(
              some.has(found),
              `page ${page} holds ${found}, and not of ${[...some].join()}`,
            );
          }
        }
      }
    });
  }
});
