/** The client that asks for the list of exports, with a server that may say anything. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ByteWriter } from '../../../src/bytes.js';
import {
  IHAVEOPT,
  Info,
  NBDMAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
} from '../../../src/nbd/constants.js';
import { listing } from '../../../src/nbd/list-exports.js';
import { converse } from '../../../src/transport/dialogue.js';
import { FakeTransport } from '../../support/fake-transport.js';
import { inPieces, mutate, mutations, pieceLengths } from '../mutation.js';
import { bytes, text, u16, u32, u64 } from '../numbers.js';
import { settled } from '../target.js';
import type { Target } from '../target.js';
import { checkRefusal } from './client-handshake.js';

/** Milliseconds; the turns are counted. */
const DEADLINE = 600_000;
/** No dialogue has a reason to ask for more at once: two strings of 4096 bytes, and some numbers. */
const MOST_AT_ONCE = 8192 + 64;

export interface ListingInput {
  readonly details: boolean;
  readonly server: readonly Buffer[];
  readonly pieces: readonly number[];
}

function reply(option: number, type: number, data: Buffer): Buffer {
  const writer = new ByteWriter('big').u64(OPTION_REPLY_MAGIC).u32(option).u32(type);
  return writer.u32(data.length).bytes(data).finish();
}

const NOTHING = Buffer.alloc(0);
const greeting = fc
  .oneof({ arbitrary: fc.constant(3), weight: 10 }, u16)
  .map((flags) => new ByteWriter('big').u64(NBDMAGIC).u64(IHAVEOPT).u16(flags).finish());

const server: fc.Arbitrary<Buffer> = fc
  .tuple(text, text, fc.option(u32, { freq: 5 }))
  .map(([name, description, length]) => {
    const data = new ByteWriter('big')
      .u32(length ?? name.length)
      .bytes(name)
      .bytes(description);
    return reply(Option.LIST, OptionReply.SERVER, data.finish());
  });

const info: fc.Arbitrary<Buffer> = fc
  .oneof(
    fc.tuple(u64, u16).map(([size, flags]) => {
      return new ByteWriter('big').u16(Info.EXPORT).u64(size).u16(flags);
    }),
    text.map((said) => new ByteWriter('big').u16(Info.DESCRIPTION).bytes(said)),
    fc.tuple(u16, bytes(30)).map(([type, data]) => new ByteWriter('big').u16(type).bytes(data)),
  )
  .map((data) => reply(Option.INFO, OptionReply.INFO, data.finish()));

const end = (option: number): fc.Arbitrary<Buffer> =>
  fc.oneof(
    { arbitrary: fc.constant(reply(option, OptionReply.ACK, NOTHING)), weight: 4 },
    fc
      .tuple(fc.constantFrom(...Object.values(OptionReply)), text)
      .map(([type, said]) => reply(option, type, said)),
  );

const conversation: fc.Arbitrary<Buffer[]> = fc
  .tuple(
    greeting,
    fc.array(server, { maxLength: 5 }),
    end(Option.LIST),
    fc.array(fc.tuple(fc.array(info, { maxLength: 4 }), end(Option.INFO)), { maxLength: 6 }),
  )
  .map(([first, servers, listed, infos]) => [
    first,
    ...servers,
    listed,
    ...infos.flatMap(([told, over]) => [...told, over]),
  ]);

export const clientListingTarget: Target<ListingInput> = {
  name: 'client-listing',
  inputs: fc.record({
    details: fc.boolean(),
    server: fc.tuple(conversation, mutations).map(([frames, changes]) => mutate(frames, changes)),
    pieces: pieceLengths,
  }),
  frames: (input) => input.server.length,

  async run(input) {
    const pieces = inPieces(Buffer.concat(input.server), input.pieces);
    const transport = new FakeTransport({ pieces, ending: 'end' });
    try {
      const dialogue = converse(transport, listing(input.details), DEADLINE);
      for (const { description, info } of await settled(dialogue, 'the list')) {
        assert.doesNotMatch(description ?? '', /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
        assert.ok(info === undefined || input.details);
      }
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      checkRefusal(error);
    }
    assert.ok(
      transport.mostAsked <= MOST_AT_ONCE,
      `asked for ${transport.mostAsked} bytes at once`,
    );
  },
};
