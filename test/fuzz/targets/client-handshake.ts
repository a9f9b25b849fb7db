/** The client's handshake with a server that may say anything. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ByteWriter } from '../../../src/bytes.js';
import {
  CLISERV_MAGIC,
  IHAVEOPT,
  Info,
  NBDMAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
} from '../../../src/nbd/constants.js';
import { HandshakeError, ProtocolError } from '../../../src/nbd/errors.js';
import type { NegotiatedExport } from '../../../src/nbd/export.js';
import {
  clientHandshake,
  encryptedHandshake,
  startTlsHandshake,
} from '../../../src/nbd/handshake.js';
import { EndOfStreamError, converse } from '../../../src/transport/dialogue.js';
import type { Dialogue } from '../../../src/transport/dialogue.js';
import { FakeTransport } from '../../support/fake-transport.js';
import { inPieces, mutate, mutations, pieceLengths } from '../mutation.js';
import { bytes, text, u16, u32, u64 } from '../numbers.js';
import { settled } from '../target.js';
import type { Target } from '../target.js';

/** Milliseconds; the turns are counted. */
const DEADLINE = 600_000;
/** No dialogue has a reason to ask for more at once: two strings of 4096 bytes, and some numbers. */
const MOST_AT_ONCE = 8192 + 64;
/** Nor to send more: a greeting, some options with the name of the export, and a goodbye. */
const MOST_SENT = 4096;
const GREETING_BYTES = 18;
const REPLY_BYTES = 20;

type Form = 'plain' | 'starttls' | 'encrypted';

export interface HandshakeInput {
  readonly form: Form;
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  readonly server: readonly Buffer[];
  readonly pieces: readonly number[];
}

const greeting = (magic: bigint, flags: number): Buffer =>
  new ByteWriter('big').u64(NBDMAGIC).u64(magic).u16(flags).finish();

function reply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const writer = new ByteWriter('big').u64(OPTION_REPLY_MAGIC).u32(option).u32(type);
  return writer.u32(data.length).bytes(data).finish();
}

const errorType = fc.constantFrom(...Object.values(OptionReply).filter((type) => type > 2 ** 31));

/** Agreed, or refused with some text. */
const answer = (option: number): fc.Arbitrary<Buffer> =>
  fc.oneof(
    { arbitrary: fc.constant(reply(option, OptionReply.ACK)), weight: 4 },
    fc.tuple(errorType, text).map(([type, said]) => reply(option, type, said)),
  );

const metaContext: fc.Arbitrary<Buffer> = fc
  .tuple(u32, fc.oneof(fc.constant(Buffer.from('base:allocation')), text))
  .map(([id, name]) => {
    const data = new ByteWriter('big').u32(id).bytes(name).finish();
    return reply(Option.SET_META_CONTEXT, OptionReply.META_CONTEXT, data);
  });

const infoReply = (type: number, data: ByteWriter): Buffer => {
  const content = new ByteWriter('big').u16(type).bytes(data.finish()).finish();
  return reply(Option.GO, OptionReply.INFO, content);
};
const honestSizes = fc.constantFrom<[number, number, number][]>(
  [512, 4096, 1024 * 1024],
  [1, 4096, 0xffffffff],
  [4096, 65536, 32 * 1024 * 1024],
);
/** One of them is what it may not be. */
const strangeSizes = fc
  .tuple(honestSizes, fc.nat({ max: 2 }), fc.oneof(fc.constantFrom(0, 1, 3, 513, 2 ** 31), u32))
  .map(([sizes, which, value]): [number, number, number] => {
    const [minimum, preferred, maximum] = sizes;
    if (which === 0) return [value, preferred, maximum];
    return which === 1 ? [minimum, value, maximum] : [minimum, preferred, value];
  });
const info: fc.Arbitrary<Buffer> = fc.oneof(
  fc
    .tuple(fc.oneof(fc.constant(2n ** 30n), u64), fc.oneof(fc.constant(0x6d), u16))
    .map(([size, flags]) => infoReply(Info.EXPORT, new ByteWriter('big').u64(size).u16(flags))),
  fc
    .oneof(honestSizes, strangeSizes, fc.tuple(u32, u32, u32))
    .map(([minimum, preferred, maximum]) => {
      const sizes = new ByteWriter('big').u32(minimum).u32(preferred).u32(maximum);
      return infoReply(Info.BLOCK_SIZE, sizes);
    }),
  fc
    .tuple(u16, bytes(30))
    .map(([type, data]) => infoReply(type, new ByteWriter('big').bytes(data))),
);
const exportInfo = infoReply(Info.EXPORT, new ByteWriter('big').u64(2n ** 30n).u16(0x6d));

const anyReply: fc.Arbitrary<Buffer> = fc
  .tuple(fc.constantFrom(5, 7, 8, 10, 11), u32, fc.option(u32, { freq: 3 }), text)
  .map(([option, type, length, data]) => {
    const message = Buffer.from(reply(option, type, data));
    if (length !== null) message.writeUInt32BE(length, 16);
    return message;
  });

