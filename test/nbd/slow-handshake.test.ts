/** Peers that say a little now and then, and never all: a handshake has one deadline, for all of it. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clientHandshake } from '../../src/nbd/handshake.js';
import { handshake } from '../../src/server/handshake.js';
import { DeadlineError, converse } from '../../src/transport/dialogue.js';
import type { Dialogue } from '../../src/transport/dialogue.js';
import { FakeTransport, hex } from '../support/fake-transport.js';
import { MemoryDisk } from '../support/memory-disk.js';
import { clientFlags, option } from '../support/server-messages.js';

/** Milliseconds. */
const DEADLINE = 10_000;
const INTERVAL = 1000;

const { info } = new MemoryDisk({ size: 512 });
const CASES: readonly (readonly [name: string, dialogue: () => Dialogue<unknown>, said: Buffer])[] =
  [
    [
      'a server',
      () => clientHandshake({ exportName: '' }),
      hex(`'NBDMAGIC' 'IHAVEOPT' 0003 0003e889045565a9 0000000b 80000001 00000400`),
    ],
    [
      'a client',
      () => handshake({ name: '', info }),
      Buffer.concat([clientFlags(3), option(8), option(3), option(8)]),
    ],
  ];

describe('a byte a second', () => {
  for (const [name, dialogue, said] of CASES) {
    it(`of ${name} is given up when the time is over`, async (t) => {
      t.mock.timers.enable({ apis: ['setTimeout'] });
      const pieces = Array.from(said, (byte) => Buffer.of(byte));
      const transport = new FakeTransport({ pieces });
      const state = { over: false };
      const ended = converse(transport, dialogue(), DEADLINE).finally(() => (state.over = true));
      ended.catch(() => undefined);
      let seconds = 0;
      for (; seconds < pieces.length && !state.over; seconds++) {
        // One byte arrives.
        await new Promise(setImmediate);
        t.mock.timers.tick(INTERVAL);
        await new Promise(setImmediate);
      }
      await assert.rejects(ended, DeadlineError);
      assert.equal(seconds, DEADLINE / INTERVAL);
      assert.ok(transport.left.length > 0, 'it was still talking');
    });
  }
});
