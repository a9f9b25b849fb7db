/** The reply parser against scripted servers; for extended headers see extended-replies.test.ts. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { errno, errnoName } from '../../src/errno.js';
import { Command } from '../../src/nbd/constants.js';
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
import type { Fixture, Violation } from '../support/reply-client.js';
import { inPieces, pieceLengths } from '../fuzz/mutation.js';
import { story } from '../support/reply-stories.js';

// Cookies: the command with the index 2 has 00000001 00000002.
const [FIRST, SECOND, THIRD] = [cookieOf(0), cookieOf(1), cookieOf(2)];

const SIMPLE: readonly Fixture[] = [
  {
    name: 'data',
    asked: [READ_8],
    server: [hex(`67446698 00000000 0000000100000000 'abcdefgh'`)],
    answers: ['0: abcdefgh'],
  },
  {
    name: 'data of several reads, in another order',
    asked: [READ_8, { ...READ_8, length: 2 }, { ...READ_8, length: 1 }],
    server: [
      hex(`67446698 00000000 0000000100000001 'ij'`),
      hex(`67446698 00000000 0000000100000002 'k'`),
      hex(`67446698 00000000 0000000100000000 'abcdefgh'`),
    ],
    answers: ['1: ij', '2: k', '0: abcdefgh'],
  },
  {
    name: 'data that look like replies',
    asked: [{ type: 'read', offset: 0n, length: 16 }, FLUSH],
    server: [
      hex('67446698 00000000 0000000100000000 67446698 00000005 0000000100000001'),
      hex('67446698 00000000 0000000100000001'),
    ],
    answers: ['0: gDf\x98...\x05...\x01...\x01', '1: done'],
  },
  {
    name: 'an error, which no data follow',
    asked: [READ_8, READ_8],
    server: [
      hex(`67446698 00000005 0000000100000000
           67446698 00000000 0000000100000001 'abcdefgh'`),
    ],
    answers: ['0: EIO', '1: abcdefgh'],
  },
  {
    name: 'success of all that carries no data',
    asked: [WRITE, FLUSH, { type: 'trim', length: 512 }, { type: 'zero', length: 512 }],
    server: [3, 1, 0, 2].map((index) => simpleReply(cookieOf(index))),
    answers: ['3: done', '1: done', '0: done', '2: done'],
  },
  {
    name: 'failure of all of them',
    asked: [WRITE, FLUSH, { type: 'trim', length: 512 }, { type: 'zero', length: 512 }],
    server: [1, 28, 12, 95].map((error, index) => simpleReply(cookieOf(index), error)),
    answers: ['0: EPERM', '1: ENOSPC', '2: ENOMEM', '3: EOPNOTSUPP'].map((text) =>
      text.replace('EOPNOTSUPP', errnoName(errno.EOPNOTSUPP)),
    ),
  },
  {
    name: 'an error that nobody knows',
    asked: [FLUSH, WRITE],
    server: [hex('67446698 ffffffff 0000000100000000'), hex('67446698 00000002 0000000100000001')],
    answers: ['0: EINVAL', '1: EINVAL'],
  },
];

const STRUCTURED: readonly Fixture[] = [
  {
    name: 'data in one chunk',
    asked: [READ_8],
    server: [
      hex(`
        668e33ef 0001 0001              # done, OFFSET_DATA
        0000000100000000                # cookie
        00000010                        # length
        0000000000001000 'abcdefgh'     # offset, data
      `),
    ],
    answers: ['0: abcdefgh'],
  },
  {
    name: 'data in one chunk that is not said to be the last',
    asked: [READ_8],
    server: [
      hex(`668e33ef 0000 0001 0000000100000000 00000010 0000000000001000 'abcdefgh'`),
      hex(`668e33ef 0001 0000 0000000100000000 00000000`), // NONE
    ],
    answers: ['0: abcdefgh'],
  },
  {
    name: 'data in several chunks',
    asked: [READ_8],
    server: [
      hex(`668e33ef 0000 0001 0000000100000000 0000000b 0000000000001000 'abc'`),
      hex(`668e33ef 0000 0001 0000000100000000 00000009 0000000000001003 'd'`),
      hex(`668e33ef 0001 0001 0000000100000000 0000000c 0000000000001004 'efgh'`),
    ],
    answers: ['0: abcdefgh'],
  },
  {
    name: 'data and holes from the end to the start',
    asked: [READ_8],
    server: [
      hex(`668e33ef 0000 0001 0000000100000000 00000009 0000000000001007 'h'`),
      hex(`668e33ef 0000 0002 0000000100000000 0000000c 0000000000001005 00000002`), // HOLE
      hex(`668e33ef 0000 0001 0000000100000000 0000000c 0000000000001001 'bcde'`),
      hex(`668e33ef 0001 0002 0000000100000000 0000000c 0000000000001000 00000001`),
    ],
    answers: ['0: .bcde..h'],
  },
  {
    name: 'a hole only',
    asked: [READ_8],
    server: [hole(FIRST, true, 4096n, 8)],
    answers: ['0: ........'],
  },
  {
    name: 'chunks of several reads, mixed',
    asked: [READ_8, READ_8, FLUSH],
    server: [
      data(SECOND, false, 4100n, Buffer.from('EFGH')),
      data(FIRST, false, 4096n, Buffer.from('abcd')),
      hole(SECOND, false, 4098n, 2),
      none(THIRD),
      data(SECOND, true, 4096n, Buffer.from('AB')),
      data(FIRST, true, 4100n, Buffer.from('efgh')),
    ],
    answers: ['2: done', '1: AB..EFGH', '0: abcdefgh'],
  },
  {
    name: 'data at the end of the largest disk',
    asked: [{ type: 'read', offset: 2n ** 63n - 9n, length: 8 }],
    server: [
      hex(`668e33ef 0000 0001 0000000100000000 0000000c 7ffffffffffffffb 'efgh'`),
      hex(`668e33ef 0001 0001 0000000100000000 0000000c 7ffffffffffffff7 'abcd'`),
    ],
    answers: ['0: abcdefgh'],
  },
  {
    name: 'flags and errors that nobody knows',
    asked: [READ_8, READ_8],
    server: [
      hex(`668e33ef ffff 0001 0000000100000000 00000010 0000000000001000 'abcdefgh'`),
      // A type with the bit of errors, and more in it than we know of.
      hex(`668e33ef 0001 ffff 0000000100000001 0000000a 00000005 0002 'hi' 0102`),
    ],
    answers: ['0: abcdefgh', '1: EIO'],
  },
  {
    name: 'an error',
    asked: [READ_8, WRITE, STATUS],
    server: [
      hex(`
        668e33ef 0001 8001              # done, ERROR
        0000000100000000 0000000e       # cookie, length
        00000005 0008 'bad disk'        # EIO, message
      `),
      hex(`668e33ef 0001 8001 0000000100000001 00000006 0000001c 0000`), // ENOSPC
      hex(`668e33ef 0001 8001 0000000100000002 00000006 00000016 0000`), // EINVAL
    ],
    answers: ['0: EIO', '1: ENOSPC', '2: EINVAL'],
  },
  {
    name: 'an error at an offset, and one that comes before the last chunk',
    asked: [READ_8, READ_8],
    server: [
      hex(`668e33ef 0001 8002 0000000100000000 00000010 00000005 0002 'no' 0000000000001004`),
      hex(`668e33ef 0000 8002 0000000100000001 0000000e 0000000c 0000 0000000000001004`),
      hex(`668e33ef 0001 0000 0000000100000001 00000000`),
    ],
    answers: ['0: EIO', '1: ENOMEM'],
  },
  {
    name: 'errors among data: the first one counts',
    asked: [READ_8],
    server: [
      data(FIRST, false, 4096n, Buffer.from('abcd')),
      errorChunk(FIRST, false, 12, 'first'),
      errorChunk(FIRST, false, 5, 'second', 4100n),
      data(FIRST, true, 4100n, Buffer.from('efgh')),
    ],
    answers: ['0: ENOMEM'],
  },
  {
    name: 'an error before all the data in one chunk',
    asked: [READ_8],
    server: [
      errorChunk(FIRST, false, 5, 'it may be wrong'),
      data(FIRST, true, 4096n, Buffer.from('abcdefgh')),
    ],
    answers: ['0: EIO'],
  },
  {
    name: 'success and failure of what carries no data, as chunks or not',
    asked: [WRITE, FLUSH, WRITE, FLUSH, STATUS],
    server: [
      none(FIRST),
      simpleReply(SECOND),
      errorChunk(THIRD, true, 28),
      simpleReply(cookieOf(3), 5),
      simpleReply(cookieOf(4), 22),
    ],
    answers: ['0: done', '1: done', '2: ENOSPC', '3: EIO', '4: EINVAL'],
  },
  {
    name: 'block status',
    asked: [STATUS, STATUS, STATUS],
    server: [
      hex(`
        668e33ef 0001 0005              # done, BLOCK_STATUS
        0000000100000000 0000000c       # cookie, length
        00000007 00002000 00000000      # base:allocation, 8192 bytes of data
      `),
      hex(`
        668e33ef 0001 0005 0000000100000001 00000024
        00000007
        00000200 00000001               # a hole
        00000200 00000002               # zeroes
        00000200 00000003               # both
        ffffffff fffffffc               # further than asked, flags that nobody knows
      `),
      hex(`668e33ef 0000 0005 0000000100000002 0000000c 00000007 00001000 00000003`),
      hex(`668e33ef 0001 0000 0000000100000002 00000000`),
    ],
    answers: [
      '0: 8192',
      '1: 512 hole, 512 zero, 512 hole zero, 4294967295',
      '2: 4096 hole zero', // less than asked
    ],
  },
  {
    name: 'block status that turns out to be wrong',
    asked: [STATUS],
    server: [status(FIRST, false, CONTEXT, [[512, 0]]), errorChunk(FIRST, true, 5)],
    answers: ['0: EIO'],
  },
  {
    name: 'block status under the id 0',
    allocationId: 0,
    asked: [STATUS],
    server: [status(FIRST, true, 0, [[512, 3]])],
    answers: ['0: 512 hole zero'],
  },
  {
    name: 'block status that is longer than what is kept of it',
    asked: [STATUS],
    server: [
      status(
        FIRST,
        true,
        CONTEXT,
        Array.from({ length: 1024 * 1024 }, (_, i) => [i < 128 * 1024 ? 512 : 1024, 0] as const),
      ),
    ],
    answers: [
      `0: ${Array<string>(128 * 1024)
        .fill('512')
        .join(', ')}`,
    ],
  },
  {
    name: 'much block status and the longest message',
    asked: [STATUS, FLUSH],
    server: [
      status(
        FIRST,
        true,
        CONTEXT,
        Array.from({ length: 128 * 1024 }, () => [512, 0] as const),
      ),
      errorChunk(SECOND, true, 5, 'x'.repeat(4096), 0n),
    ],
    answers: [
      `0: ${Array<string>(128 * 1024)
        .fill('512')
        .join(', ')}`,
      '1: EIO',
    ],
  },
];

const wrongLength = (type: number, length: number): string =>
  `sent a chunk of type ${type} with a length of ${length}`;
const wrongChunk = (type: number, command: string): string =>
  `sent a chunk of type ${type} in reply to ${command}`;
const NOT_IN_FLIGHT = 'sent a reply to a request that is not in flight';

/** A header alone, so that a length is refused before anything of that length is waited for. */
const header = (type: string, length: string, done = true): Buffer =>
  hex(`668e33ef ${done ? '0001' : '0000'} ${type} 0000000100000000 ${length}`);

