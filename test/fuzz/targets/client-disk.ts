/** The disk of the client over one connection or two: each request is answered once, whatever the server does. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { NegotiatedExport } from '../../../src/nbd/export.js';
import { NbdDisk } from '../../../src/nbd/nbd-disk.js';
import { FakeTransport } from '../../support/fake-transport.js';
import type { Ending } from '../../support/fake-transport.js';
import { AGREED } from '../../support/nbd-peer.js';
import { cookieOf, simpleReply } from '../../support/nbd-replies.js';
import { CONTEXT } from '../../support/reply-client.js';
import type { Asked } from '../../support/reply-client.js';
import { Asking } from '../asking.js';
import { inPieces, mutate, mutations, pieceLengths } from '../mutation.js';
import { settled } from '../target.js';
import type { Target } from '../target.js';
import { replies } from './client-replies.js';
import type { RepliesInput } from './client-replies.js';

export interface DiskInput extends RepliesInput {
  readonly ending: Ending;
  /** How much of what we send the server takes in a turn, in bytes. */
  readonly takes: number;
  /** What comes over a second connection, which has simple replies; there is none where it is empty. */
  readonly second: readonly Buffer[];
  /** How many requests wait for the answer to another one. */
  readonly later: number;
}

/** What is received at once where no long reply is under way, and the longest block status behind that. */
const MOST_RECEIVED = 128 * 1024 + 4096 + 32 + 8 + 16 * 1024 * 1024;

/** What was agreed on where replies have this form. */
export function agreedFor(form: RepliesInput['form']): NegotiatedExport {
  return {
    ...AGREED,
    size: 2n ** 63n - 1n,
    structuredReplies: form !== 'simple',
    extendedHeaders: form === 'extended',
    allocationId: form === 'simple' ? undefined : CONTEXT,
  };
}

/** To all that is asked, as if all of it went over this connection. */
function simpleReplies(asked: readonly Asked[], errors: readonly number[]): Buffer[] {
  return asked.map(({ type, length = 0 }, i) => {
    const error = errors[i % errors.length] ?? 0;
    const data = type === 'read' && error === 0 ? length : 0;
    return simpleReply(cookieOf(i), error, Buffer.alloc(data, 0x62));
  });
}

export const clientDiskTarget: Target<DiskInput> = {
  name: 'client-disk',
  inputs: fc
    .record({
      made: replies,
      twice: fc.boolean(),
      errors: fc.array(fc.constantFrom(0, 0, 0, 5), { minLength: 1, maxLength: 6 }),
      changes: mutations,
      pieces: pieceLengths,
      ending: fc.constantFrom<Ending[]>('end', 'end', 104, 'silence'),
      takes: fc.constantFrom(1 << 20, 1 << 20, 100, 0),
      later: fc.nat({ max: 3 }),
    })
    .map(({ made, twice, errors, changes, ...rest }) => ({
      ...made,
      ...rest,
      second: twice ? mutate(simpleReplies(made.asked, errors), changes) : [],
    })),
  frames: ({ server, second }) => server.length + second.length,

  async run({ form, asked, server, second, pieces, ending, takes, later }) {
    const agreed = agreedFor(form);
    const streams = [server, second].filter(({ length }, i) => i === 0 || length > 0);
    const scripts = streams.map((frames) => inPieces(Buffer.concat(frames), pieces));
    const transports = scripts.map((each) => new FakeTransport({ pieces: each, ending, takes }));
    const disk = new NbdDisk(agreed);
    let losses = 0;
    let told = (): void => undefined;
    const lost = new Promise<void>((resolve) => (told = resolve));
    disk.onLost = (reason) => {
      losses++;
      assert.doesNotMatch(reason, /\p{Cc}/u);
      told();
    };
    transports.forEach((transport, i) =>
      disk.addConnection(transport, i === 0 ? agreed : agreedFor('simple')),
    );
    const asking = new Asking(disk, asked.slice(asked.length - later));
    for (const one of asked.slice(0, asked.length - later)) asking.ask(one);
    if (ending === 'silence') {
      // All that there is has been heard, and nothing more comes.
      for (let turns = 0; turns < scripts.flat().length + 4; turns++) {
        await new Promise(setImmediate);
      }
      disk.abort();
    } else {
      await settled(lost, 'the loss of the server');
      assert.equal(losses, 1);
    }
    await settled(disk.close(), 'the close');
    // Whatever comes now is refused at once.
    asking.ask({ type: 'flush' });
    assert.equal(asking.answered, asking.asked, 'each request has its answer');
    assert.ok(losses <= 1, 'it is lost once');
    for (const { closed, mostAsked } of transports) {
      assert.ok(closed);
      assert.ok(mostAsked <= MOST_RECEIVED, `received ${mostAsked} bytes at once`);
    }
  },
};
