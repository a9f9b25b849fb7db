import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LONGEST_WAIT, TOO_LATE, within } from '../src/deadline.js';

const never = (): Promise<never> => new Promise(() => undefined);

describe('a wait that ends', () => {
  it('gives what came in time, or that it is too late', async () => {
    assert.equal(await within(Promise.resolve(1), 60_000), 1);
    assert.equal(await within(never(), 1), TOO_LATE);
    await assert.rejects(within(Promise.reject(new Error('no')), 60_000), /^Error: no$/);
  });

  it('ends with its signal', async () => {
    await assert.rejects(within(never(), 60_000, AbortSignal.abort()), { name: 'AbortError' });
  });

  for (const long of [LONGEST_WAIT, LONGEST_WAIT + 1, Infinity]) {
    it(`is not over at once where it is to be ${long} ms`, async () => {
      let isOver = false;
      const stop = new AbortController();
      const wait = within(never(), long, stop.signal);
      const told = wait.then(
        () => (isOver = true),
        () => undefined,
      );
      // A timer that comes later than the one of 1 ms.
      await within(never(), 20);
      assert.equal(isOver, false);
      stop.abort();
      await told;
      await assert.rejects(wait, { name: 'AbortError' });
    });
  }
});