/** What a server may not say to a READ of 8 bytes at 4096. */
function badRead(name: string, server: readonly Buffer[], message: string): Violation {
  return { name, asked: [READ_8], server, answers: ['0: EIO'], message };
}

/** The same for a chunk that tells of `count` bytes at `offset`. */
function outside(name: string, offset: bigint, count: number): Violation[] {
  const message = `sent ${count} bytes for offset ${offset.toString()} in reply to a read of 8 at 4096`;
  return [
    badRead(`data ${name}`, [data(FIRST, true, offset, Buffer.alloc(count, 'x'))], message),
    badRead(`a hole ${name}`, [hole(FIRST, true, offset, count)], message),
  ];
}

const ABCD = Buffer.from('abcd');
const twice = (offset: number): string =>
  `sent data for offset ${offset} twice in reply to one read`;
const EARLY_END = 'ended the reply to a read before all its data was sent';

const badStatus = (name: string, server: readonly Buffer[], message: string): Violation => ({
  name,
  asked: [STATUS],
  server,
  answers: ['0: EIO'],
  message,
});

const VIOLATIONS: readonly Violation[] = [
  {
    name: 'no reply at all',
    asked: [FLUSH],
    server: [hex(`'HTTP/1.1 200 OK' 0d0a`)],
    answers: ['0: EIO'],
    message: 'sent a reply with the wrong magic 0x48545450',
  },
  {
    name: 'a reply of a kind that was not agreed on (extended headers)',
    asked: [FLUSH],
    server: [hex('6e8a278c 0001 0000 0000000100000000 00000000')],
    answers: ['0: EIO'],
    message: 'sent an extended header although they were not agreed on',
  },
  {
    name: 'something between two replies',
    asked: [FLUSH, FLUSH],
    server: [simpleReply(FIRST), hex('00'), simpleReply(SECOND)],
    answers: ['0: done', '1: EIO'],
    message: 'sent a reply with the wrong magic 0x674466',
  },
  {
    name: 'a reply to nothing',
    asked: [],
    server: [hex('67446698 00000000 0000000000000000')],
    answers: [],
    message: `${NOT_IN_FLIGHT} (cookie 0x0)`,
  },
  {
    name: 'a reply to a request that was never made',
    asked: [FLUSH],
    server: [hex('67446698 00000000 00000001ffffffff')],
    answers: ['0: EIO'],
    message: `${NOT_IN_FLIGHT} (cookie 0x1ffffffff)`,
  },
  {
    name: 'a reply with a cookie of another use of the same place',
    asked: [FLUSH],
    server: [hex('67446698 00000000 0000000200000000')],
    answers: ['0: EIO'],
    message: `${NOT_IN_FLIGHT} (cookie 0x200000000)`,
  },
  {
    name: 'a second reply',
    asked: [FLUSH, FLUSH],
    server: [simpleReply(FIRST), simpleReply(FIRST)],
    answers: ['0: done', '1: EIO'],
    message: `${NOT_IN_FLIGHT} (cookie 0x100000000)`,
  },
  {
    name: 'a chunk after the last one',
    asked: [READ_8, FLUSH],
    server: [data(FIRST, true, 4096n, Buffer.from('abcdefgh')), none(FIRST)],
    answers: ['0: abcdefgh', '1: EIO'],
    message: `${NOT_IN_FLIGHT} (cookie 0x100000000)`,
  },
  {
    name: 'a chunk after an error that was the last one',
    asked: [READ_8],
    server: [errorChunk(FIRST, true, 12), hole(FIRST, true, 4096n, 8)],
    answers: ['0: ENOMEM'],
    message: `${NOT_IN_FLIGHT} (cookie 0x100000000)`,
  },
  {
    name: 'a structured reply where none was agreed on',
    form: 'simple',
    asked: [FLUSH],
    server: [none(FIRST)],
    answers: ['0: EIO'],
    message: 'sent a structured reply although they were not agreed on',
  },
  badRead(
    'a simple reply to a read where structured ones were agreed on',
    [simpleReply(FIRST)],
    'sent a simple reply to READ although structured replies were agreed on',
  ),
  badRead(
    'a simple error likewise',
    [simpleReply(FIRST, 5)],
    'sent a simple reply to READ although structured replies were agreed on',
  ),
  badStatus(
    'a simple success to BLOCK_STATUS',
    [simpleReply(FIRST)],
    'answered BLOCK_STATUS without its data',
  ),

  badRead('a type of no known kind', [header('0003', '00000000')], wrongChunk(3, 'READ')),
  badRead(
    'a type of extended headers',
    [header('0006', '00000018')],
    wrongChunk(6, 'READ'), // BLOCK_STATUS_EXT
  ),
  badRead('NONE with something in it', [header('0000', '00000001')], wrongLength(0, 1)),
  badRead('NONE that is not the last', [header('0000', '00000000', false)], wrongLength(0, 0)),
  badRead('NONE and no data', [none(FIRST)], EARLY_END),
  badRead('data without an offset', [header('0001', '00000007')], wrongLength(1, 7)),
  badRead('data without data', [header('0001', '00000008')], wrongLength(1, 8)),
  badRead('more data than asked', [header('0001', '00000011')], wrongLength(1, 17)),
  badRead('endless data', [header('0001', 'ffffffff')], wrongLength(1, 0xffffffff)),
  badRead('a short hole', [header('0002', '0000000b')], wrongLength(2, 11)),
  badRead('a long hole', [header('0002', '00000010')], wrongLength(2, 16)),
  ...outside('just before', 4095n, 1),
  ...outside('from before into it', 4095n, 2),
  ...outside('from it beyond', 4103n, 2),
  ...outside('just behind', 4104n, 1),
  ...outside('at the start of the disk', 0n, 8),
  ...outside('at the end of all offsets', 2n ** 64n - 1n, 1),
  ...outside('that wraps around', 2n ** 64n - 8n, 8),
  badRead(
    'a hole of nothing',
    [hole(FIRST, true, 4096n, 0)],
    'sent 0 bytes for offset 4096 in reply to a read of 8 at 4096',
  ),
  badRead(
    'a hole without end',
    [hole(FIRST, true, 4096n, 0xffffffff)],
    'sent 4294967295 bytes for offset 4096 in reply to a read of 8 at 4096',
  ),
  badRead(
    'data twice',
    [data(FIRST, false, 4096n, ABCD), data(FIRST, true, 4096n, ABCD)],
    twice(4096),
  ),
  badRead(
    'data that overlap',
    [data(FIRST, false, 4096n, ABCD), data(FIRST, true, 4099n, ABCD)],
    twice(4099),
  ),
  badRead(
    'all data after a part of them',
    [data(FIRST, false, 4100n, ABCD), data(FIRST, true, 4096n, Buffer.from('abcdefgh'))],
    twice(4096),
  ),
  badRead(
    'a hole over data',
    [data(FIRST, false, 4097n, ABCD), hole(FIRST, true, 4096n, 8)],
    twice(4096),
  ),
  badRead(
    'data in a hole',
    [hole(FIRST, false, 4096n, 8), data(FIRST, true, 4100n, ABCD)],
    twice(4100),
  ),
  badRead('too little data', [data(FIRST, true, 4096n, ABCD)], EARLY_END),
  badRead(
    'data with a gap',
    [
      data(FIRST, false, 4096n, ABCD),
      hole(FIRST, false, 4102n, 1),
      data(FIRST, true, 4103n, Buffer.from('h')),
    ],
    EARLY_END,
  ),
  {
    name: 'data to a write',
    asked: [WRITE],
    server: [hex('668e33ef 0001 0001 0000000100000000 00000009')],
    answers: ['0: EIO'],
    message: wrongChunk(1, 'WRITE'),
  },
  {
    name: 'a hole to a flush',
    asked: [FLUSH],
    server: [header('0002', '0000000c')],
    answers: ['0: EIO'],
    message: wrongChunk(2, 'FLUSH'),
  },
  {
    name: 'block status to a trim',
    asked: [{ type: 'trim', length: 512 }],
    server: [header('0005', '0000000c')],
    answers: ['0: EIO'],
    message: wrongChunk(5, 'TRIM'),
  },

  badRead('block status to a read', [header('0005', '0000000c')], wrongChunk(5, 'READ')),
  badStatus('data to BLOCK_STATUS', [header('0001', '00000009')], wrongChunk(1, 'BLOCK_STATUS')),
  badStatus('status without an extent', [header('0005', '00000004')], wrongLength(5, 4)),
  badStatus('status without an id', [header('0005', '00000000')], wrongLength(5, 0)),
  badStatus('half an extent', [header('0005', '00000010')], wrongLength(5, 16)),
  badStatus('too many extents', [header('0005', '0080000c')], wrongLength(5, 0x80000c)),
  badStatus('endless extents', [header('0005', 'fffffffc')], wrongLength(5, 0xfffffffc)),
  badStatus(
    'status of another context',
    [status(FIRST, true, 8, [[512, 0]])],
    'sent block status for a meta context that was not agreed on (id 8)',
  ),
  {
    ...badStatus(
      'status where no context was agreed on',
      [status(FIRST, true, 0, [[512, 0]])],
      'sent block status for a meta context that was not agreed on (id 0)',
    ),
    allocationId: undefined,
  },
  badStatus(
    'status twice',
    [status(FIRST, false, CONTEXT, [[512, 0]]), status(FIRST, true, CONTEXT, [[512, 0]])],
    'sent block status twice in one reply',
  ),
  badStatus(
    'an extent of nothing',
    [
      status(FIRST, true, CONTEXT, [
        [512, 0],
        [0, 0],
      ]),
    ],
    'sent an extent of length 0',
  ),
  badStatus('NONE to BLOCK_STATUS', [none(FIRST)], 'answered BLOCK_STATUS without an extent'),

  badRead('a short error', [header('8001', '00000005')], wrongLength(0x8001, 5)),
  badRead('a short error with an offset', [header('8002', '0000000d')], wrongLength(0x8002, 13)),
  badRead('a short error of no known kind', [header('8003', '00000005')], wrongLength(0x8003, 5)),
  badRead('an error of absurd length', [header('8001', '0000100f')], wrongLength(0x8001, 0x100f)),
  badRead('an endless error', [header('ffff', 'ffffffff')], wrongLength(0xffff, 0xffffffff)),
  badRead('an error of 0', [errorChunk(FIRST, true, 0)], 'sent an error chunk with error 0'),
  badRead(
    'an error whose message is longer than it',
    [hex(`668e33ef 0001 8001 0000000100000000 00000008 00000005 0003 'ab'`)],
    'sent an error chunk whose message is longer than the chunk',
  ),
  badRead(
    'an error whose message reaches into its offset',
    [hex(`668e33ef 0001 8002 0000000100000000 00000010 00000005 0003 'ab' 0000000000001000`)],
    'sent an error chunk whose message is longer than the chunk',
  ),
];

