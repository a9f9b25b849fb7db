/** The reply parser where extended headers were agreed on: what is there only then. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hex } from '../support/fake-transport.js';
import {
  cookieOf,
  data,
  errorChunk,
  extended,
  hole,
  none,
  simpleReply,
  status,
  statusExt,
} from '../support/nbd-replies.js';
import {
  CONTEXT,
  Client,
  FLUSH,
  READ_8,
  STATUS,
  WRITE,
  checkSuccess,
  checkViolation,
} from '../support/reply-client.js';
import type { Asked, Fixture, Violation } from '../support/reply-client.js';

const [FIRST, SECOND] = [cookieOf(0), cookieOf(1)];
const TIB = 1n << 40n;
const END_OF_OFFSETS = 2n ** 63n - 9n;

const RIGHT: readonly Omit<Fixture, 'form'>[] = [
  {
    name: 'data in one chunk',
    asked: [READ_8],
    server: [
      hex(`
        6e8a278c 0001 0001              # done, OFFSET_DATA
        0000000100000000                # cookie
        0000000000001000                # offset of the request
        0000000000000010                # length
        0000000000001000 'abcdefgh'     # offset, data
      `),
    ],
    answers: ['0: abcdefgh'],
  },
  {
    name: 'chunks whose headers have the offset of the request, and not their own',
    asked: [READ_8],
    server: [
      hex(`
        6e8a278c 0000 0001 0000000100000000 0000000000001000 000000000000000b
        0000000000001005 'fgh'
      `),
      hex(`
        6e8a278c 0001 0002 0000000100000000 0000000000001000 000000000000000c
        0000000000001000 00000005
      `),
    ],
    answers: ['0: .....fgh'],
  },
  {
    name: 'success and failure of what carries no data',
    asked: [{ type: 'write', offset: 512n, length: 512 }, FLUSH, { ...WRITE, offset: 1024n }],
    server: [
      hex('6e8a278c 0001 0000 0000000100000000 0000000000000200 0000000000000000'),
      hex('6e8a278c 0001 0000 0000000100000001 0000000000000000 0000000000000000'),
      hex(`
        6e8a278c 0001 8001 0000000100000002 0000000000000400 000000000000000a
        0000001c 0004 'full'            # ENOSPC
      `),
    ],
    answers: ['0: done', '1: done', '2: ENOSPC'],
  },
  {
    name: 'an error at an offset',
    asked: [READ_8],
    server: [
      hex(`
        6e8a278c 0001 8002 0000000100000000 0000000000001000 0000000000000010
        00000005 0002 'no' 0000000000001004
      `),
    ],
    answers: ['0: EIO'],
  },
  {
    name: 'the largest offset',
    asked: [{ type: 'read', offset: END_OF_OFFSETS, length: 8 }],
    server: [extended(data(FIRST, true, END_OF_OFFSETS, Buffer.from('abcdefgh')), END_OF_OFFSETS)],
    answers: ['0: abcdefgh'],
  },
  {
    name: 'block status of more than 32 bits',
    asked: [{ type: 'status', offset: 4096n, length: Number(TIB) }],
    server: [
      hex(`
        6e8a278c 0001 0006              # done, BLOCK_STATUS_EXT
        0000000100000000 0000000000001000
        0000000000000038                # length
        00000007 00000003               # base:allocation, three extents
        0000010000000000 0000000000000003
        00000000ffffffff 0000000000000000
        ffffffffffffffff 00000000fffffffe
      `),
    ],
    answers: ['0: 1099511627776 hole zero, 4294967295, 18446744073709551615 zero'],
  },
  {
    name: 'block status whose extents are not counted',
    asked: [STATUS, STATUS],
    server: [
      statusExt(FIRST, 0n, CONTEXT, [[8192n, 0]], 0),
      statusExt(
        SECOND,
        0n,
        CONTEXT,
        [
          [512n, 1],
          [TIB, 2],
        ],
        0,
      ),
    ],
    answers: ['0: 8192', '1: 512 hole, 1099511627776 zero'],
  },
];

/** What a server may not say to a command. */
function bad(name: string, asked: Asked, server: readonly Buffer[], message: string): Violation {
  return { name, form: 'extended', asked: [asked], server, answers: ['0: EIO'], message };
}

/** A header alone, so that a length is refused before anything of that length is waited for. */
const header = (type: string, length: string): Buffer =>
  hex(`6e8a278c 0001 ${type} 0000000100000000 0000000000001000 ${length}`);

const READ_TO_0 = { ...READ_8, offset: 0n };
const EIGHT = Buffer.from('abcdefgh');

