/** Further meta contexts: agreeing on them, and what a server tells of them. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { BlockStatus } from '../../src/nbd/block-status.js';
import { Command } from '../../src/nbd/constants.js';
import { ProtocolError } from '../../src/nbd/errors.js';
import { InFlight } from '../../src/nbd/in-flight.js';
import { setMetaContexts } from '../../src/nbd/meta-contexts.js';
import { ReplyParser } from '../../src/nbd/reply-parser.js';
import { differenceBetween } from '../../src/nbd/same-disk.js';
import { HEADROOM } from '../../src/disk/disk.js';
import type { Extent } from '../../src/disk/disk.js';
import { viewOf } from '../../src/bytes.js';
import { converse } from '../../src/transport/dialogue.js';
import { FakeTransport, hex } from '../support/fake-transport.js';
import { AGREED } from '../support/nbd-peer.js';
import { cookieOf, status, statusExt, none, errorChunk } from '../support/nbd-replies.js';

/** Milliseconds; ends a test that hangs. */
const DEADLINE = 60_000;
const WANTED = ['base:allocation', 'qemu:dirty-bitmap:b'];

const context = (id: string, name: string): Buffer => {
  const length = (4 + name.length).toString(16).padStart(8, '0');
  return hex(`0003e889045565a9 0000000a 00000004 ${length} ${id} '${name}'`);
};
const ACK = hex('0003e889045565a9 0000000a 00000001 00000000');

const agree = (pieces: readonly Buffer[]): Promise<Map<string, number>> =>
  converse(new FakeTransport({ pieces, ending: 'end' }), setMetaContexts('d', WANTED), DEADLINE);

describe('agreeing on meta contexts', () => {
  it('asks for all of them at once', async () => {
    const transport = new FakeTransport({ pieces: [ACK] });
    await converse(transport, setMetaContexts('d', WANTED), DEADLINE);
    assert.deepEqual(
      transport.sent,
      hex(`'IHAVEOPT' 0000000a 00000033 00000001 'd' 00000002
        0000000f 'base:allocation' 00000013 'qemu:dirty-bitmap:b'`),
    );
  });

  it('keeps those that the server has, and that were asked for', async () => {
    const found = await agree([
      context('00000007', 'qemu:dirty-bitmap:b'),
      context('00000008', 'other:context'),
      ACK,
    ]);
    assert.deepEqual([...found], [['qemu:dirty-bitmap:b', 7]]);
  });

  it('keeps none that came before an error', async () => {
    const error = hex('0003e889045565a9 0000000a 80000003 00000000');
    assert.deepEqual(await agree([context('00000007', 'base:allocation'), error]), new Map());
  });

  it('takes no id for two of them', async () => {
    const script = [context('00000001', WANTED[0] ?? ''), context('00000001', WANTED[1] ?? '')];
    await assert.rejects(agree([...script, ACK]), {
      name: 'ProtocolError',
      message: 'gave the id 1 to two meta contexts',
    });
  });
});

const BITMAP = 'qemu:dirty-bitmap:b';
const CONTEXTS = { ...AGREED, structuredReplies: true, allocationId: 1 } as const;
const MORE = { ...CONTEXTS, contexts: new Map([[BITMAP, 2]]) };

/** What is told of one BLOCK_STATUS by these chunks: to somebody who asks for all contexts, or for extents. */
function answerOf(
  ask: 'status' | 'extents',
  chunks: readonly Buffer[],
  extendedHeaders = false,
): BlockStatus | readonly Extent[] | number | undefined {
  let told: BlockStatus | readonly Extent[] | number | undefined;
  const fail = (code: number): void => void (told = code);
  const inFlight = new InFlight();
  const command = inFlight.add(Command.BLOCK_STATUS, 0, 0n, 4096);
  if (ask === 'status') command.statusReply = { status: (found) => (told = found), fail };
  else command.extentsReply = { extents: (found) => (told = found), fail };
  const parser = new ReplyParser(inFlight, { ...MORE, extendedHeaders });
  const bytes = Buffer.concat([Buffer.alloc(HEADROOM), ...chunks]);
  assert.equal(parser.parse(bytes, viewOf(bytes), HEADROOM, bytes.length), bytes.length);
  assert.equal(inFlight.count, told === undefined ? 1 : 0);
  return told;
}

const COOKIE = cookieOf(0);
const ALLOCATION_CHUNK = status(COOKIE, false, 1, [[4096, 3]]);

describe('what a server tells of several contexts', () => {
  it('comes to whoever asked for all of them', () => {
    const dirty = status(COOKIE, true, 2, [
      [1024, 0],
      [3072, 1],
    ]);
    assert.deepEqual(
      answerOf('status', [ALLOCATION_CHUNK, dirty]),
      new Map([
        ['base:allocation', [{ length: 4096n, flags: 3n }]],
        [
          BITMAP,
          [
            { length: 1024n, flags: 0n },
            { length: 3072n, flags: 1n },
          ],
        ],
      ]),
    );
  });

  it('is left out where extents were asked for', () => {
    const dirty = status(COOKIE, false, 2, [[4096, 1]]);
    assert.deepEqual(answerOf('extents', [dirty, ALLOCATION_CHUNK, none(COOKIE)]), [
      { length: 4096n, hole: true, zero: true },
    ]);
  });

  it('may have flags of 64 bits with extended headers, but of base:allocation', () => {
    const wide = statusExt(COOKIE, 0n, 2, [[1n << 40n, 0]]);
    wide.writeUInt32BE(0x80000001, wide.length - 8);
    const found = answerOf('status', [wide], true);
    assert.ok(found instanceof Map);
    assert.deepEqual(found.get(BITMAP), [{ length: 1n << 40n, flags: 0x80000001_00000000n }]);
    const wrong = statusExt(COOKIE, 0n, 1, [[4096n, 0]]);
    wrong.writeUInt32BE(1, wrong.length - 8);
    assert.throws(() => answerOf('extents', [wrong], true), ProtocolError);
  });

  it('is an error where the server refuses', () => {
    assert.equal(answerOf('status', [errorChunk(COOKIE, true, 22)]), 22);
  });

  it('breaks the protocol where it comes twice, or of a context that nobody asked for', () => {
    assert.throws(() => answerOf('status', [ALLOCATION_CHUNK, ALLOCATION_CHUNK]), {
      message: 'sent block status twice in one reply',
    });
    // Also of one that an extents question ignores: what is ignored has to end as well.
    const dirty = status(COOKIE, false, 2, [[4096, 1]]);
    assert.throws(() => answerOf('extents', [dirty, dirty, ALLOCATION_CHUNK, none(COOKIE)]), {
      message: 'sent block status twice in one reply',
    });
    assert.throws(() => answerOf('status', [status(COOKIE, true, 3, [[4096, 0]])]), {
      message: 'sent block status for a meta context that was not agreed on (id 3)',
    });
    assert.throws(() => answerOf('status', [none(COOKIE)]), {
      message: 'answered BLOCK_STATUS without an extent',
    });
  });
});

describe('a server that comes back', () => {
  it('has to have the contexts that it had', () => {
    assert.equal(differenceBetween(CONTEXTS, MORE), undefined);
    assert.equal(differenceBetween(MORE, CONTEXTS), `it tells nothing of ${BITMAP}, and did`);
  });
});