describe('simple replies', () => {
  for (const fixture of SIMPLE)
    it(fixture.name, () => checkSuccess({ ...fixture, form: 'simple' }));
});

describe('structured replies', () => {
  for (const fixture of STRUCTURED) it(fixture.name, () => checkSuccess(fixture));
});

describe('structured replies under extended headers', () => {
  for (const fixture of STRUCTURED) {
    const server = fixture.server.map((reply) => {
      const { offset = 0n } = fixture.asked[reply.readUInt32BE(12)] ?? {};
      return extended(reply, offset);
    });
    it(fixture.name, () => checkSuccess({ ...fixture, form: 'extended', server }));
  }
});

describe('replies that break the protocol', () => {
  for (const fixture of VIOLATIONS) it(fixture.name, () => checkViolation(fixture));
});

describe('the data of a read', () => {
  const lentInPlace = (structured: boolean, server: readonly Buffer[]): number => {
    const client = new Client(structured ? 'structured' : 'simple');
    for (let i = 0; i < 3; i++) client.ask(READ_8);
    client.feed(Buffer.concat(server));
    assert.deepEqual(client.answers.toSorted(), ['0: abcdefgh', '1: ijklmnop', '2: qrstuvwx']);
    return client.inPlace;
  };
  const texts = ['abcdefgh', 'ijklmnop', 'qrstuvwx'].map((text) => Buffer.from(text));

  it('are lent where they arrived, when they came in one simple reply', () => {
    assert.equal(
      lentInPlace(
        false,
        texts.map((text, i) => simpleReply(cookieOf(i), 0, text)),
      ),
      3,
    );
  });

  it('are lent where they arrived, when they came in one chunk', () => {
    assert.equal(
      lentInPlace(
        true,
        texts.map((text, i) => data(cookieOf(i), true, 4096n, text)),
      ),
      3,
    );
  });

  it('are put together elsewhere, when they did not', () => {
    const server = texts.flatMap((text, i) => [
      data(cookieOf(i), false, 4096n, text.subarray(0, 4)),
      data(cookieOf(i), true, 4100n, text.subarray(4)),
    ]);
    assert.equal(lentInPlace(true, server), 0);
  });
});

