/** What real clients said to tsnbdkit, from their first word on, changed. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { BufferPool } from '../../../src/buffer-pool.js';
import { ProtocolError } from '../../../src/nbd/errors.js';
import { Connection } from '../../../src/server/connection.js';
import type { Agreed } from '../../../src/server/export.js';
import { handshake } from '../../../src/server/handshake.js';
import { SharedMemory } from '../../../src/server/shared-memory.js';
import { EndOfStreamError, converse } from '../../../src/transport/dialogue.js';
import { FakeTransport } from '../../support/fake-transport.js';
import { DISK_BYTES, clientSessions } from '../corpus.js';
import { inPieces, mutate, mutations, pieceLengths } from '../mutation.js';
import { settled } from '../target.js';
import type { Target } from '../target.js';
import { WatchedDisk } from '../watched-disk.js';

interface SessionInput {
  readonly frames: readonly Buffer[];
  readonly pieces: readonly number[];
  readonly shuffle: number;
}

/** Milliseconds; the turns are counted. */
const DEADLINE = 600_000;

/** @returns what was sent in the transmission phase; undefined where the client was not let in */
export async function replay(input: SessionInput): Promise<Buffer | undefined> {
  const whole = Buffer.concat(input.frames);
  const transport = new FakeTransport({ pieces: inPieces(whole, input.pieces), ending: 'end' });
  const disk = new WatchedDisk(DISK_BYTES, false, input.shuffle);
  let agreed: Agreed | undefined;
  try {
    const dialogue = handshake({ name: '', info: disk.info });
    agreed = await settled(converse(transport, dialogue, DEADLINE), 'the handshake');
  } catch (error) {
    const known = error instanceof ProtocolError || error instanceof EndOfStreamError;
    assert.ok(known, String(error));
  }
  if (agreed === undefined) return undefined;
  const before = transport.sent.length;
  const memory = new SharedMemory();
  const connection = new Connection(transport, disk, agreed, new BufferPool(1 << 20), memory);
  await settled(connection.closed, 'the connection');
  disk.check();
  assert.equal(connection.heldBytes, 0);
  assert.equal(memory.usedBytes, 0);
  return transport.sent.subarray(before);
}

export const serverSessionsTarget: Target<SessionInput> = {
  name: 'server-sessions',
  inputs: fc
    .tuple(fc.constantFrom(...clientSessions()), mutations, pieceLengths, fc.nat({ max: 3 }))
    .map(([{ frames }, changes, pieces, shuffle]) => ({
      frames: mutate(frames, changes),
      pieces,
      shuffle,
    })),
  frames: ({ frames }) => frames.length,

  async run(input) {
    await replay(input);
  },
};
