import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errno } from '../../../src/errno.js';
import { FileWrites } from '../../../src/server/plugins/file-writes.js';
import { eventually } from '../../support/server-held-disk.js';

interface Call {
  readonly offsets: bigint[];
  readonly results: Int32Array;
  /** Settles it, with what became of each piece. */
  readonly end: (...results: number[]) => void;
}

/** A gatherer whose system calls are made when the test says so. */
function gatherer() {
  const calls: Call[] = [];
  const done: string[] = [];
  const rests: string[] = [];
  const writes = new FileWrites(
    3,
    ({ offset, reply }, put) => {
      rests.push(`${offset} from ${put}`);
      reply.done(0);
    },
    (_fd, buffers, ranges, offsets, results) => {
      assert.equal(buffers.length, results.length);
      assert.deepEqual(
        [...ranges],
        [...results].flatMap(() => [32, 10]),
      );
      return new Promise((resolve) => {
        const end = (...values: number[]): void => {
          results.set(values);
          resolve(0);
        };
        calls.push({ offsets: [...offsets], results, end });
      });
    },
  );
  const ask = (offset: number): void =>
    writes.request({
      offset: BigInt(offset),
      bytes: Buffer.alloc(42),
      start: 32,
      length: 10,
      reply: { done: (code) => done.push(`${offset}: ${code}`) },
    });
  return { calls, done, rests, ask };
}

const turn = (): Promise<void> => new Promise(setImmediate);
const count = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, i) => from + i);

describe('file: gathered writes', () => {
  it('go together when they come together, and are answered when they are done', async () => {
    const { calls, done, ask } = gatherer();
    for (const offset of [1, 2, 3]) ask(offset);
    await turn();
    assert.deepEqual(
      calls.map(({ offsets }) => offsets),
      [[1n, 2n, 3n]],
    );
    ask(4);
    ask(5);
    await turn();
    assert.equal(calls.length, 1, 'those that come meanwhile wait');
    assert.deepEqual(done, []);
    calls[0]?.end(10, 10, 10);
    await eventually(() => calls.length === 2, 'the next call');
    assert.deepEqual(done, ['1: 0', '2: 0', '3: 0']);
    assert.deepEqual(calls[1]?.offsets, [4n, 5n]);
    calls[1].end(10, 10);
    await eventually(() => done.length === 5, 'the last answer');
    await turn();
    assert.equal(calls.length, 2);
  });

  it('take a second thread where many wait, and no third one', async () => {
    const { calls, done, ask } = gatherer();
    ask(0);
    await turn();
    for (const offset of count(1, 16)) ask(offset);
    await turn();
    assert.equal(calls.length, 1);
    ask(16);
    await turn();
    assert.equal(calls.length, 2);
    for (const offset of count(17, 200)) ask(offset);
    await turn();
    assert.equal(calls.length, 2);
    // Also those that are added on the way.
    for (const { offsets, end } of calls) {
      end(...offsets.map(() => 10));
      await turn();
    }
    await eventually(() => done.length === 200, 'all answers');
    assert.ok(calls.every(({ offsets }) => offsets.length <= 64));
    assert.deepEqual(
      calls.flatMap(({ offsets }) => offsets.map(Number)).sort((a, b) => a - b),
      count(0, 200),
    );
  });

  it('are answered each by its own result', async () => {
    const { calls, done, rests, ask } = gatherer();
    for (const offset of count(1, 6)) ask(offset);
    await turn();
    calls[0]?.end(10, -errno.ENOSPC, 4, 0, -errno.EIO);
    await eventually(() => done.length === 5, 'all answers');
    assert.deepEqual(done, ['1: 0', `2: ${errno.ENOSPC}`, '3: 0', '4: 0', `5: ${errno.EIO}`]);
    assert.deepEqual(rests, ['3 from 4', '4 from 0'], 'what was not written goes by itself');
  });

  it('go each by itself where there is no memory to gather them', async () => {
    const rests: bigint[] = [];
    const writes = new FileWrites(
      3,
      ({ offset }) => rests.push(offset),
      () => {
        throw Object.assign(new Error('no memory for a call'), { code: 'ENOMEM' });
      },
    );
    for (const offset of [1n, 2n]) {
      const reply = { done: () => assert.fail('answered') };
      writes.request({ offset, bytes: Buffer.alloc(1), start: 0, length: 1, reply });
    }
    await eventually(() => rests.length === 2, 'both of them');
    assert.deepEqual(rests, [1n, 2n]);
  });
});
