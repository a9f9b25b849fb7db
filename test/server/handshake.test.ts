import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { DiskInfo } from '../../src/disk/disk.js';
import { ProtocolError } from '../../src/nbd/errors.js';
import { transmissionFlags } from '../../src/server/export.js';
import { handshake } from '../../src/server/handshake.js';
import { MemoryDisk } from '../support/memory-disk.js';
import { hold } from '../support/server-dialogue.js';
import {
  clientFlags,
  goData,
  hex,
  metaData,
  option,
  optionReplies,
} from '../support/server-messages.js';

const GREETING = hex('4e42444d41474943 49484156454f5054 0003');
const FIXED = clientFlags(3);
const ERR = {
  UNSUP: 0x80000001,
  INVALID: 0x80000003,
  UNKNOWN: 0x80000006,
  TOO_BIG: 0x80000009,
};

function talk(input: Buffer[], name = '', info: Partial<Omit<DiskInfo, 'size'>> = {}) {
  const disk = new MemoryDisk({ size: 1 << 20, ...info });
  const held = hold(handshake({ name, info: disk.info }), Buffer.concat(input));
  assert.ok(held.sent.subarray(0, 18).equals(GREETING), 'greeting');
  assert.ok(held.mostNeeded <= 64 * 1024, `asked for ${held.mostNeeded} bytes at once`);
  return { ...held, answers: held.sent.subarray(18) };
}

/** The types of the replies to options. */
function types(input: Buffer[], name = ''): number[] {
  return optionReplies(talk([FIXED, ...input], name).answers).map((reply) => reply.type);
}

describe('handshake: first bytes', () => {
  it('greets and waits', () => {
    const { sent, ended } = talk([]);
    assert.ok(sent.equals(GREETING));
    assert.equal(ended, false);
  });

  it('hangs up on client flags that were not offered', () => {
    assert.ok(talk([clientFlags(7)]).error instanceof ProtocolError);
    assert.ok(talk([clientFlags(0x80000001)]).error instanceof ProtocolError);
  });

  it('hangs up on an option with the wrong magic', () => {
    const bad = Buffer.from(option(3));
    bad[0] = 0;
    assert.ok(talk([FIXED, bad]).error instanceof ProtocolError);
  });

  it('allows only EXPORT_NAME without fixed newstyle', () => {
    assert.ok(talk([clientFlags(0), option(3)]).error instanceof ProtocolError);
    assert.deepEqual(talk([clientFlags(0), option(1)]).result, {
      structuredReplies: false,
      allocation: false,
    });
  });
});

describe('handshake: EXPORT_NAME', () => {
  it('answers with size, flags and 124 zeroes', () => {
    const { answers, result } = talk([clientFlags(1), option(1)]);
    // flags: has flags, flush, FUA, trim, zeroes, multi-conn
    const expected = Buffer.concat([hex('0000000000100000 016d'), Buffer.alloc(124)]);
    assert.ok(answers.equals(expected), answers.toString('hex'));
    assert.deepEqual(result, { structuredReplies: false, allocation: false });
  });

  it('leaves the zeroes out where that is agreed', () => {
    assert.equal(talk([FIXED, option(1)]).answers.length, 10);
  });

  it('sets DF where structured replies are agreed', () => {
    const { answers } = talk([FIXED, option(8), option(1)]);
    assert.equal(answers.subarray(20).readUInt16BE(8), 0x1ed);
  });

  it('hangs up on an unknown name, and on an endless one', () => {
    assert.ok(talk([FIXED, option(1, Buffer.from('x'))]).error instanceof ProtocolError);
    const endless = option(1, Buffer.alloc(0), 0xffffffff);
    assert.ok(talk([FIXED, endless]).error instanceof ProtocolError);
  });

  it('knows the name that is served, and the empty one', () => {
    for (const asked of ['disk', '']) {
      assert.ok(talk([FIXED, option(1, Buffer.from(asked))], 'disk').result !== undefined);
    }
  });
});

