/** The handshake up to TLS: what is said in the clear, and what comes of it, which is as little as can be. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandshakeError, ProtocolError } from '../../src/nbd/errors.js';
import { encryptedHandshake, startTlsHandshake } from '../../src/nbd/handshake.js';
import { converse } from '../../src/transport/dialogue.js';
import { FakeTransport, hex } from '../support/fake-transport.js';

/** Milliseconds; ends a test that hangs. */
const DEADLINE = 60_000;

const GREETING = hex(`'NBDMAGIC' 'IHAVEOPT' 0003`);
const ACK = hex('0003e889045565a9 00000005 00000001 00000000');
/** What we say in the clear: our flags, and NBD_OPT_STARTTLS. */
const ASKED = hex(`00000003 'IHAVEOPT' 00000005 00000000`);
const ABORT = hex(`'IHAVEOPT' 00000002 00000000`);

const refusal = (type: string): Buffer => hex(`0003e889045565a9 00000005 ${type} 00000000`);

async function shake(...pieces: Buffer[]): Promise<FakeTransport> {
  const transport = new FakeTransport({ pieces, ending: 'end' });
  await converse(transport, startTlsHandshake(), DEADLINE);
  return transport;
}

describe('what a server slips in before TLS', () => {
  const SLIPPED = hex('0003e889045565a9 00000007 00000001 00000000');

  it('behind its agreement is left for TLS, which takes offence', async () => {
    for (const pieces of [[GREETING, ACK, SLIPPED], [Buffer.concat([GREETING, ACK, SLIPPED])]]) {
      const transport = await shake(...pieces);
      assert.deepEqual(transport.left, SLIPPED);
      assert.deepEqual(transport.sent, ASKED);
    }
  });

  it('in place of its agreement is refused', async () => {
    for (const slipped of [SLIPPED, hex('0003e889045565a9 00000005 00000003 00000000'), ASKED]) {
      await assert.rejects(shake(GREETING, slipped), ProtocolError);
    }
  });

  it('in its agreement is refused', async () => {
    await assert.rejects(
      shake(GREETING, hex('0003e889045565a9 00000005 00000001 00000001 00')),
      /^ProtocolError: sent a reply of type 1 and 1 bytes to option 5, which it may not$/,
    );
  });
});

describe('a server that does not agree to TLS', () => {
  for (const [name, type] of [
    ['it does not know it', '80000001'],
    ['it must not', '80000002'],
    ['it wants it another time', '80000005'],
  ] as const) {
    it(`is left with a goodbye, and is told nothing else: ${name}`, async () => {
      const transport = new FakeTransport({ pieces: [GREETING, refusal(type)], ending: 'end' });
      await assert.rejects(converse(transport, startTlsHandshake(), DEADLINE), HandshakeError);
      assert.deepEqual(transport.sent, Buffer.concat([ASKED, ABORT]));
    });
  }

  it('may be too old for it', async () => {
    const oldest = Buffer.concat([hex(`'NBDMAGIC' 0000420281861253`), Buffer.alloc(136)]);
    for (const greeting of [hex(`'NBDMAGIC' 'IHAVEOPT' 0002`), oldest]) {
      await assert.rejects(shake(greeting), /^HandshakeError: the server is of an old kind/);
    }
  });
});

it('a server that begins anew under TLS is refused', async () => {
  const transport = new FakeTransport({ pieces: [GREETING, ACK], ending: 'end' });
  const dialogue = encryptedHandshake({ exportName: '' }, { zeroes: false });
  await assert.rejects(converse(transport, dialogue, DEADLINE), ProtocolError);
});
