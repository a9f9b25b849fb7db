import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  LONGEST_LINE,
  LineSplitter,
  decodeMessage,
  encodeMessage,
  isRequest,
} from '../../../src/cli/control/messages.js';
import type { Message } from '../../../src/cli/control/messages.js';

describe('a message of the control socket', () => {
  for (const message of [
    { kind: 'greeting', greeting: { mountpoint: '/a\n"b"/é', isDirectory: true } },
    { kind: 'result', result: -16 },
    { kind: 'progress' },
    { kind: 'exit', status: 7 },
  ] as const satisfies Message[]) {
    it(`is one line, and comes back: ${message.kind}`, () => {
      const text = encodeMessage(message).toString();
      assert.equal(text.indexOf('\n'), text.length - 1);
      assert.deepEqual(decodeMessage(text), message);
    });
  }

  for (const line of [
    '',
    'exit',
    'null',
    '7',
    '[]',
    '{}',
    '{"kind":"future"}',
    '{"kind":"exit"}',
    '{"kind":"exit","status":"0"}',
    '{"kind":"exit","status":0.5}',
    '{"kind":"result","result":null}',
    '{"kind":"greeting"}',
    '{"kind":"greeting","greeting":null}',
    '{"kind":"greeting","greeting":{"mountpoint":7,"isDirectory":true}}',
  ]) {
    it(`is none: ${line}`, () => assert.equal(decodeMessage(line), undefined));
  }

  it('asks for two things only', () => {
    assert.deepEqual(['unmount', 'detach', 'unmount ', '', 'exit'].filter(isRequest), [
      'unmount',
      'detach',
    ]);
  });
});

describe('lines', () => {
  it('are put together from pieces of any length', () => {
    const text = 'one\ntwo\n\nthree\n';
    for (let length = 1; length <= text.length; length++) {
      const splitter = new LineSplitter();
      const lines: string[] = [];
      for (let at = 0; at < text.length; at += length) {
        lines.push(...(splitter.push(text.slice(at, at + length)) ?? []));
      }
      assert.deepEqual(lines, ['one', 'two', '', 'three']);
    }
  });

  it('are not endless', () => {
    const splitter = new LineSplitter();
    assert.deepEqual(splitter.push('x'.repeat(LONGEST_LINE)), []);
    assert.equal(splitter.push('x'), undefined);
  });
});
