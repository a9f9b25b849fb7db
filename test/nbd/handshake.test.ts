/**
 * The client's handshake against scripted servers. Each script is replayed in one piece, byte by byte,
 * and split in two at every point (a long one at some of them), and has to come to the same end with
 * the same bytes sent.
 */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandshakeError, ProtocolError } from '../../src/nbd/errors.js';
import type { HandshakeFailure } from '../../src/nbd/errors.js';
import type { NegotiatedExport } from '../../src/nbd/export.js';
import { checkExportName, clientHandshake } from '../../src/nbd/handshake.js';
import type { HandshakeOptions } from '../../src/nbd/handshake.js';
import { EndOfStreamError, converse } from '../../src/transport/dialogue.js';
import { FakeTransport, hex } from '../support/fake-transport.js';
import type { Ending } from '../support/fake-transport.js';

/** Milliseconds; ends a test that hangs. */
const DEADLINE = 60_000;

/** No dialogue has a reason to ask for more at once: two strings of 4096 bytes, and some numbers. */
const MOST_AT_ONCE = 8192 + 64;

/** What the server sends. */
const GREETING = hex(`
  'NBDMAGIC' 'IHAVEOPT'
  0003                                  # fixed newstyle, no zeroes
`);
const GREETING_WITH_ZEROES = hex(`'NBDMAGIC' 'IHAVEOPT' 0001`);
const GREETING_NOT_FIXED = hex(`'NBDMAGIC' 'IHAVEOPT' 0000`);
const GREETING_NOT_FIXED_NO_ZEROES = hex(`'NBDMAGIC' 'IHAVEOPT' 0002`);
/** Handshake flags that nobody knows: to be ignored, and not to be echoed. */
const GREETING_OF_THE_FUTURE = hex(`'NBDMAGIC' 'IHAVEOPT' ffff`);

/** An option reply: magic, option, type, length, data. */
function reply(option: string, type: string, data = ''): Buffer {
  const content = hex(data);
  const length = content.length.toString(16).padStart(8, '0');
  return Buffer.concat([hex(`0003e889045565a9 ${option} ${type} ${length}`), content]);
}

const STRUCTURED_OK = reply('00000008', '00000001');
const EXTENDED_OK = reply('0000000b', '00000001');
const CONTEXT_OK = Buffer.concat([
  reply('0000000a', '00000004', `00000007 'base:allocation'`), // with the id 7
  reply('0000000a', '00000001'),
]);
const BEFORE_GO = Buffer.concat([GREETING, STRUCTURED_OK, CONTEXT_OK]);
const INFO_EXPORT = reply(
  '00000007',
  '00000003',
  `0000                                  # NBD_INFO_EXPORT
   0000000040000000                      # 1 GiB
   006d`, // flags: has flags, flush, FUA, trim, write zeroes
);
const INFO_BLOCK_SIZE = reply(
  '00000007',
  '00000003',
  `0003                                  # NBD_INFO_BLOCK_SIZE
   00000200 00001000 00100000`, // 512, 4096, 1 MiB
);
const GO_OK = reply('00000007', '00000001');
const SIZE_AND_FLAGS = hex('0000000040000000 006d');
const PADDING = Buffer.alloc(124);
const OLDSTYLE = Buffer.concat([
  hex(`'NBDMAGIC' 0000420281861253
    0000000040000000
    0000 0003`), // 16 bits of handshake flags, and of transmission flags: has flags, read-only
  PADDING,
]);

/** What the client sends. */
const HELLO = hex('00000003');
const ASK_STRUCTURED = hex(`'IHAVEOPT' 00000008 00000000`);
const ASK_EXTENDED = hex(`'IHAVEOPT' 0000000b 00000000`);
const ASK_CONTEXT = hex(`
  'IHAVEOPT' 0000000a 0000001f
  00000004 'disk'                       # export
  00000001                              # one query
  0000000f 'base:allocation'
`);
const ASK_GO = hex(`
  'IHAVEOPT' 00000007 0000000c
  00000004 'disk'                       # export
  0001 0003                             # one request: NBD_INFO_BLOCK_SIZE
`);
const ASK_EXPORT_NAME = hex(`'IHAVEOPT' 00000001 00000004 'disk'`);
const ABORT = hex(`'IHAVEOPT' 00000002 00000000`);
const ASKED_ALL = Buffer.concat([HELLO, ASK_STRUCTURED, ASK_CONTEXT, ASK_GO]);
const ASKED_EXTENDED = Buffer.concat([HELLO, ASK_EXTENDED, ASK_CONTEXT, ASK_GO]);
const BEFORE_EXTENDED_GO = Buffer.concat([GREETING, EXTENDED_OK, CONTEXT_OK]);

const DEFAULTS = { preferred: 4096, maximum: 32 * 1024 * 1024 };
const AGREED: NegotiatedExport = {
  size: 1n << 30n,
  flags: 0x6d,
  limits: { minimum: 512, preferred: 4096, maximum: 1 << 20 },
  structuredReplies: true,
  extendedHeaders: false,
  allocationId: 7,
};

