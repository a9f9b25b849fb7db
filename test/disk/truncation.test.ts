import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Truncation } from '../../src/disk/truncation.js';

describe('Truncation', () => {
  it('has no gaps where everything was written in order, and none behind the end', () => {
    const cut = new Truncation();
    cut.covered(0n, 512n);
    cut.covered(512n, 4096n);
    assert.deepEqual(cut.gaps(), []);
  });

  it('tells what was skipped, also up to where the file was made to end', () => {
    const cut = new Truncation();
    cut.covered(4096n, 4096n);
    cut.covered(16384n, 4096n);
    cut.extendedTo(65536n);
    assert.deepEqual(cut.gaps(), [
      { offset: 0n, length: 4096n },
      { offset: 8192n, length: 8192n },
      { offset: 20480n, length: 45056n },
    ]);
    for (const gap of cut.gaps()) cut.covered(gap.offset, gap.length);
    assert.deepEqual(cut.gaps(), []);
    cut.covered(70000n, 10n);
    assert.deepEqual(cut.gaps(), [{ offset: 65536n, length: 4464n }]);
  });

  it('is like a list of bytes', () => {
    const write = fc.tuple(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 1, max: 60 }));
    const writes = fc.array(write, { maxLength: 40 });
    fc.assert(
      fc.property(writes, writes, (own, others) => {
        const cut = new Truncation();
        const model: boolean[] = [];
        for (const [offset, length] of own) {
          cut.covered(BigInt(offset), BigInt(length));
          for (let i = offset; i < offset + length; i++) model[i] = true;
        }
        for (const [offset, length] of others) {
          cut.kept(BigInt(offset), BigInt(length));
          // They do not make it longer.
          for (let i = offset; i < offset + length && i < model.length; i++) model[i] = true;
        }
        const missing = new Set<number>();
        for (const gap of cut.gaps()) {
          for (let i = 0n; i < gap.length; i++) missing.add(Number(gap.offset + i));
        }
        for (let i = 0; i < model.length; i++) assert.equal(missing.has(i), model[i] !== true);
        assert.ok([...missing].every((i) => i < model.length));
      }),
    );
  });
});
