/** The list of exports against scripted servers: each script in one piece, byte by byte and split in two. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandshakeError, ProtocolError } from '../../src/nbd/errors.js';
import { listing } from '../../src/nbd/list-exports.js';
import type { ListedExport } from '../../src/nbd/list-exports.js';
import { EndOfStreamError, converse } from '../../src/transport/dialogue.js';
import { FakeTransport, hex } from '../support/fake-transport.js';

/** Milliseconds; ends a test that hangs. */
const DEADLINE = 60_000;

const GREETING = hex(`'NBDMAGIC' 'IHAVEOPT' 0003`);
const HELLO = hex('00000003');
const ASK_LIST = hex(`'IHAVEOPT' 00000003 00000000`);
const ABORT = hex(`'IHAVEOPT' 00000002 00000000`);

/** An option reply to LIST (3) or INFO (6). */
function reply(option: number, type: string, data = ''): Buffer {
  const content = hex(data);
  const header = Buffer.alloc(20);
  header.writeBigUInt64BE(0x3e889045565a9n);
  header.writeUInt32BE(option, 8);
  hex(type).copy(header, 12);
  header.writeUInt32BE(content.length, 16);
  return Buffer.concat([header, content]);
}

const server = (name: string, description = ''): Buffer =>
  reply(
    3,
    '00000002',
    `${name.length.toString(16).padStart(8, '0')} '${name}'${description === '' ? '' : ` '${description}'`}`,
  );
const LIST_OK = reply(3, '00000001');
const INFO_OK = reply(6, '00000001');
const INFO_EXPORT = reply(6, '00000003', '0000 0000000040000000 0003');
const INFO_BLOCKS = reply(6, '00000003', '0003 00000200 00001000 00100000');

const askInfo = (name: string): Buffer => {
  const length = (name.length + 10).toString(16).padStart(8, '0');
  const count = name.length.toString(16).padStart(8, '0');
  return hex(`'IHAVEOPT' 00000006 ${length} ${count} '${name}' 0002 0003 0002`);
};

interface Outcome {
  readonly told: ListedExport[] | Error;
  readonly sent: Buffer;
}

async function play(pieces: readonly Buffer[], details: boolean): Promise<Outcome> {
  const transport = new FakeTransport({ pieces, ending: 'end' });
  const told = await converse(transport, listing(details), DEADLINE).catch(
    (error: unknown) => error as Error,
  );
  return { told, sent: transport.sent };
}

/** In one piece, in single bytes, and split in two at each point. */
function* ways(script: Buffer): Generator<Buffer[], void> {
  yield [script];
  yield Array.from(script, (_, i) => script.subarray(i, i + 1));
  for (let i = 1; i < script.length; i++) yield [script.subarray(0, i), script.subarray(i)];
}

async function checkAll(
  script: readonly Buffer[],
  details: boolean,
  check: (outcome: Outcome) => void,
): Promise<void> {
  for (const pieces of ways(Buffer.concat(script))) check(await play(pieces, details));
}

const entry = (name: string, description?: string): ListedExport => ({
  name,
  description,
  info: undefined,
});

describe('the list of exports', () => {
  it('has names and descriptions, and says goodbye', async () => {
    const script = [GREETING, server(''), server('disk', 'my disk'), LIST_OK];
    await checkAll(script, false, ({ told, sent }) => {
      assert.deepEqual(told, [entry(''), entry('disk', 'my disk')]);
      assert.deepEqual(sent, Buffer.concat([HELLO, ASK_LIST, ABORT]));
    });
  });

  it('may be empty', async () => {
    await checkAll([GREETING, LIST_OK], true, ({ told }) => assert.deepEqual(told, []));
  });

  it('has what each export is, where that is asked for', async () => {
    const script = [
      GREETING,
      server('a'),
      server('b', 'old'),
      LIST_OK,
      INFO_EXPORT,
      INFO_BLOCKS,
      reply(6, '00000003', `0002 'told later'`),
      INFO_OK,
      reply(6, '80000006', `'no such export'`),
    ];
    await checkAll(script, true, ({ told, sent }) => {
      const limits = { minimum: 512, preferred: 4096, maximum: 1 << 20 };
      const info = { size: 1n << 30n, flags: 3, limits, description: 'told later' };
      assert.deepEqual(told, [{ name: 'a', description: 'told later', info }, entry('b', 'old')]);
      const asked = [HELLO, ASK_LIST, askInfo('a'), askInfo('b'), ABORT];
      assert.deepEqual(sent, Buffer.concat(asked));
    });
  });

  it('has nothing that a terminal would obey', async () => {
    const script = [GREETING, reply(3, '00000002', `00000001 'a' 1b 'x' 0a 'y'`), LIST_OK];
    await checkAll(script, false, ({ told }) => assert.deepEqual(told, [entry('a', 'x y')]));
  });

  for (const [what, type, message] of [
    [
      'that cannot tell',
      '80000001',
      /^the server cannot tell its exports \(the server says: no\)$/,
    ],
    ['that may not tell', '80000002', /^the server does not tell its exports /],
    ['that wants TLS', '80000005', /^the server wants an encrypted connection/],
    ['that shuts down', '80000007', /^the server is shutting down/],
  ] as const) {
    it(`is refused by a server ${what}, which is left in good order`, async () => {
      await checkAll([GREETING, reply(3, type, `'no'`)], false, ({ told, sent }) => {
        assert.ok(told instanceof HandshakeError);
        assert.match(told.message, message);
        assert.deepEqual(sent, Buffer.concat([HELLO, ASK_LIST, ABORT]));
      });
    });
  }

  it('is nothing that servers of old kinds have', async () => {
    const oldstyle = hex(`'NBDMAGIC' 0000420281861253`);
    for (const script of [oldstyle, hex(`'NBDMAGIC' 'IHAVEOPT' 0000`)]) {
      const { told } = await play([script], false);
      assert.ok(told instanceof HandshakeError);
      assert.match(told.message, /^the server is of an old kind/);
    }
  });

  for (const [what, script, message] of [
    ['a name longer than its reply', reply(3, '00000002', `00000005 'abc'`), /type 2 and 7 bytes/],
    ['a reply without a name', reply(3, '00000002', '0000'), /type 2 and 2 bytes/],
    ['INFO in reply to LIST', reply(3, '00000003', '0000'), /type 3 and 2 bytes to option 3/],
    ['an ACK with data', reply(3, '00000001', '00'), /type 1 and 1 bytes to option 3/],
    ['a reply to another option', reply(6, '00000001'), /^replied to option 6 when 3 was sent$/],
  ] as const) {
    it(`breaks off at ${what}`, async () => {
      await checkAll([GREETING, script], false, ({ told }) => {
        assert.ok(told instanceof ProtocolError);
        assert.match(told.message, message);
      });
    });
  }

  it('breaks off at an export that has no size', async () => {
    const script = [GREETING, server('a'), LIST_OK, INFO_OK];
    await checkAll(script, true, ({ told }) => {
      assert.ok(told instanceof ProtocolError);
      assert.match(told.message, /without telling its size/);
    });
  });

  it('ends', async () => {
    const script = [GREETING, ...Array.from({ length: 10_001 }, () => server('again'))];
    const { told } = await play(script, false);
    assert.ok(told instanceof ProtocolError);
    assert.equal(told.message, 'sent endless exports');
  });

  it('is no list where the server hangs up in it', async () => {
    const { told } = await play([GREETING, server('a')], false);
    assert.ok(told instanceof EndOfStreamError);
  });
});