describe('handshake: INFO and GO', () => {
  it('tells size, flags and block sizes, and goes on to the transmission phase', () => {
    const { answers, result, ended, left } = talk([FIXED, option(7, goData('')), hex('25609513')]);
    const [first, second, third, ...more] = optionReplies(answers);
    assert.deepEqual([first?.type, first?.data.toString('hex')], [3, `00000000000000100000016d`]);
    assert.deepEqual(
      [second?.type, second?.data.toString('hex')],
      [3, '0003000000010000100002000000'],
    );
    assert.deepEqual([third?.type, third?.data.length, more.length], [1, 0, 0]);
    assert.equal(ended, true);
    assert.deepEqual(result, { structuredReplies: false, allocation: false });
    assert.equal(left.length, 4, 'what follows belongs to the transmission phase');
  });

  it('tells the canonical name to who asks for it', () => {
    const replies = optionReplies(
      talk([FIXED, option(6, goData('', [1, 2, 3, 77]))], 'disk').answers,
    );
    assert.deepEqual(
      replies.map(({ type, data }) => [type, type === 3 ? data.readUInt16BE() : -1]),
      [
        [3, 0],
        [3, 3],
        [3, 1],
        [1, -1],
      ],
    );
    assert.equal(replies[2]?.data.subarray(2).toString(), 'disk');
  });

  it('INFO does not end the handshake', () => {
    const { ended } = talk([FIXED, option(6, goData(''))]);
    assert.equal(ended, false);
  });

  it('refuses an unknown name and goes on', () => {
    const { answers, result } = talk([FIXED, option(7, goData('x')), option(7, goData(''))]);
    assert.equal(optionReplies(answers)[0]?.type, ERR.UNKNOWN);
    assert.ok(result !== undefined);
    assert.deepEqual(
      types([option(7, goData('')), option(7, goData('other'))], 'disk').slice(-1),
      [1],
    );
  });

  it('refuses what is malformed', () => {
    assert.deepEqual(types([option(7)]), [ERR.INVALID]);
    assert.deepEqual(types([option(7, hex('00000000'))]), [ERR.INVALID]);
    assert.deepEqual(types([option(7, hex('000000ff 6162 0000'))]), [ERR.INVALID]);
    assert.deepEqual(types([option(7, hex('00000000 0002 0003'))]), [ERR.INVALID]);
    assert.deepEqual(types([option(7, hex('00000000 0000 00'))]), [ERR.INVALID]);
    assert.deepEqual(types([option(7, hex('ffffffff 0000'))]), [ERR.INVALID]);
    assert.deepEqual(types([option(7, goData('n'.repeat(4097)))]), [ERR.INVALID]);
  });
});

describe('handshake: other options', () => {
  it('LIST tells the one export', () => {
    const replies = optionReplies(talk([FIXED, option(3)], 'disk').answers);
    assert.deepEqual(
      replies.map(({ option: of, type, data }) => [of, type, data.toString('hex')]),
      [
        [3, 2, '00000004' + Buffer.from('disk').toString('hex')],
        [3, 1, ''],
      ],
    );
    assert.deepEqual(types([option(3, hex('00'))]), [ERR.INVALID]);
  });

  it('ABORT is acknowledged, and is the end', () => {
    const { answers, ended, result, error } = talk([FIXED, option(2, hex('aa'))]);
    assert.deepEqual(
      optionReplies(answers).map(({ type }) => type),
      [1],
    );
    assert.deepEqual([ended, result, error], [true, undefined, undefined]);
  });

  it('refuses what it does not know, TLS and extended headers among it', () => {
    assert.deepEqual(types([option(5), option(11), option(4), option(0xffff, hex('0102'))]), [
      ERR.UNSUP,
      ERR.UNSUP,
      ERR.UNSUP,
      ERR.UNSUP,
    ]);
  });

  it('STRUCTURED_REPLY takes no data, and may come twice', () => {
    assert.deepEqual(types([option(8, hex('00')), option(8), option(8)]), [ERR.INVALID, 1, 1]);
  });

  it('skips an option that is too long, up to a limit', () => {
    const long = option(7, Buffer.alloc(100_000));
    assert.deepEqual(types([long, option(8)]), [ERR.TOO_BIG, 1]);
    assert.ok(talk([FIXED, option(7, Buffer.alloc(0), 2 ** 31)]).error instanceof ProtocolError);
  });

  it('skips only so much of all of them together', () => {
    const long = option(7, Buffer.alloc(400_000));
    assert.deepEqual(types([long, long, option(8)]), [ERR.TOO_BIG, ERR.TOO_BIG, 1]);
    assert.ok(talk([FIXED, long, long, long]).error instanceof ProtocolError);
  });

  it('hangs up after too many options', () => {
    const many = Array.from({ length: 200 }, () => option(8));
    assert.ok(talk([FIXED, ...many]).error instanceof ProtocolError);
  });
});

