/** What real servers said to our client, from the greeting on, changed. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { NegotiatedExport } from '../../../src/nbd/export.js';
import { clientHandshake } from '../../../src/nbd/handshake.js';
import { NbdDisk } from '../../../src/nbd/nbd-disk.js';
import { converse } from '../../../src/transport/dialogue.js';
import { FakeTransport } from '../../support/fake-transport.js';
import { Asking } from '../asking.js';
import { serverSessions } from '../corpus.js';
import type { ServerSession } from '../corpus.js';
import { inPieces, mutate, mutations, pieceLengths } from '../mutation.js';
import { settled } from '../target.js';
import type { Target } from '../target.js';
import { checkRefusal } from './client-handshake.js';

interface SessionInput extends Pick<ServerSession, 'exportName' | 'asked'> {
  readonly frames: readonly Buffer[];
  readonly pieces: readonly number[];
}

/** Milliseconds; the turns are counted. */
const DEADLINE = 600_000;

/** @returns what became of each request; undefined where there is no export to ask */
export async function replay(input: SessionInput): Promise<readonly string[] | undefined> {
  const whole = Buffer.concat(input.frames);
  const transport = new FakeTransport({ pieces: inPieces(whole, input.pieces), ending: 'end' });
  let agreed: NegotiatedExport;
  try {
    const dialogue = clientHandshake({ exportName: input.exportName });
    agreed = await settled(converse(transport, dialogue, DEADLINE), 'the handshake');
  } catch (error) {
    checkRefusal(error);
    return undefined;
  }
  const disk = new NbdDisk(agreed);
  const lost = new Promise<string>((resolve) => (disk.onLost = resolve));
  disk.addConnection(transport, agreed);
  const asking = new Asking(disk, []);
  for (const one of input.asked) asking.ask(one);
  assert.doesNotMatch(await settled(lost, 'the loss of the server'), /\p{Cc}/u);
  await settled(disk.close(), 'the close');
  assert.equal(asking.answered, asking.asked, 'each request has its answer');
  return asking.answers;
}

export const clientSessionsTarget: Target<SessionInput> = {
  name: 'client-sessions',
  inputs: fc
    .tuple(fc.constantFrom(...serverSessions()), mutations, pieceLengths)
    .map(([{ exportName, asked, frames }, changes, pieces]) => ({
      exportName,
      asked,
      frames: mutate(frames, changes),
      pieces,
    })),
  frames: ({ frames }) => frames.length,

  async run(input) {
    await replay(input);
  },
};