const EXTENDED: NegotiatedExport = { ...AGREED, extendedHeaders: true };

interface Case {
  readonly name: string;
  /** Extended headers are asked for only where a case says so, which keeps the others short. */
  readonly options?: Partial<HandshakeOptions>;
  readonly server: readonly Buffer[];
  readonly client: readonly Buffer[];
}

interface Success extends Case {
  readonly agreed: NegotiatedExport;
}

interface Failure extends Case {
  readonly error: typeof HandshakeError | typeof ProtocolError;
  readonly message: RegExp;
  /** Of a HandshakeError; refused, if it is not said. */
  readonly failure?: HandshakeFailure;
}

const SUCCESSES: readonly Success[] = [
  {
    name: 'a disk of no bytes',
    server: [
      BEFORE_GO,
      reply('00000007', '00000003', '0000 0000000000000000 006d'),
      INFO_BLOCK_SIZE,
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: { ...AGREED, size: 0n },
  },
  {
    name: 'all there is',
    server: [BEFORE_GO, INFO_EXPORT, INFO_BLOCK_SIZE, GO_OK],
    client: [ASKED_ALL],
    agreed: AGREED,
  },
  {
    name: 'information in another order, and some that was not asked for',
    server: [
      BEFORE_GO,
      reply('00000007', '00000003', `0001 'disk'`), // NBD_INFO_NAME
      INFO_BLOCK_SIZE,
      reply('00000007', '00000003', `0002 'a disk'`), // NBD_INFO_DESCRIPTION
      reply('00000007', '00000003', 'fffe'),
      INFO_EXPORT,
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: AGREED,
  },
  {
    name: 'handshake flags of the future',
    server: [
      GREETING_OF_THE_FUTURE,
      STRUCTURED_OK,
      CONTEXT_OK,
      INFO_EXPORT,
      INFO_BLOCK_SIZE,
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: AGREED,
  },
  {
    name: 'a server that tells no block sizes takes any',
    server: [BEFORE_GO, INFO_EXPORT, GO_OK],
    client: [ASKED_ALL],
    agreed: { ...AGREED, limits: { ...DEFAULTS, minimum: 1 } },
  },
  {
    name: 'zeroes come with EXPORT_NAME only',
    server: [GREETING_WITH_ZEROES, STRUCTURED_OK, CONTEXT_OK, INFO_EXPORT, INFO_BLOCK_SIZE, GO_OK],
    client: [hex('00000001'), ASK_STRUCTURED, ASK_CONTEXT, ASK_GO],
    agreed: AGREED,
  },
  {
    name: 'no structured replies',
    server: [
      GREETING,
      reply('00000008', '80000001', `'what?'`), // ERR_UNSUP
      INFO_EXPORT,
      INFO_BLOCK_SIZE,
      GO_OK,
    ],
    client: [HELLO, ASK_STRUCTURED, ASK_GO],
    agreed: { ...AGREED, structuredReplies: false, allocationId: undefined },
  },
  {
    name: 'structured replies not wanted',
    options: { structuredReplies: false },
    server: [GREETING, INFO_EXPORT, INFO_BLOCK_SIZE, GO_OK],
    client: [HELLO, ASK_GO],
    agreed: { ...AGREED, structuredReplies: false, allocationId: undefined },
  },
  {
    name: 'base:allocation not wanted',
    options: { allocation: false },
    server: [GREETING, STRUCTURED_OK, INFO_EXPORT, INFO_BLOCK_SIZE, GO_OK],
    client: [HELLO, ASK_STRUCTURED, ASK_GO],
    agreed: { ...AGREED, allocationId: undefined },
  },
  {
    name: 'base:allocation not known',
    server: [
      GREETING,
      STRUCTURED_OK,
      reply('0000000a', '00000001'),
      INFO_EXPORT,
      INFO_BLOCK_SIZE,
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: { ...AGREED, allocationId: undefined },
  },
  {
    name: 'meta contexts not known',
    server: [
      GREETING,
      STRUCTURED_OK,
      reply('0000000a', '80000001'), // ERR_UNSUP
      INFO_EXPORT,
      INFO_BLOCK_SIZE,
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: { ...AGREED, allocationId: undefined },
  },
  {
    name: 'a context before an error does not count',
    server: [
      GREETING,
      STRUCTURED_OK,
      reply('0000000a', '00000004', `00000007 'base:allocation'`),
      reply('0000000a', '80000009'), // ERR_TOO_BIG
      INFO_EXPORT,
      INFO_BLOCK_SIZE,
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: { ...AGREED, allocationId: undefined },
  },
  {
    name: 'contexts that nobody asked for',
    server: [
      GREETING,
      STRUCTURED_OK,
      reply('0000000a', '00000004', `00000001 'x-other:thing'`),
      reply('0000000a', '00000004', `00000007 'base:allocation'`),
      reply('0000000a', '00000004', `00000002 'base:allocation-depth'`),
      reply('0000000a', '00000001'),
      INFO_EXPORT,
      INFO_BLOCK_SIZE,
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: AGREED,
  },
  {
    name: 'a context with the id 0',
    server: [
      GREETING,
      STRUCTURED_OK,
      reply('0000000a', '00000004', `00000000 'base:allocation'`),
      reply('0000000a', '00000001'),
      INFO_EXPORT,
      INFO_BLOCK_SIZE,
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: { ...AGREED, allocationId: 0 },
  },
  {
    name: 'GO not known: EXPORT_NAME without zeroes',
    server: [BEFORE_GO, reply('00000007', '80000001'), SIZE_AND_FLAGS],
    client: [ASKED_ALL, ASK_EXPORT_NAME],
    agreed: { ...AGREED, limits: { ...DEFAULTS, minimum: 512 } },
  },
  {
    name: 'GO not known: EXPORT_NAME with zeroes',
    server: [
      GREETING_WITH_ZEROES,
      reply('00000008', '80000001'),
      reply('00000007', '80000001'),
      SIZE_AND_FLAGS,
      PADDING,
    ],
    client: [hex('00000001'), ASK_STRUCTURED, ASK_GO, ASK_EXPORT_NAME],
    agreed: {
      ...AGREED,
      limits: { ...DEFAULTS, minimum: 512 },
      structuredReplies: false,
      allocationId: undefined,
    },
  },
  {
    name: 'newstyle, but not fixed: EXPORT_NAME with zeroes',
    server: [GREETING_NOT_FIXED, SIZE_AND_FLAGS, PADDING],
    client: [hex('00000000'), ASK_EXPORT_NAME],
    agreed: {
      ...AGREED,
      limits: { ...DEFAULTS, minimum: 512 },
      structuredReplies: false,
      allocationId: undefined,
    },
  },
  {
    name: 'newstyle, but not fixed: EXPORT_NAME without zeroes',
    server: [GREETING_NOT_FIXED_NO_ZEROES, SIZE_AND_FLAGS],
    client: [hex('00000002'), ASK_EXPORT_NAME],
    agreed: {
      ...AGREED,
      limits: { ...DEFAULTS, minimum: 512 },
      structuredReplies: false,
      allocationId: undefined,
    },
  },
  {
    name: 'oldstyle',
    options: { exportName: '' },
    server: [OLDSTYLE],
    client: [],
    agreed: {
      size: 1n << 30n,
      flags: 3,
      limits: { ...DEFAULTS, minimum: 512 },
      structuredReplies: false,
      extendedHeaders: false,
      allocationId: undefined,
    },
  },
  {
    name: 'an empty export, by GO',
    server: [BEFORE_GO, reply('00000007', '00000003', '0000 0000000000000000 006d'), GO_OK],
    client: [ASKED_ALL],
    agreed: { ...AGREED, size: 0n, limits: { ...DEFAULTS, minimum: 1 } },
  },
  {
    name: 'an empty export, oldstyle',
    options: { exportName: '' },
    server: [hex(`'NBDMAGIC' 0000420281861253 0000000000000000 0000 0003`), PADDING],
    client: [],
    agreed: {
      size: 0n,
      flags: 3,
      limits: { ...DEFAULTS, minimum: 512 },
      structuredReplies: false,
      extendedHeaders: false,
      allocationId: undefined,
    },
  },
  {
    name: 'flags without NBD_FLAG_HAS_FLAGS are no flags',
    server: [BEFORE_GO, reply('00000007', '00000003', '0000 0000000040000000 006c'), GO_OK],
    client: [ASKED_ALL],
    agreed: { ...AGREED, flags: 0, limits: { ...DEFAULTS, minimum: 1 } },
  },
  {
    name: 'flags that are not known are passed on',
    server: [BEFORE_GO, reply('00000007', '00000003', '0000 0000000040000000 f003'), GO_OK],
    client: [ASKED_ALL],
    agreed: { ...AGREED, flags: 0xf003, limits: { ...DEFAULTS, minimum: 1 } },
  },
  {
    name: 'the largest size, and the smallest',
    server: [
      BEFORE_GO,
      reply('00000007', '00000003', '0000 0000000000000001 0001'),
      reply('00000007', '00000003', '0000 7fffffffffffffff 0001'), // the last one counts
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: { ...AGREED, size: 2n ** 63n - 1n, flags: 1, limits: { ...DEFAULTS, minimum: 1 } },
  },
  {
    name: 'a name in UTF-8',
    options: { exportName: 'dïsk', structuredReplies: false },
    server: [GREETING, INFO_EXPORT, INFO_BLOCK_SIZE, GO_OK],
    client: [HELLO, hex(`'IHAVEOPT' 00000007 0000000d 00000005 64c3af736b 0001 0003`)],
    agreed: { ...AGREED, structuredReplies: false, allocationId: undefined },
  },
  {
    name: 'extended headers, which make a question for structured replies needless',
    options: { extendedHeaders: true },
    server: [BEFORE_EXTENDED_GO, INFO_EXPORT, INFO_BLOCK_SIZE, GO_OK],
    client: [ASKED_EXTENDED],
    agreed: EXTENDED,
  },
  {
    name: 'extended headers without base:allocation',
    options: { extendedHeaders: true, allocation: false },
    server: [GREETING, EXTENDED_OK, INFO_EXPORT, INFO_BLOCK_SIZE, GO_OK],
    client: [HELLO, ASK_EXTENDED, ASK_GO],
    agreed: { ...EXTENDED, allocationId: undefined },
  },
  ...['80000001', '80000002', '80000003', '80000004', '80000006', '80000009', 'ffffffff'].map(
    (error): Success => ({
      name: `no extended headers by the error ${error}, but structured replies`,
      options: { extendedHeaders: true },
      server: [
        GREETING,
        reply('0000000b', error, `'what?'`),
        STRUCTURED_OK,
        CONTEXT_OK,
        INFO_EXPORT,
        INFO_BLOCK_SIZE,
        GO_OK,
      ],
      client: [HELLO, ASK_EXTENDED, ASK_STRUCTURED, ASK_CONTEXT, ASK_GO],
      agreed: AGREED,
    }),
  ),
  {
    name: 'neither extended headers nor structured replies nor GO',
    options: { extendedHeaders: true },
    server: [
      GREETING,
      reply('0000000b', '80000001'),
      reply('00000008', '80000001'),
      reply('00000007', '80000001'),
      SIZE_AND_FLAGS,
    ],
    client: [HELLO, ASK_EXTENDED, ASK_STRUCTURED, ASK_GO, ASK_EXPORT_NAME],
    agreed: {
      ...AGREED,
      limits: { ...DEFAULTS, minimum: 512 },
      structuredReplies: false,
      allocationId: undefined,
    },
  },
  {
    name: 'extended headers are not asked for without structured replies',
    options: { extendedHeaders: true, structuredReplies: false },
    server: [GREETING, INFO_EXPORT, INFO_BLOCK_SIZE, GO_OK],
    client: [HELLO, ASK_GO],
    agreed: { ...AGREED, structuredReplies: false, allocationId: undefined },
  },
  {
    name: 'a context that takes extended headers, where there are none',
    server: [
      GREETING,
      STRUCTURED_OK,
      reply('0000000a', '8000000a'), // ERR_EXT_HEADER_REQD
      INFO_EXPORT,
      INFO_BLOCK_SIZE,
      GO_OK,
    ],
    client: [ASKED_ALL],
    agreed: { ...AGREED, allocationId: undefined },
  },
];

/** GO answered with an error, and the farewell that has to follow. */
function refusedGo(
  name: string,
  type: string,
  text: string,
  message: RegExp,
  failure: HandshakeFailure = 'refused',
): Failure {
  return {
    name,
    server: [BEFORE_GO, reply('00000007', type, text)],
    client: [ASKED_ALL, ABORT],
    error: HandshakeError,
    message,
    failure,
  };
}

const REJECTIONS: readonly Failure[] = [
  refusedGo('unknown', '80000006', '', /^the server has no export named "disk"$/),
  refusedGo(
    'unknown, with a text',
    '80000006',
    `'try "other"'`,
    /^the server has no export named "disk" \(the server says: try "other"\)$/,
  ),
  refusedGo(
    'unknown, with a text that is after the terminal',
    '80000006',
    `1b '[2J' 00 'gone' 0d0a 'tsnbdfuse: all is well' 9b c29b e280ae`,
    /^the server has no export named "disk" \(the server says: \[2J gone tsnbdfuse: all is well\P{C}*\)$/u,
  ),
  refusedGo(
    'unknown, with a long text',
    '80000006',
    `'${'much '.repeat(800)}'`,
    /^the server has no export named "disk" \(the server says: much [much ]{100,300}\.\.\.\)$/,
  ),
  refusedGo('policy', '80000002', '', /^the server refuses the export "disk"/),
  refusedGo(
    'invalid',
    '80000003',
    '',
    /^the server refused the export "disk" with error 0x80000003/,
  ),
  refusedGo('platform', '80000004', '', /^the export "disk" cannot be served .*platform/),
  refusedGo(
    'TLS',
    '80000005',
    '',
    /^the server (requires|wants) .*(TLS|encrypted).*begins with nbds/,
    'tls',
  ),
  refusedGo('shutdown', '80000007', '', /^the server is shutting down$/, 'unreachable'),
  refusedGo('block sizes', '80000008', '', /^the server wants block sizes agreed on/),
  refusedGo(
    'too big',
    '80000009',
    '',
    /^the server refused the export "disk" with error 0x80000009/,
  ),
  refusedGo(
    'extended headers',
    '8000000a',
    `'a new client, please'`,
    /^the server serves the export "disk" with extended headers only, .* \(the server says: a new client, please\)$/,
  ),
  {
    name: 'extended headers, which it refused',
    options: { extendedHeaders: true },
    server: [
      GREETING,
      reply('0000000b', '80000002'), // ERR_POLICY
      STRUCTURED_OK,
      CONTEXT_OK,
      reply('00000007', '8000000a'),
    ],
    client: [HELLO, ASK_EXTENDED, ASK_STRUCTURED, ASK_CONTEXT, ASK_GO, ABORT],
    error: HandshakeError,
    message: /^the server serves the export "disk" with extended headers only/,
  },
  {
    name: 'TLS, for extended headers',
    options: { extendedHeaders: true },
    server: [GREETING, reply('0000000b', '80000005')],
    client: [HELLO, ASK_EXTENDED, ABORT],
    error: HandshakeError,
    message: /TLS|encrypted/,
    failure: 'tls',
  },
  {
    name: 'shutdown, for extended headers',
    options: { extendedHeaders: true },
    server: [GREETING, reply('0000000b', '80000007')],
    client: [HELLO, ASK_EXTENDED, ABORT],
    error: HandshakeError,
    message: /^the server is shutting down$/,
    failure: 'unreachable',
  },
  refusedGo('an error of the future', 'ffffffff', '', /with error 0xffffffff/),
  {
    name: 'after some information',
    server: [BEFORE_GO, INFO_EXPORT, INFO_BLOCK_SIZE, reply('00000007', '80000002')],
    client: [ASKED_ALL, ABORT],
    error: HandshakeError,
    message: /^the server refuses the export "disk"/,
  },
  {
    name: 'a name that is after the terminal is not shown as it is',
    options: { exportName: 'a\x1b[2J\nb', structuredReplies: false },
    server: [GREETING, reply('00000007', '80000006')],
    client: [
      HELLO,
      hex(`'IHAVEOPT' 00000007 0000000f 00000007 'a' 1b '[2J' 0a 'b' 0001 0003`),
      ABORT,
    ],
    error: HandshakeError,
    message: /^the server has no export named "a \[2J b"$/,
  },
  {
    name: 'TLS, from the first option on',
    server: [GREETING, reply('00000008', '80000005', `'TLS first'`)],
    client: [HELLO, ASK_STRUCTURED, ABORT],
    error: HandshakeError,
    message: /(TLS|encrypted).*\(the server says: TLS first\)$/,
    failure: 'tls',
  },
  {
    name: 'shutdown, from the first option on',
    server: [GREETING, reply('00000008', '80000007')],
    client: [HELLO, ASK_STRUCTURED, ABORT],
    error: HandshakeError,
    message: /^the server is shutting down$/,
    failure: 'unreachable',
  },
  {
    name: 'TLS, for the meta context',
    server: [GREETING, STRUCTURED_OK, reply('0000000a', '80000005')],
    client: [HELLO, ASK_STRUCTURED, ASK_CONTEXT, ABORT],
    error: HandshakeError,
    message: /TLS|encrypted/,
    failure: 'tls',
  },
  {
    name: 'shutdown, for the meta context',
    server: [GREETING, STRUCTURED_OK, reply('0000000a', '80000007')],
    client: [HELLO, ASK_STRUCTURED, ASK_CONTEXT, ABORT],
    error: HandshakeError,
    message: /^the server is shutting down$/,
    failure: 'unreachable',
  },
  {
    name: 'a name, oldstyle',
    server: [OLDSTYLE.subarray(0, 16)],
    client: [],
    error: HandshakeError,
    message: /^the server is of the oldest kind.*"disk"$/,
  },
];

/** GO answered with an NBD_INFO_BLOCK_SIZE of three sizes. */
function blockSizes(sizes: string): Buffer {
  return reply('00000007', '00000003', `0003 ${sizes}`);
}

function badBlockSizes(name: string, sizes: string, message: RegExp): Failure {
  return violation(name, [BEFORE_GO, INFO_EXPORT, blockSizes(sizes)], [ASKED_ALL], message);
}

function violation(
  name: string,
  server: readonly Buffer[],
  client: readonly Buffer[],
  message: RegExp,
): Failure {
  return { name, server, client, error: ProtocolError, message };
}

const VIOLATIONS: readonly Failure[] = [
  violation(
    'yes(1)',
    [hex(`'y' 0a 'y' 0a 'y' 0a 'y' 0a`)],
    [],
    /^does not speak NBD; it sent "y\\ny\\ny\\ny\\n"$/,
  ),
  violation('HTTP', [hex(`'HTTP/1.1 400 Bad Request' 0d0a`)], [], /it sent "HTTP\/1\.1"$/),
  violation('SMTP', [hex(`'220 hi' 0d0a`)], [], /it sent "220 hi\\r\\n"$/),
  violation(
    'binary',
    [hex('00 1b 7f 80 ff 09 22 41')],
    [],
    /it sent "\\x00\\x1b\\x7f\\x80\\xff\\t"A"$/,
  ),
  violation(
    'NBD of an unknown kind',
    [hex(`'NBDMAGIC' 0102030405060708`)],
    [],
    /^sent a greeting of no known kind \(0x102030405060708\)$/,
  ),
  violation(
    'a reply with the wrong magic',
    [GREETING, hex('0003e889045565a8 00000008 00000001 00000000')],
    [HELLO, ASK_STRUCTURED],
    /^sent an option reply with the wrong magic 0x3e889045565a8$/,
  ),
  violation(
    'a reply to another option',
    [GREETING, reply('00000007', '00000001')],
    [HELLO, ASK_STRUCTURED],
    /^replied to option 7 when 8 was sent$/,
  ),
  violation(
    'a reply of absurd length',
    [GREETING, hex('0003e889045565a9 00000008 00000001 ffffffff')],
    [HELLO, ASK_STRUCTURED],
    /^sent an option reply of 4294967295 bytes/,
  ),
  violation(
    'an error with a text of absurd length',
    [GREETING, hex('0003e889045565a9 00000008 80000001 00010000')],
    [HELLO, ASK_STRUCTURED],
    /^sent an option reply of 65536 bytes/,
  ),
  violation(
    'an ACK with data',
    [GREETING, reply('00000008', '00000001', '00')],
    [HELLO, ASK_STRUCTURED],
    /^sent a reply of type 1 and 1 bytes to option 8/,
  ),
  violation(
    'INFO to STRUCTURED_REPLY',
    [GREETING, reply('00000008', '00000003', '0003')],
    [HELLO, ASK_STRUCTURED],
    /^sent a reply of type 3 and 2 bytes to option 8/,
  ),
  violation(
    'a type of no known kind',
    [GREETING, reply('00000008', '7fffffff')],
    [HELLO, ASK_STRUCTURED],
    /^sent a reply of type 2147483647 /,
  ),
  violation(
    'a context without an id',
    [GREETING, STRUCTURED_OK, reply('0000000a', '00000004', '000000')],
    [HELLO, ASK_STRUCTURED, ASK_CONTEXT],
    /^sent a reply of type 4 and 3 bytes to option 10/,
  ),
  violation(
    'INFO to SET_META_CONTEXT',
    [GREETING, STRUCTURED_OK, reply('0000000a', '00000003', '0000')],
    [HELLO, ASK_STRUCTURED, ASK_CONTEXT],
    /^sent a reply of type 3 and 2 bytes to option 10/,
  ),
  violation(
    'endless contexts',
    [
      GREETING,
      STRUCTURED_OK,
      ...Array.from({ length: 64 }, () => reply('0000000a', '00000004', `00000001 'x:y'`)),
    ],
    [HELLO, ASK_STRUCTURED, ASK_CONTEXT],
    /^sent endless meta contexts$/,
  ),
  violation(
    'GO without a size',
    [BEFORE_GO, INFO_BLOCK_SIZE, GO_OK],
    [ASKED_ALL],
    /^agreed to an export without telling its size$/,
  ),
  violation(
    'GO with an ACK that has data',
    [BEFORE_GO, INFO_EXPORT, reply('00000007', '00000001', '00')],
    [ASKED_ALL],
    /^sent a reply of type 1 and 1 bytes to option 7/,
  ),
  violation(
    'an INFO of one byte',
    [BEFORE_GO, reply('00000007', '00000003', '00')],
    [ASKED_ALL],
    /^sent a reply of type 3 and 1 bytes to option 7/,
  ),
  violation(
    'a short INFO_EXPORT',
    [BEFORE_GO, reply('00000007', '00000003', '0000 0000000040000000 00')],
    [ASKED_ALL],
    /^sent a reply of type 3 and 11 bytes to option 7/,
  ),
  violation(
    'a long INFO_EXPORT',
    [BEFORE_GO, reply('00000007', '00000003', '0000 0000000040000000 000100')],
    [ASKED_ALL],
    /^sent a reply of type 3 and 13 bytes to option 7/,
  ),
  violation(
    'a short INFO_BLOCK_SIZE',
    [BEFORE_GO, reply('00000007', '00000003', '0003 00000200 00001000')],
    [ASKED_ALL],
    /^sent a reply of type 3 and 10 bytes to option 7/,
  ),
  violation(
    'SERVER to GO',
    [BEFORE_GO, reply('00000007', '00000002', '00000000')],
    [ASKED_ALL],
    /^sent a reply of type 2 and 4 bytes to option 7/,
  ),
  violation(
    'endless INFO',
    [BEFORE_GO, ...Array.from({ length: 64 }, () => INFO_EXPORT)],
    [ASKED_ALL],
    /^sent endless information about an export$/,
  ),
  violation(
    'a size over 2^63 - 1',
    [BEFORE_GO, reply('00000007', '00000003', '0000 8000000000000000 0001'), GO_OK],
    [ASKED_ALL],
    /^sent an impossible size: 9223372036854775808$/,
  ),
  violation(
    'a size over 2^63 - 1, by EXPORT_NAME',
    [GREETING_NOT_FIXED_NO_ZEROES, hex('ffffffffffffffff 0001')],
    [hex('00000002'), ASK_EXPORT_NAME],
    /^sent an impossible size/,
  ),
  {
    ...violation(
      'extended headers and no GO',
      [BEFORE_EXTENDED_GO, reply('00000007', '80000001')],
      [ASKED_EXTENDED],
      /^agreed to extended headers and does not know NBD_OPT_GO$/,
    ),
    options: { extendedHeaders: true },
  },
  {
    ...violation(
      'an ACK with data to EXTENDED_HEADERS',
      [GREETING, reply('0000000b', '00000001', '00')],
      [HELLO, ASK_EXTENDED],
      /^sent a reply of type 1 and 1 bytes to option 11/,
    ),
    options: { extendedHeaders: true },
  },
  badBlockSizes('a minimum of 0', '00000000 00001000 00100000', /^sent a minimum block size of 0$/),
  badBlockSizes(
    'a minimum that is no power of two',
    '00000201 00001000 00100000',
    /^sent a minimum block size of 513$/,
  ),
  badBlockSizes(
    'a minimum over 64 KiB',
    '00020000 00020000 00100000',
    /^sent a minimum block size of 131072$/,
  ),
  badBlockSizes(
    'a preferred size of 0',
    '00000200 00000000 00100000',
    /^sent a preferred block size of 0$/,
  ),
  badBlockSizes(
    'a preferred size that is no power of two',
    '00000200 00001001 00100000',
    /^sent a preferred block size of 4097$/,
  ),
  badBlockSizes(
    'a preferred size below the minimum',
    '00000200 00000100 00100000',
    /^sent a preferred block size of 256$/,
  ),
  badBlockSizes('a maximum of 0', '00000200 00001000 00000000', /^sent a maximum block size of 0$/),
  badBlockSizes(
    'a maximum below the minimum',
    '00001000 00001000 00000800',
    /^sent a maximum block size of 2048$/,
  ),
  badBlockSizes(
    'a maximum that is no multiple of the minimum',
    '00000200 00001000 00100001',
    /^sent a maximum block size of 1048577$/,
  ),
];

type Outcome = { readonly agreed: NegotiatedExport } | { readonly error: Error };

interface Played {
  readonly outcome: Outcome;
  readonly transport: FakeTransport;
}

async function play(
  pieces: readonly Buffer[],
  options: Partial<HandshakeOptions> = {},
  ending: Ending = 'silence',
): Promise<Played> {
  const transport = new FakeTransport({ pieces, ending });
  const dialogue = clientHandshake({
    exportName: 'disk',
    extendedHeaders: false,
    ...options,
  });
  const outcome = await converse(transport, dialogue, DEADLINE).then(
    (agreed): Outcome => ({ agreed }),
    (error: unknown): Outcome => {
      assert.ok(error instanceof Error);
      return { error };
    },
  );
  assert.ok(transport.mostAsked <= MOST_AT_ONCE, `asked for ${transport.mostAsked} bytes at once`);
  return { outcome, transport };
}

/** One piece, single bytes, and two pieces in all ways that there are. */
function* splits(whole: Buffer): Generator<Buffer[]> {
  yield [whole];
  yield Array.from(whole, (byte) => Buffer.of(byte));
  for (let at = 1; at < whole.length; at++) yield [whole.subarray(0, at), whole.subarray(at)];
}

/** How many points of a long script are tried. */
const SPLITS = 400;

async function checkAll(
  { server, options, client }: Case,
  check: (outcome: Outcome) => void,
): Promise<void> {
  const whole = Buffer.concat(server);
  const stride = Math.ceil(whole.length / SPLITS);
  let index = 0;
  for (const pieces of splits(whole)) {
    if (index++ > 2 && index % stride !== 0) continue;
    const { outcome, transport } = await play(pieces, options);
    check(outcome);
    assert.deepEqual(transport.sent, Buffer.concat(client));
    assert.equal(transport.left.length, 0);
    assert.ok(!transport.closed);
  }
}

function checkFailure(outcome: Outcome, { error, message, failure }: Failure): void {
  assert.ok('error' in outcome, 'it succeeded');
  assert.ok(outcome.error instanceof error, outcome.error.stack);
  assert.match(outcome.error.message, message);
  assert.doesNotMatch(outcome.error.message, /\p{Cc}/u);
  if (outcome.error instanceof HandshakeError) {
    assert.equal(outcome.error.failure, failure ?? 'refused');
  }
}

describe('a handshake that succeeds', () => {
  for (const each of SUCCESSES) {
    it(each.name, () =>
      checkAll(each, (outcome) => assert.deepEqual(outcome, { agreed: each.agreed })),
    );
  }

  it('leaves what comes after it for the next owner of the transport', async () => {
    for (const { server, options } of SUCCESSES) {
      const next = Buffer.from('transmission');
      const { outcome, transport } = await play([Buffer.concat([...server, next])], options);
      assert.ok('agreed' in outcome);
      assert.deepEqual(transport.left, next);
    }
  });

  it('asks for all of it unless told', async () => {
    const pieces = [BEFORE_EXTENDED_GO, INFO_EXPORT, INFO_BLOCK_SIZE, GO_OK];
    const transport = new FakeTransport({ pieces });
    const dialogue = clientHandshake({ exportName: 'disk' });
    assert.deepEqual(await converse(transport, dialogue, DEADLINE), EXTENDED);
    assert.deepEqual(transport.sent, ASKED_EXTENDED);
  });

  it('takes every block size that may be', async () => {
    const u32 = (value: number): string => value.toString(16).padStart(8, '0');
    for (let minimum = 1; minimum <= 65536; minimum *= 2) {
      for (let preferred = minimum; preferred <= 2 ** 31; preferred *= 2) {
        const least = Math.min(preferred, 32 * 1024 * 1024);
        for (const [told, maximum] of [
          [least, least],
          [least + minimum, Math.min(least + minimum, 32 * 1024 * 1024)],
          [32 * 1024 * 1024, 32 * 1024 * 1024],
          // Nothing of ours is longer.
          [0xffffffff, 32 * 1024 * 1024],
          [0x80000000, 32 * 1024 * 1024],
        ] as const) {
          const sizes = blockSizes(`${u32(minimum)} ${u32(preferred)} ${u32(told)}`);
          const { outcome } = await play([GREETING, INFO_EXPORT, sizes, GO_OK], {
            structuredReplies: false,
          });
          assert.ok('agreed' in outcome);
          assert.deepEqual(outcome.agreed.limits, { minimum, preferred, maximum });
        }
      }
    }
  });
});

describe('a maximum block size below the preferred one', () => {
  const sizes = blockSizes('00000200 00001000 00000200');
  const withSize = (size: string): Buffer => reply('00000007', '00000003', `0000 ${size} 006d`);

  it('is for an export that is not longer', async () => {
    const script = [GREETING, withSize('0000000000000200'), sizes, GO_OK];
    const { outcome } = await play(script, { structuredReplies: false });
    assert.ok('agreed' in outcome);
    assert.deepEqual(outcome.agreed.limits, { minimum: 512, preferred: 4096, maximum: 512 });
  });

  it('is refused for a longer one, of which each request would be made of many', async () => {
    for (const script of [
      [GREETING, withSize('0000000000000201'), sizes, GO_OK],
      [GREETING, sizes, withSize('7fffffffffffffff'), GO_OK],
    ]) {
      const { outcome } = await play(script, { structuredReplies: false });
      assert.ok('error' in outcome && outcome.error instanceof ProtocolError);
      assert.match(
        outcome.error.message,
        /^sent a maximum block size of 512 and a preferred one of 4096$/,
      );
    }
  });
});

describe('a server that refuses is told goodbye', () => {
  for (const each of REJECTIONS) {
    it(each.name, () => checkAll(each, (outcome) => checkFailure(outcome, each)));
  }
});

describe('a server that breaks the protocol gets no further word', () => {
  for (const each of VIOLATIONS) {
    it(each.name, async () => {
      // What comes after the fault is not received any more.
      const whole = Buffer.concat(each.server);
      const { transport } = await play([whole], each.options);
      const used = whole.subarray(0, whole.length - transport.left.length);
      await checkAll({ ...each, server: [used] }, (outcome) => checkFailure(outcome, each));
    });
  }
});

describe('a server that goes away', () => {
  it('is told from one that ends in good order', async () => {
    for (const { server, options } of [...SUCCESSES, ...REJECTIONS]) {
      const whole = Buffer.concat(server);
      const stride = Math.ceil(whole.length / SPLITS);
      for (let length = 0; length < whole.length; length += stride) {
        const { outcome } = await play([whole.subarray(0, length)], options, 'end');
        assert.ok('error' in outcome);
        assert.ok(outcome.error instanceof EndOfStreamError, outcome.error.stack);
        assert.equal(outcome.error.atStart, length === 0);
      }
    }
  });

  it('is heard to the end when it cannot be spoken to any more', async () => {
    const pieces = [Buffer.concat([GREETING, reply('0000000b', '80000007')])];
    const transport = new FakeTransport({ pieces, ending: 'end', sendErrno: 32 });
    await assert.rejects(
      converse(transport, clientHandshake({ exportName: 'disk' }), DEADLINE),
      /^HandshakeError: the server is shutting down$/,
    );
  });
});

describe('the name of an export', () => {
  it('has at most 4096 bytes', () => {
    checkExportName('');
    checkExportName('x'.repeat(4096));
    assert.throws(() => checkExportName('x'.repeat(4097)), HandshakeError);
    // Bytes, not characters.
    assert.throws(() => checkExportName('ï'.repeat(2049)), /more than 4096 bytes/);
  });
});