const start: fc.Arbitrary<Buffer> = fc.oneof(
  { arbitrary: fc.constant(greeting(IHAVEOPT, 3)), weight: 10 },
  fc
    .tuple(fc.constantFrom(IHAVEOPT, CLISERV_MAGIC), u16)
    .map(([magic, flags]) => greeting(magic, flags)),
  fc
    .tuple(u64, u32, bytes(150))
    .map(([size, flags, rest]) =>
      Buffer.concat([
        new ByteWriter('big').u64(NBDMAGIC).u64(CLISERV_MAGIC).u64(size).u32(flags).finish(),
        rest,
      ]),
    ),
  bytes(200),
);

/** As servers go through it, with more of each kind of answer than there should be. */
const conversation: fc.Arbitrary<Buffer[]> = fc
  .tuple(
    start,
    fc.array(answer(Option.STARTTLS), { maxLength: 1 }),
    fc.array(answer(Option.EXTENDED_HEADERS), { maxLength: 1 }),
    fc.array(answer(Option.STRUCTURED_REPLY), { maxLength: 1 }),
    fc.array(metaContext, { maxLength: 3 }),
    answer(Option.SET_META_CONTEXT),
    fc.array(info, { maxLength: 4 }),
    answer(Option.GO),
  )
  .map(([first, tls, extended, structured, contexts, context, infos, go]) => [
    first,
    ...tls,
    ...extended,
    ...structured,
    ...contexts,
    context,
    ...infos,
    exportInfo,
    go,
  ]);

/** One of them over and over. */
const endless: fc.Arbitrary<Buffer[]> = fc
  .tuple(conversation, fc.nat(), fc.oneof(metaContext, info, anyReply))
  .map(([all, at, again]) => [
    ...all.slice(0, at % all.length),
    ...Array.from({ length: 150 }, () => again),
  ]);

const jumble: fc.Arbitrary<Buffer[]> = fc
  .tuple(start, fc.array(fc.oneof(anyReply, info, metaContext, bytes(64)), { maxLength: 8 }))
  .map(([first, rest]) => [first, ...rest]);

function dialogueOf({
  form,
  structuredReplies,
  extendedHeaders,
}: HandshakeInput): Dialogue<unknown> {
  const options = { exportName: 'disk', structuredReplies, extendedHeaders };
  if (form === 'plain') return clientHandshake(options);
  return form === 'starttls' ? startTlsHandshake() : encryptedHandshake(options, { zeroes: true });
}

/** What may be agreed on. */
function checkAgreed({ size, flags, limits, ...forms }: NegotiatedExport): void {
  assert.ok(size >= 0n && size < 2n ** 63n);
  assert.ok(flags >= 0 && flags <= 0xffff);
  const { minimum, preferred, maximum } = limits;
  for (const power of [minimum, preferred]) assert.ok(Number.isInteger(Math.log2(power)));
  assert.ok(minimum <= 65536 && minimum <= preferred);
  assert.ok(maximum >= minimum && maximum % minimum === 0 && maximum <= 32 * 1024 * 1024);
  // Otherwise each request would have to be made of many.
  const least = Math.min(preferred, 32 * 1024 * 1024);
  assert.ok(maximum >= least || BigInt(maximum) >= size, `a maximum of ${maximum}`);
  assert.ok(!forms.extendedHeaders || forms.structuredReplies);
  assert.ok(forms.allocationId === undefined || forms.structuredReplies);
}

/** What may be said of a server that is refused: one line, for any terminal. */
export function checkRefusal(error: unknown): void {
  assert.ok(error instanceof Error);
  const known = [HandshakeError, ProtocolError, EndOfStreamError].some(
    (kind) => error instanceof kind,
  );
  assert.ok(known, error.stack);
  assert.doesNotMatch(error.message, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
  assert.ok(error.message.length < 1000, error.message);
}

export const clientHandshakeTarget: Target<HandshakeInput> = {
  name: 'client-handshake',
  inputs: fc
    .record({
      form: fc.constantFrom<Form[]>('plain', 'plain', 'starttls', 'encrypted'),
      structuredReplies: fc.boolean(),
      extendedHeaders: fc.boolean(),
      server: fc
        .tuple(
          fc.oneof(
            { arbitrary: conversation, weight: 6 },
            { arbitrary: jumble, weight: 2 },
            { arbitrary: endless, weight: 1 },
          ),
          mutations,
        )
        .map(([frames, changes]) => mutate(frames, changes)),
      pieces: pieceLengths,
    })
    .map((input) => {
      // The second half of a handshake with TLS begins behind the greeting.
      return input.form === 'encrypted' ? { ...input, server: input.server.slice(1) } : input;
    }),
  frames: ({ server }) => server.length,

  async run(input) {
    const whole = Buffer.concat(input.server);
    const transport = new FakeTransport({ pieces: inPieces(whole, input.pieces), ending: 'end' });
    try {
      const agreed = await settled(
        converse(transport, dialogueOf(input), DEADLINE),
        'the handshake',
      );
      if (input.form === 'starttls') {
        // What comes in the clear behind the agreement is not for us: TLS gets it, and takes offence.
        assert.equal(whole.length - transport.left.length, GREETING_BYTES + REPLY_BYTES);
      } else {
        checkAgreed(agreed as NegotiatedExport);
      }
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      checkRefusal(error);
    }
    assert.ok(
      transport.mostAsked <= MOST_AT_ONCE,
      `asked for ${transport.mostAsked} bytes at once`,
    );
    assert.ok(transport.sent.length <= MOST_SENT, `sent ${transport.sent.length} bytes`);
  },
};
