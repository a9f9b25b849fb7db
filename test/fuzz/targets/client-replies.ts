/** The reply parser and the commands in flight, and whether it gives nothing that was not sent. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ProtocolError } from '../../../src/nbd/errors.js';
import { chunk, cookieOf, extendedChunk, simpleReply } from '../../support/nbd-replies.js';
import { Client } from '../../support/reply-client.js';
import type { Asked, Form } from '../../support/reply-client.js';
import { form, story } from '../../support/reply-stories.js';
import { inPieces, mutate, mutations, pieceLengths } from '../mutation.js';
import { bytes, u32 } from '../numbers.js';
import { readsIn } from '../reply-oracle.js';
import type { Target } from '../target.js';

export interface RepliesInput {
  readonly form: Form;
  readonly asked: readonly Asked[];
  readonly server: readonly Buffer[];
  readonly pieces: readonly number[];
}

/** What was asked in `anything`: small offsets, so that some of the words hit. */
const ASKED: readonly Asked[] = (['read', 'write', 'status', 'read'] as const).map((type) => ({
  type,
  offset: 4n,
  length: 8,
}));
const word = fc.oneof(fc.constantFrom(0, 1, 4, 5, 6, 7, 8, 12), u32);

/** Whatever has one of our cookies, in whatever form. */
const anything: fc.Arbitrary<Buffer> = fc
  .record({
    cookie: fc.nat({ max: 4 }),
    generation: fc.constantFrom(1, 1, 1, 0, 2),
    type: fc.constantFrom(0, 1, 2, 3, 5, 6, 0x8001, 0x8002, 0x8003),
    done: fc.boolean(),
    words: fc.array(word, { maxLength: 6 }),
    tail: bytes(9),
    kind: form,
  })
  .map(({ cookie, generation, type, done, words, tail, kind }) => {
    const payload = Buffer.alloc(4 * words.length + tail.length);
    words.forEach((value, i) => payload.writeUInt32BE(value, 4 * i));
    tail.copy(payload, 4 * words.length);
    const whose = cookieOf(cookie, generation);
    switch (kind) {
      case 'simple':
        return simpleReply(whose, words[0] ?? 0, payload.subarray(4));
      case 'structured':
        return chunk(whose, type, done, payload);
      case 'extended':
        return extendedChunk(whose, 4n, type, done, payload);
    }
  });

/** Commands, and what a server says to them; see connection.ts in this folder as well. */
export const replies: fc.Arbitrary<Omit<RepliesInput, 'pieces'>> = fc.oneof(
  {
    arbitrary: fc.tuple(story, mutations).map(([told, changes]) => ({
      form: told.form,
      asked: told.asked,
      server: mutate(told.server, changes),
    })),
    weight: 3,
  },
  fc
    .record({ form, server: fc.array(anything, { maxLength: 10 }) })
    .map((made) => ({ ...made, asked: ASKED })),
);

export const clientRepliesTarget: Target<RepliesInput> = {
  name: 'client-replies',
  inputs: fc.tuple(replies, pieceLengths).map(([made, pieces]) => ({ ...made, pieces })),
  frames: ({ server }) => server.length,

  run({ form: agreed, asked, server, pieces }) {
    const client = new Client(agreed);
    for (const one of asked) client.ask(one);
    const whole = Buffer.concat(server);
    try {
      for (const piece of inPieces(whole, pieces)) client.feed(piece);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      assert.doesNotMatch(error.message, /\p{Cc}/u);
    }
    // Each command has one answer then.
    client.end();
    const sent = readsIn(whole, asked, agreed);
    for (const [index, read] of client.reads) {
      assert.deepEqual(
        read,
        sent.get(index),
        `the data of ${index} are those that were sent, all of them`,
      );
    }
  },
};
