/** tsnbdkit among many clients that mean ill: an honest one gets its work done, and the memory is bounded. */

import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { HostileClients } from '../support/hostile-clients.js';
import { DEADLINE, Workplace, until } from '../support/mounts.js';
import { requires } from '../support/requires.js';
import { Kit } from '../support/server-kit.js';

const MIB = 1024 * 1024;
const HOSTILE = 50;
/** Of the honest data, and of the disk, behind which nobody writes. */
const DATA_BYTES = 32 * MIB;
/**
 * What the server may take, with all that it is: what clients share, the share of each, and some for what is free
 * and not given back. The long writes of the hostile clients are 544 MiB.
 */
const MOST_MEMORY = 600 * MIB;
/** Milliseconds between two looks at the memory. */
const LOOK_EVERY = 100;

let place: Workplace;
before(async () => {
  place = await Workplace.create();
});
afterEach(() => place.nothingLeft());
after(() => place.remove());

/** Sees how much memory a server takes at the most. */
class MemoryWatch {
  most = 0;
  readonly #timer: NodeJS.Timeout;

  constructor(kit: Kit) {
    this.#timer = setInterval(() => {
      kit.memory().then(
        (bytes) => (this.most = Math.max(this.most, bytes)),
        () => undefined,
      );
    }, LOOK_EVERY);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

describe(
  `tsnbdkit with ${HOSTILE} hostile clients`,
  requires({ programs: ['nbdcopy', 'nbdinfo'] }),
  () => {
    for (const [name, requestSize, only] of [
      ['whatever they do', 256 * 1024, undefined],
      // Twice the memory there is, which they keep until they are thrown out, and come again.
      [
        'when they keep the memory that it needs',
        16 * MIB,
        ['half of a long write', 'nothing at all', 'nothing after the handshake'],
      ],
    ] as const) {
      it(`serves an honest one ${name}`, { timeout: 8 * DEADLINE }, async (t) => {
        const content = randomFillSync(Buffer.alloc(DATA_BYTES));
        const source = await place.file('source', content);
        const target = place.join('target');
        const file = await open(target, 'w');
        await file.truncate(2 * DATA_BYTES);
        await file.close();
        const kit = await Kit.start(place, ['file', target]);
        const watch = new MemoryWatch(kit);
        const hostile = new HostileClients(kit.socket, HOSTILE, only && [...only]);
        try {
          await until('all of them are there', () => hostile.connections >= HOSTILE);
          const copying = { deadline: 4 * DEADLINE };
          const size = `--request-size=${requestSize}`;
          await place.ok('nbdcopy', [size, '--flush', source, kit.uri()], copying);
          const back = place.join('back');
          await place.ok('nbdcopy', [size, kit.uri(), back], copying);
          const read = await readFile(back);
          assert.ok(read.subarray(0, DATA_BYTES).equals(content), 'what was written is read');
          assert.ok((await readFile(target)).subarray(0, DATA_BYTES).equals(content));
          await place.ok('rm', [back]);
        } finally {
          hostile.stop();
          watch.stop();
        }
        t.diagnostic(`${Math.round(watch.most / MIB)} MiB at the most`);
        for (const [kind, count] of hostile.connected) t.diagnostic(`${kind}: ${count}`);
        if (only !== undefined) assert.ok(hostile.connections > HOSTILE, 'some were thrown out');
        assert.ok(watch.most > 0 && watch.most < MOST_MEMORY, `${watch.most} bytes`);
        // It is as well as before.
        assert.match(await place.ok('nbdinfo', ['--size', kit.uri()]), /^67108864$/m);
        assert.equal((await kit.stop()).status, 0);
        await place.ok('rm', [source, target]);
      });
    }
  },
);
