import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  LineSplitter,
  decodeMessage,
  decodeQuestion,
  encodeMessage,
  encodeQuestion,
} from '../../src/control/messages.js';
import type { Message } from '../../src/control/messages.js';
import { aStatus } from '../support/statuses.js';

describe('a message of the control socket', () => {
  for (const message of [
    { kind: 'status', status: aStatus() },
    { kind: 'error', error: 'not known here' },
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
    '{"kind":"status"}',
    '{"kind":"status","status":{}}',
    '{"kind":"error","error":7}',
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
});

describe('a question of the control socket', () => {
  for (const question of ['status', 'wait', 'unmount', 'detach'] as const) {
    it(`is one line, and comes back: ${question}`, () => {
      const text = encodeQuestion(question);
      assert.equal(text.indexOf('\n'), text.length - 1);
      assert.equal(decodeQuestion(text), question);
    });
  }

  for (const line of [
    '',
    'status',
    '[]',
    'null',
    '{}',
    '{"ask":"everything"}',
    '{"ask":["wait"]}',
  ]) {
    it(`is none: ${line}`, () => {
      const question = decodeQuestion(line);
      assert.ok(typeof question === 'object');
      assert.match(question.error, /JSON|ask for: status, wait, unmount, detach$/);
    });
  }
});

describe('lines', () => {
  const LONGEST = 16;

  it('are put together from pieces of any length', () => {
    const text = 'one\ntwo\n\nthree\n';
    for (let length = 1; length <= text.length; length++) {
      const splitter = new LineSplitter(LONGEST);
      const lines: string[] = [];
      for (let at = 0; at < text.length; at += length) {
        lines.push(...(splitter.push(text.slice(at, at + length)) ?? []));
      }
      assert.deepEqual(lines, ['one', 'two', '', 'three']);
    }
  });

  it('are not endless', () => {
    const splitter = new LineSplitter(LONGEST);
    assert.deepEqual(splitter.push('x'.repeat(LONGEST)), []);
    assert.equal(splitter.push('x'), undefined);
  });
});