describe('handshake: meta contexts', () => {
  const allocation = 'base:allocation';
  /** What LIST (9) or SET (10) answers: names of contexts, or the error. */
  const contexts = (type: number, queries: string[], name = ''): (string | number)[] => {
    const input = [FIXED, option(8), option(type, metaData(name, queries))];
    return optionReplies(talk(input).answers)
      .slice(1)
      .map((reply) => (reply.type === 4 ? reply.data.subarray(4).toString() : reply.type));
  };

  it('lists all for no query and for the wildcard', () => {
    assert.deepEqual(contexts(9, []), [allocation, 1]);
    assert.deepEqual(contexts(9, ['base:']), [allocation, 1]);
    assert.deepEqual(contexts(9, [allocation]), [allocation, 1]);
    assert.deepEqual(contexts(9, ['base:', allocation]), [allocation, 1]);
    assert.deepEqual(contexts(9, ['base:none', 'qemu:', 'x']), [1]);
  });

  it('sets what is named, and nothing for no query or the wildcard', () => {
    assert.deepEqual(contexts(10, []), [1]);
    assert.deepEqual(contexts(10, ['base:']), [1]);
    assert.deepEqual(contexts(10, ['qemu:allocation-depth', allocation, allocation]), [
      allocation,
      1,
    ]);
  });

  it('is for exports that there are', () => {
    assert.deepEqual(contexts(9, [], 'x'), [ERR.UNKNOWN]);
    assert.deepEqual(contexts(10, [allocation], 'x'), [ERR.UNKNOWN]);
  });

  it('needs structured replies to set', () => {
    assert.deepEqual(types([option(10, metaData('', [allocation]))]), [ERR.INVALID]);
  });

  it('refuses what is malformed', () => {
    const bad = (data: Buffer): number[] => types([option(8), option(10, data)]).slice(1);
    assert.deepEqual(bad(hex('')), [ERR.INVALID]);
    assert.deepEqual(bad(hex('00000000 00000001')), [ERR.INVALID]);
    assert.deepEqual(bad(hex('00000000 ffffffff')), [ERR.INVALID]);
    assert.deepEqual(bad(hex('00000000 00000001 000000ff 61')), [ERR.INVALID]);
    assert.deepEqual(bad(hex('00000000 00000000 00')), [ERR.INVALID]);
    assert.deepEqual(bad(metaData('', ['q'.repeat(5000)])), [ERR.INVALID]);
  });

  const agreed = (...input: Buffer[]): boolean | undefined =>
    talk([FIXED, option(8), ...input], 'disk').result?.allocation;
  const set = (name: string, ...queries: string[]): Buffer => option(10, metaData(name, queries));

  it('holds for the export that it was set for', () => {
    assert.equal(agreed(set('', allocation), option(7, goData(''))), true);
    assert.equal(agreed(set('disk', allocation), option(7, goData('disk'))), true);
    assert.equal(agreed(set('disk', allocation), option(7, goData(''))), false);
    assert.equal(agreed(option(7, goData(''))), false);
  });

  it('is replaced by the next one, even one that fails', () => {
    assert.equal(agreed(set('', allocation), set(''), option(7, goData(''))), false);
    assert.equal(agreed(set('', allocation), set('x', allocation), option(7, goData(''))), false);
    assert.equal(agreed(set('', allocation), option(10), option(7, goData(''))), false);
  });
});

describe('transmissionFlags', () => {
  const { info } = new MemoryDisk({ size: 512 });
  it('offers nothing that writes on a read-only disk', () => {
    assert.equal(transmissionFlags({ ...info, readOnly: true }, false), 0x10f);
  });

  it('offers FUA to be made of flush, and neither without flush', () => {
    assert.equal(transmissionFlags({ ...info, canFua: false }, false) & 12, 12);
    assert.equal(transmissionFlags({ ...info, canFua: false, canFlush: false }, false) & 12, 0);
  });

  it('tells of a rotational disk', () => {
    assert.equal(transmissionFlags({ ...info, rotational: true }, false) & 16, 16);
  });
});
