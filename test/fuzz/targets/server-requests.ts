/** tsnbdkit in its transmission phase: each request of a client is answered once, and none that it did not make. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { BufferPool } from '../../../src/buffer-pool.js';
import type { Agreed } from '../../../src/server/export.js';
import { Connection } from '../../../src/server/connection.js';
import { SharedMemory } from '../../../src/server/shared-memory.js';
import { FakeTransport } from '../../support/fake-transport.js';
import type { Ending } from '../../support/fake-transport.js';
import { request } from '../../support/server-messages.js';
import { inPieces, mutate, mutations, pieceLengths } from '../mutation.js';
import { u16, u32, u64 } from '../numbers.js';
import { repliesIn, requestsIn } from '../request-oracle.js';
import { settled } from '../target.js';
import type { Target } from '../target.js';
import { WatchedDisk } from '../watched-disk.js';

export interface RequestsInput {
  readonly agreed: Agreed;
  readonly readOnly: boolean;
  /** Requests are answered in later turns, in an order that this decides; at once where it is 0. */
  readonly shuffle: number;
  /** Of the memory that all clients share, in bytes. */
  readonly memory: number;
  readonly client: readonly Buffer[];
  readonly pieces: readonly number[];
  readonly ending: Exclude<Ending, 'silence'>;
  /** How much of the replies the client takes in a turn, in bytes. */
  readonly takes: number;
}

const DISK_BYTES = 2 * 1024 * 1024;
/** Payloads and replies; the last request started comes on top. */
const MOST_HELD = 32 * 1024 * 1024 + DISK_BYTES;
/** Replies that may wait to be taken: all that is held, and the headers and small replies beside it. */
const MOST_QUEUED = MOST_HELD + 512 * 1024 + 65536;

const length = fc.oneof(
  { arbitrary: fc.constantFrom(1, 512, 4096, 32768, 32769, 100_000), weight: 6 },
  { arbitrary: fc.constantFrom(1024 * 1024, 1536 * 1024), weight: 1 },
  u32,
);
const inRange = fc.nat({ max: DISK_BYTES }).map(BigInt);
const made: fc.Arbitrary<Buffer> = fc
  .record({
    type: fc.oneof({ arbitrary: fc.constantFrom(0, 1, 3, 4, 6, 7), weight: 12 }, u16),
    flags: fc.oneof({ arbitrary: fc.constantFrom(0, 0, 0, 1, 2, 4, 8), weight: 12 }, u16),
    offset: fc.oneof({ arbitrary: inRange, weight: 6 }, u64),
    length,
    // The payload may be shorter or longer than it should be.
    payload: fc.oneof({ arbitrary: fc.constant(null), weight: 12 }, fc.nat({ max: 5000 })),
  })
  .map(({ payload, ...fields }) => {
    const bytes = payload ?? (fields.type === 1 && fields.length <= DISK_BYTES ? fields.length : 0);
    return request({ ...fields, payload: Buffer.alloc(bytes, 0x61) });
  });

/** Each with a cookie of its own, so that answers can be told apart; what is changed later may have any. */
function numbered(frames: readonly Buffer[]): Buffer[] {
  frames.forEach((frame, i) => frame.writeBigUInt64BE(BigInt(i + 1) << 20n, 8));
  return [...frames];
}

const client: fc.Arbitrary<Buffer[]> = fc
  .tuple(fc.array(made, { minLength: 1, maxLength: 12 }), fc.oneof(fc.constant([]), mutations))
  .map(([frames, changes]) => mutate(numbered(frames), changes));
const disconnect = request({ type: 2 });

export const serverRequestsTarget: Target<RequestsInput> = {
  name: 'server-requests',
  inputs: fc.record({
    agreed: fc.constantFrom(
      { structuredReplies: false, allocation: false },
      { structuredReplies: true, allocation: true },
    ),
    readOnly: fc.constantFrom(false, false, false, true),
    shuffle: fc.nat({ max: 1000 }),
    memory: fc.constantFrom(1 << 20, 1 << 28),
    client: fc
      .tuple(client, fc.boolean())
      .map(([frames, leaves]) => (leaves ? [...frames, disconnect] : frames)),
    pieces: pieceLengths,
    ending: fc.constantFrom<(number | 'end')[]>('end', 'end', 'end', 104),
    takes: fc.constantFrom(1 << 20, 1 << 20, 20_000),
  }),
  frames: (input) => input.client.length,

  async run(input) {
    const { agreed, ending, takes } = input;
    const whole = Buffer.concat(input.client);
    const transport = new FakeTransport({ pieces: inPieces(whole, input.pieces), ending, takes });
    const disk = new WatchedDisk(DISK_BYTES, input.readOnly, input.shuffle);
    const memory = new SharedMemory({ bytes: input.memory });
    const connection = new Connection(transport, disk, agreed, new BufferPool(1 << 20), memory);
    let most = 0;
    const looking = setInterval(() => (most = Math.max(most, connection.heldBytes)), 0);
    try {
      await settled(connection.closed, 'the connection');
    } finally {
      clearInterval(looking);
      connection.abort();
    }
    disk.check();
    assert.equal(connection.heldBytes, 0, 'all memory is given back');
    assert.equal(memory.usedBytes, 0, 'that of all clients, too');
    assert.ok(most <= MOST_HELD, `held ${most} bytes`);
    assert.ok(transport.mostQueued <= MOST_QUEUED, `queued ${transport.mostQueued} bytes`);

    const { requests, broken } = requestsIn(whole);
    const replies = repliesIn(transport.sent, requests, agreed.structuredReplies);
    // Of one cookie for several requests nobody can tell whose reply it is.
    if (replies === undefined) return;
    for (const cookie of replies) assert.ok(requests.has(cookie), `a reply to nothing: ${cookie}`);
    assert.equal(new Set(replies).size, replies.length, 'no request is answered twice');
    if (broken || ending !== 'end') return;
    for (const [cookie, { whole: isWhole }] of requests) {
      assert.ok(!isWhole || replies.includes(cookie), `no reply to ${cookie}`);
    }
  },
};