describe('a command object', () => {
  it('is used again under another cookie, and knows nothing of its former life', () => {
    const client = new Client('structured');
    const pieces = [
      [READ_8, data(FIRST, false, 4096n, ABCD), errorChunk(FIRST, true, 12)],
      [READ_8, hole(cookieOf(0, 2), true, 4096n, 8)],
      [
        STATUS,
        status(cookieOf(0, 3), false, CONTEXT, [[512, 0]]),
        errorChunk(cookieOf(0, 3), true, 5),
      ],
      [STATUS, status(cookieOf(0, 4), true, CONTEXT, [[1024, 3]])],
      [FLUSH, none(cookieOf(0, 5))],
      // Longer than the one before it that was put together.
      [
        { ...READ_8, length: 10 },
        data(cookieOf(0, 6), false, 4096n, ABCD),
        data(cookieOf(0, 6), true, 4100n, Buffer.from('efghij')),
      ],
      [READ_8, data(cookieOf(0, 7), true, 4096n, Buffer.from('abcdefgh'))],
    ] as const;
    for (const [asked, ...server] of pieces) {
      client.ask(asked);
      client.feed(Buffer.concat(server));
    }
    assert.deepEqual(client.answers, [
      '0: ENOMEM',
      '1: ........',
      '2: EIO',
      '3: 1024 hole zero',
      '4: done',
      '5: abcdefghij',
      '6: abcdefgh',
    ]);
    client.ask(FLUSH);
    assert.throws(() => client.feed(none(cookieOf(0, 7))), /not in flight \(cookie 0x700000000\)/);
  });

  it('has a cookie of 64 bits, also after 2^32 uses', () => {
    const client = new Client('simple');
    client.ask(FLUSH);
    const command = client.inFlight.find(1, 0);
    assert.ok(command !== undefined);
    client.feed(simpleReply(FIRST));
    command.generation = 0xffffffff;
    client.ask(FLUSH);
    assert.equal(client.inFlight.find(0, 0), command);
    client.feed(simpleReply(0n));
    assert.deepEqual(client.answers, ['0: done', '1: done']);
  });

  it('can be asked for by the answer to another one', () => {
    const client = new Client('simple');
    const command = client.inFlight.add(Command.FLUSH, 0, 0n, 0);
    command.reply = { done: () => client.ask(FLUSH) };
    client.ask(WRITE);
    // The answer to a question that is asked only when the one before is answered.
    client.feed(
      Buffer.concat([simpleReply(FIRST), simpleReply(cookieOf(0, 2)), simpleReply(SECOND)]),
    );
    assert.deepEqual(client.answers, ['1: done', '0: done']);
  });
});

