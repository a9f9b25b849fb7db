/** tsnbdkit's handshake with a client that may say anything. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { IHAVEOPT, Option, OptionReply } from '../../../src/nbd/constants.js';
import { ProtocolError } from '../../../src/nbd/errors.js';
import type { Agreed } from '../../../src/server/export.js';
import { handshake } from '../../../src/server/handshake.js';
import { EndOfStreamError, converse } from '../../../src/transport/dialogue.js';
import { FakeTransport } from '../../support/fake-transport.js';
import { MemoryDisk } from '../../support/memory-disk.js';
import {
  clientFlags,
  goData,
  metaData,
  option,
  optionReplies,
} from '../../support/server-messages.js';
import { inPieces, mutate, mutations, pieceLengths } from '../mutation.js';
import { bytes, text, u32 } from '../numbers.js';
import { settled } from '../target.js';
import type { Target } from '../target.js';

export interface ServerHandshakeInput {
  readonly exportName: string;
  readonly client: readonly Buffer[];
  readonly pieces: readonly number[];
}

/** Milliseconds; the turns are counted. */
const DEADLINE = 600_000;
const MOST_AT_ONCE = 64 * 1024;
const GREETING_BYTES = 18;
/** Options over 64 KiB are skipped, up to this much of them. */
const MOST_SKIPPED = 1024 * 1024;
/** As many options as there may be, each answered with the longest names. */
const MOST_SENT = 130 * 3 * 4200;

const { info } = new MemoryDisk({ size: 1 << 20 });

const name = fc.oneof(
  fc.constantFrom('', '', 'disk', 'x'.repeat(4097)),
  text.map((value) => value.toString('latin1')),
);
const query = fc.oneof(fc.constantFrom('base:allocation', 'base:', 'q'.repeat(4097)), name);

/** One option, whose length is now and then another than that of its data. */
const honest: fc.Arbitrary<Buffer> = fc.oneof(
  fc.constantFrom(8, 3, 2).map((type) => option(type)),
  fc
    .tuple(fc.constantFrom(Option.INFO, Option.GO), name, fc.array(fc.nat(5), { maxLength: 4 }))
    .map(([type, of, requests]) => option(type, goData(of, requests))),
  fc
    .tuple(
      fc.constantFrom(Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT),
      name,
      fc.array(query, { maxLength: 3 }),
    )
    .map(([type, of, queries]) => option(type, metaData(of, queries))),
  name.map((of) => option(Option.EXPORT_NAME, Buffer.from(of, 'latin1'))),
  // STARTTLS and extended headers, which are not offered.
  fc.constantFrom(5, 11).map((type) => option(type)),
);
const strange: fc.Arbitrary<Buffer> = fc
  .tuple(u32, bytes(40), fc.option(u32, { freq: 2 }))
  .map(([type, data, length]) => option(type, data, length ?? data.length));
/** Options that are too long, as a whole. */
const long: fc.Arbitrary<Buffer> = fc
  .tuple(fc.constantFrom(1, 3, 6, 7, 10, 99), fc.constantFrom(65536, 65537, 300_000))
  .map(([type, length]) => option(type, Buffer.alloc(length)));

const client: fc.Arbitrary<Buffer[]> = fc
  .tuple(
    fc.oneof({ arbitrary: fc.constantFrom(3, 3, 3, 1, 0), weight: 6 }, u32).map(clientFlags),
    fc.array(
      fc.oneof(
        { arbitrary: honest, weight: 12 },
        { arbitrary: strange, weight: 2 },
        { arbitrary: long, weight: 1 },
      ),
      { maxLength: 10 },
    ),
    mutations,
  )
  .map(([flags, options, changes]) => mutate([flags, ...options], changes));

interface Asked {
  readonly option: number;
  readonly length: number;
}

/** The options of a client as far as they are options. */
function optionsIn(whole: Buffer): Asked[] {
  const found: Asked[] = [];
  for (let at = 4; at + 16 <= whole.length && whole.readBigUInt64BE(at) === IHAVEOPT;) {
    const length = whole.readUInt32BE(at + 12);
    found.push({ option: whole.readUInt32BE(at + 8), length });
    at += 16 + length;
  }
  return found;
}

/** Each option is answered, in order, until the client is let in, leaves, or is thrown out. */
function checkAnswers(sent: Buffer, asked: readonly Asked[], agreed: Agreed | undefined): void {
  const answers = sent.subarray(GREETING_BYTES);
  const ended = finals(answers);
  ended.forEach((answered, i) => assert.equal(answered, asked[i]?.option));
  const skipped = asked
    .slice(0, ended.length)
    .reduce((sum, { length }) => sum + (length > MOST_AT_ONCE ? length : 0), 0);
  assert.ok(skipped <= MOST_SKIPPED, `skipped ${skipped} bytes`);
  // EXPORT_NAME is answered with what is no option reply, and is the last one.
  if (agreed !== undefined && asked[ended.length]?.option === Option.EXPORT_NAME) return;
  for (const { data } of optionReplies(answers)) assert.ok(data.length <= 8300);
}

/** The options that have the last one of their replies, as far as it is replies. */
function finals(answers: Buffer): number[] {
  const found: number[] = [];
  for (let at = 0; at + 20 <= answers.length && answers.readBigUInt64BE(at) === 0x3e889045565a9n;) {
    const type = answers.readUInt32BE(at + 12);
    if (type === OptionReply.ACK || type >= 2 ** 31) found.push(answers.readUInt32BE(at + 8));
    at += 20 + answers.readUInt32BE(at + 16);
  }
  return found;
}

export const serverHandshakeTarget: Target<ServerHandshakeInput> = {
  name: 'server-handshake',
  inputs: fc.record({
    exportName: fc.constantFrom('', 'disk', 'x'.repeat(4096)),
    client,
    pieces: pieceLengths,
  }),
  frames: (input) => input.client.length,

  async run(input) {
    const whole = Buffer.concat(input.client);
    const transport = new FakeTransport({ pieces: inPieces(whole, input.pieces), ending: 'end' });
    const dialogue = handshake({ name: input.exportName, info });
    let agreed: Agreed | undefined;
    try {
      agreed = await settled(converse(transport, dialogue, DEADLINE), 'the handshake');
    } catch (error) {
      const known = error instanceof ProtocolError || error instanceof EndOfStreamError;
      assert.ok(known, String(error));
      assert.doesNotMatch(error.message, /\p{Cc}/u);
    }
    assert.ok(agreed?.allocation !== true || agreed.structuredReplies);
    checkAnswers(transport.sent, optionsIn(whole), agreed);
    assert.ok(
      transport.mostAsked <= MOST_AT_ONCE,
      `asked for ${transport.mostAsked} bytes at once`,
    );
    assert.ok(transport.sent.length <= MOST_SENT, `sent ${transport.sent.length} bytes`);
  },
};
