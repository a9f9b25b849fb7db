import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Interrupted } from '../../src/cli/errors.js';
import { Interruptions } from '../../src/cli/signals.js';

/** What the kernel would cause, without what it would do to the runner of the tests. */
function raise(signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP'): void {
  process.emit(signal, signal);
}

describe('interruptions', () => {
  it('come one after the other, each until it is taken', async () => {
    const interruptions = new Interruptions();
    try {
      const first = interruptions.next;
      assert.equal(interruptions.next, first);
      raise('SIGINT');
      raise('SIGTERM');
      assert.deepEqual(await first, { kind: 'signal', signal: 'SIGINT' });
      assert.deepEqual(await interruptions.next, { kind: 'signal', signal: 'SIGINT' });
      interruptions.take();
      assert.deepEqual(await interruptions.next, { kind: 'signal', signal: 'SIGTERM' });
      interruptions.take();
      const later = interruptions.next;
      raise('SIGHUP');
      assert.deepEqual(await later, { kind: 'signal', signal: 'SIGHUP' });
    } finally {
      interruptions.close();
    }
  });

  it('let a promise through that is earlier', async () => {
    const interruptions = new Interruptions();
    try {
      assert.equal(await interruptions.orEarlier(Promise.resolve(7)), 7);
      await assert.rejects(
        interruptions.orEarlier(Promise.reject(new Error('its own'))),
        /its own/,
      );
    } finally {
      interruptions.close();
    }
  });

  it('end the wait for a promise, and stay to be seen', async () => {
    const interruptions = new Interruptions();
    try {
      const waiting = interruptions.orEarlier(new Promise(() => undefined));
      raise('SIGTERM');
      await assert.rejects(
        waiting,
        (error) => error instanceof Interrupted && error.signal === 'SIGTERM',
      );
      assert.deepEqual(await interruptions.next, { kind: 'signal', signal: 'SIGTERM' });
    } finally {
      interruptions.close();
    }
  });

  it('dispose of what comes after them, and of nothing that was given', async () => {
    const interruptions = new Interruptions();
    const disposed: number[] = [];
    const dispose = (late: number): unknown => disposed.push(late);
    try {
      assert.equal(await interruptions.orEarlier(Promise.resolve(1), dispose), 1);
      const refused = interruptions.orEarlier(Promise.reject(new Error('none')), dispose);
      await assert.rejects(refused, /none/);
      let come: (late: number) => void = () => undefined;
      const coming = new Promise<number>((resolve) => (come = resolve));
      const waiting = interruptions.orEarlier(coming, dispose);
      raise('SIGTERM');
      await assert.rejects(waiting, Interrupted);
      assert.deepEqual(disposed, []);
      come(2);
      await coming;
      await new Promise(setImmediate);
      assert.deepEqual(disposed, [2]);
    } finally {
      interruptions.close();
    }
  });

  it('leave nothing untold of what nobody took', () => {
    const interruptions = new Interruptions();
    process.emit('SIGTERM');
    // Not for those who listen as well, as who runs the tests.
    process.listeners('uncaughtException').at(-1)?.(new Error('at the end'), 'uncaughtException');
    const left = interruptions.close();
    assert.match(left?.message ?? '', /at the end/);
    assert.equal(new Interruptions().close(), undefined);
  });

  it('leave no listener behind', () => {
    const count = (): number =>
      ['SIGINT', 'SIGTERM', 'SIGHUP', 'uncaughtException'].reduce(
        (sum, name) => sum + process.listenerCount(name),
        0,
      );
    const before = count();
    const interruptions = new Interruptions();
    assert.equal(count(), before + 4);
    interruptions.close();
    assert.equal(count(), before);
  });
});