const WRONG: readonly Violation[] = [
  bad(
    'a simple reply',
    FLUSH,
    [simpleReply(FIRST)],
    'sent a simple reply although extended headers were agreed on',
  ),
  bad(
    'a simple error, and to a read',
    READ_8,
    [simpleReply(FIRST, 5)],
    'sent a simple reply although extended headers were agreed on',
  ),
  bad(
    'a structured reply without an extended header',
    READ_8,
    // No more than it takes to see that: nothing may be waited for.
    [none(FIRST).subarray(0, 16)],
    'sent a structured reply although extended headers were agreed on',
  ),
  bad(
    'a wrong magic',
    FLUSH,
    [hex('6e8a278d 0001 0000 0000000100000000')],
    'sent a reply with the wrong magic 0x6e8a278d',
  ),
  bad(
    'a magic of requests',
    FLUSH,
    [hex('21e41c71 0001 0000 0000000100000000')],
    'sent a reply with the wrong magic 0x21e41c71',
  ),
  bad(
    'the offset of the data in the header',
    READ_8,
    [extended(data(FIRST, true, 4096n, EIGHT), 4100n)],
    'sent a reply with offset 4100 to a request with offset 4096',
  ),
  bad(
    'no offset',
    READ_8,
    [extended(errorChunk(FIRST, true, 5), 0n)],
    'sent a reply with offset 0 to a request with offset 4096',
  ),
  bad(
    'an offset for a flush',
    FLUSH,
    [extended(none(FIRST), 2n ** 64n - 1n)],
    'sent a reply with offset 18446744073709551615 to a request with offset 0',
  ),
  bad(
    'a second chunk with another offset',
    READ_8,
    [
      extended(data(FIRST, false, 4096n, Buffer.from('abcd')), 4096n),
      extended(data(FIRST, true, 4100n, Buffer.from('efgh')), 4100n),
    ],
    'sent a reply with offset 4100 to a request with offset 4096',
  ),
  bad(
    'a reply to nothing',
    FLUSH,
    [extended(none(SECOND), 0n)],
    'sent a reply to a request that is not in flight (cookie 0x100000001)',
  ),
  bad(
    'a length over 32 bits that ends in a right one',
    READ_8,
    [header('0001', '0000000100000010')],
    'sent a chunk of type 1 with a length of 4294967312',
  ),
  bad(
    'the longest length',
    READ_8,
    [header('8001', 'ffffffffffffffff')],
    'sent a chunk of type 32769 with a length of 18446744073709551615',
  ),
  bad(
    'more data than asked',
    READ_8,
    [header('0001', '0000000000000011')],
    'sent a chunk of type 1 with a length of 17',
  ),
  bad(
    'data outside',
    READ_TO_0,
    [extended(hole(FIRST, true, 1n, 8), 0n)],
    'sent 8 bytes for offset 1 in reply to a read of 8 at 0',
  ),
  bad(
    'data twice',
    READ_TO_0,
    [
      extended(hole(FIRST, false, 0n, 8), 0n),
      extended(data(FIRST, true, 0n, Buffer.from('a')), 0n),
    ],
    'sent data for offset 0 twice in reply to one read',
  ),
  bad(
    'an end before all data',
    READ_TO_0,
    [extended(none(FIRST), 0n)],
    'ended the reply to a read before all its data was sent',
  ),
  bad(
    'block status of 32 bits',
    STATUS,
    [
      hex(`
        6e8a278c 0001 0005 0000000100000000 0000000000000000 000000000000000c
        00000007 00002000 00000000
      `),
    ],
    'sent a chunk of type 5 in reply to BLOCK_STATUS',
  ),
  bad(
    'block status to a read',
    READ_8,
    [header('0006', '0000000000000018')],
    'sent a chunk of type 6 in reply to READ',
  ),
  bad(
    'block status without an extent',
    { ...STATUS, offset: 4096n },
    [header('0006', '0000000000000008')],
    'sent a chunk of type 6 with a length of 8',
  ),
  bad(
    'half an extent',
    { ...STATUS, offset: 4096n },
    [header('0006', '0000000000000020')],
    'sent a chunk of type 6 with a length of 32',
  ),
  bad(
    'too many extents',
    { ...STATUS, offset: 4096n },
    [header('0006', '0000000001000018')],
    'sent a chunk of type 6 with a length of 16777240',
  ),
  bad(
    'more extents told than sent',
    STATUS,
    [statusExt(FIRST, 0n, CONTEXT, [[512n, 0]], 2)],
    'sent block status of 1 extents and said that it has 2',
  ),
  bad(
    'an extent of nothing',
    STATUS,
    [statusExt(FIRST, 0n, CONTEXT, [[0n, 0]])],
    'sent an extent of length 0',
  ),
  bad(
    'status of another context',
    STATUS,
    [statusExt(FIRST, 0n, 8, [[512n, 0]])],
    'sent block status for a meta context that was not agreed on (id 8)',
  ),
  bad(
    'flags that base:allocation cannot have',
    STATUS,
    [
      hex(`
        6e8a278c 0001 0006 0000000100000000 0000000000000000 0000000000000018
        00000007 00000001 0000000000002000 0000000100000003
      `),
    ],
    'sent block status flags over 32 bits (0x100000003)',
  ),
  bad(
    'status twice',
    STATUS,
    [
      extended(status(FIRST, false, CONTEXT, [[512, 0]]), 0n),
      extended(status(FIRST, true, CONTEXT, [[512, 0]]), 0n),
    ],
    'sent block status twice in one reply',
  ),
];

describe('extended replies', () => {
  for (const fixture of RIGHT)
    it(fixture.name, () => checkSuccess({ ...fixture, form: 'extended' }));

  it('are lent where they arrived, when they came in one chunk', () => {
    const client = new Client('extended');
    for (let i = 0; i < 3; i++) client.ask(READ_8);
    const server = [0, 1, 2].map((i) =>
      extended(data(cookieOf(i), true, 4096n, Buffer.from(`${i}bcdefgh`)), 4096n),
    );
    client.feed(Buffer.concat(server));
    assert.deepEqual(client.answers, ['0: 0bcdefgh', '1: 1bcdefgh', '2: 2bcdefgh']);
    assert.equal(client.inPlace, 3);
  });

  it('tell of a shutdown', () => {
    const client = new Client('extended');
    client.ask(FLUSH);
    client.feed(extended(errorChunk(FIRST, true, 108, 'bye'), 0n));
    assert.ok(client.parser.shuttingDown);
  });
});

describe('extended replies that break the protocol', () => {
  for (const fixture of WRONG) it(fixture.name, () => checkViolation(fixture));
});