describe('what a server could send for ever', () => {
  it('is errors of one reply', () => {
    const client = new Client('structured');
    client.ask(READ_8);
    const some = Buffer.concat(Array.from({ length: 4096 }, () => errorChunk(FIRST, false, 5)));
    for (let i = 0; i < 16; i++) client.feed(some);
    assert.throws(
      () => client.feed(some),
      /^ProtocolError: sent endless errors in reply to one READ$/,
    );
    client.end();
    assert.deepEqual(client.answers, ['0: EIO']);
  });

  it('is a read in single bytes that do not belong together', () => {
    const client = new Client('structured');
    client.ask({ type: 'read', offset: 0n, length: 1 << 20 });
    const byte = Buffer.of(1);
    const pieces = Array.from({ length: 4096 }, (_, i) => data(FIRST, false, BigInt(2 * i), byte));
    client.feed(Buffer.concat(pieces));
    assert.throws(
      () => client.feed(data(FIRST, false, 1n << 19n, byte)),
      /^ProtocolError: sent a read in too many pieces that do not belong together$/,
    );
    client.end();
  });
});

describe('a server that shuts down', () => {
  for (const [how, structured, server] of [
    ['a simple reply', false, simpleReply(FIRST, 108)],
    ['a simple reply among structured ones', true, simpleReply(FIRST, 108)],
    ['an error chunk', true, errorChunk(FIRST, true, 108, 'bye')],
  ] as const) {
    it(`says so by ${how}`, () => {
      const client = new Client(structured ? 'structured' : 'simple');
      client.ask(FLUSH);
      client.ask(FLUSH);
      assert.ok(!client.parser.shuttingDown);
      client.feed(Buffer.concat([server, simpleReply(SECOND)]));
      assert.ok(client.parser.shuttingDown);
      assert.deepEqual(
        client.answers,
        ['0: ESHUTDOWN', '1: done'].map((text) =>
          text.replace('ESHUTDOWN', errnoName(errno.ESHUTDOWN)),
        ),
      );
    });
  }
});

describe('whatever a server sends', () => {
  it('is answered as the protocol means it', () =>
    fc.assert(
      fc.property(story, pieceLengths, ({ asked, form: agreed, server, answers }, lengths) => {
        const client = new Client(agreed);
        for (const one of asked) client.ask(one);
        for (const piece of inPieces(Buffer.concat(server), lengths)) client.feed(piece);
        assert.deepEqual(client.answers, answers);
        assert.equal(client.left, 0);
        client.end();
      }),
      { numRuns: 3000 },
    ));
});
