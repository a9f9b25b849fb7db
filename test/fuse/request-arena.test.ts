import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RequestArena } from '../../src/fuse/request-arena.js';
import type { Slab } from '../../src/fuse/request-arena.js';
import { seeded } from '../support/memory-disk.js';

const LARGEST = 4096;
/** How many of the largest a slab has room for. */
const PER_SLAB = 2;

/** A request whose bytes are its own for as long as it is held. */
interface Held {
  readonly slab: Slab;
  readonly at: number;
  readonly length: number;
  readonly mark: number;
}

function makeArena(slabs: number): { arena: RequestArena; freed: () => number } {
  let freed = 0;
  const arena = new RequestArena(LARGEST, slabs * PER_SLAB * LARGEST, () => freed++);
  return { arena, freed: () => freed };
}

function mustHaveRoom(arena: RequestArena): Slab {
  const slab = arena.next();
  assert.ok(slab !== undefined, 'there is room');
  return slab;
}

describe('RequestArena', () => {
  it('gives the same place again to what is not held', () => {
    const { arena } = makeArena(1);
    const slab = mustHaveRoom(arena);
    assert.equal(mustHaveRoom(arena), slab);
    assert.equal(slab.used, 0);
  });

  it('has one slab at least, however little memory it may take', () => {
    const arena = new RequestArena(LARGEST, 1, () => undefined);
    assert.ok(arena.next() !== undefined);
  });

  it('is full when its memory is, and calls when some is free', () => {
    const { arena, freed } = makeArena(2);
    const held: Slab[] = [];
    for (let slab = arena.next(); slab !== undefined; slab = arena.next()) {
      assert.ok(held.length < 100, 'it is bounded');
      arena.hold(slab, LARGEST);
      held.push(slab);
    }
    assert.equal(held.length, 2 * PER_SLAB);
    assert.equal(arena.next(), undefined);
    for (const slab of held.slice(0, PER_SLAB - 1)) arena.release(slab);
    assert.equal(freed(), 0, 'a slab is free with its last request');
    for (const slab of held.slice(PER_SLAB - 1)) arena.release(slab);
    assert.ok(freed() > 0);
    assert.ok(arena.next() !== undefined);
  });

  it('aligns what comes behind a request of any length', () => {
    const { arena } = makeArena(1);
    for (const length of [1, 7, 8, 9, 81]) {
      const slab = mustHaveRoom(arena);
      arena.hold(slab, length);
      assert.equal(slab.used % 8, 0);
    }
  });

  for (const slabs of [1, 2, 5]) {
    it(`never overwrites what is held, in ${slabs} slabs`, () => {
      const random = seeded(slabs);
      let full = false;
      let freed = 0;
      const arena = new RequestArena(LARGEST, slabs * PER_SLAB * LARGEST, () => {
        full = false;
        freed++;
      });
      const held: Held[] = [];
      const seen = new Set<Slab>();
      let longest = 0;
      for (let round = 0; round < 20_000; round++) {
        // Phases of more coming than going, and the other way round.
        const coming = (round >> 9) % 2 === 0 ? 0.7 : 0.4;
        if (random() < coming) {
          const slab = arena.next();
          if (slab === undefined) {
            full = true;
            continue;
          }
          assert.ok(!full, 'no room again without a call');
          seen.add(slab);
          const at = slab.used;
          assert.ok(at + LARGEST <= slab.bytes.length, 'room for the largest');
          const length = 40 + Math.floor(random() * (LARGEST - 39));
          const mark = round & 0xff;
          // A request may come with any length before it is known that it is to be held.
          slab.bytes.fill(mark, at, at + length);
          if (random() < 0.3) continue;
          arena.hold(slab, length);
          held.push({ slab, at, length, mark });
          longest = Math.max(longest, held.length);
        } else if (held.length > 0) {
          const [one] = held.splice(Math.floor(random() * held.length), 1);
          assert.ok(one !== undefined);
          const bytes = one.slab.bytes.subarray(one.at, one.at + one.length);
          assert.ok(bytes.equals(Buffer.alloc(one.length, one.mark)), 'it is as it came');
          arena.release(one.slab);
        }
      }
      assert.equal(seen.size, slabs, 'its memory is bounded, and used');
      assert.ok(freed > 0, 'it was full at times');
      assert.ok(longest >= PER_SLAB * slabs);
    });
  }

  it('lends a slab without counting it, and takes it back', () => {
    const { arena, freed } = makeArena(2);
    const slabs = new Set<Slab>();
    const lent = [];
    for (let i = 0; i < 20; i++) {
      const slab = mustHaveRoom(arena);
      slabs.add(slab);
      arena.hold(slab, LARGEST);
      const owner = arena.lend(slab);
      arena.release(slab);
      assert.ok(owner !== undefined);
      assert.notEqual(slab.used, 0, 'what is kept is not written over');
      lent.push(owner);
    }
    assert.equal(slabs.size, 20 / PER_SLAB);
    for (const owner of lent) owner.release();
    // The bound on what is not lent holds again.
    for (let i = 0; i < 2 * PER_SLAB; i++) arena.hold(mustHaveRoom(arena), LARGEST);
    assert.ok(arena.next() === undefined);
    assert.equal(freed(), 0);
  });

  it('has room again when one is lent that is full', () => {
    const { arena, freed } = makeArena(1);
    const slab = mustHaveRoom(arena);
    for (let i = 0; i < PER_SLAB; i++) arena.hold(slab, LARGEST);
    assert.equal(arena.next(), undefined);
    arena.lend(slab);
    assert.equal(freed(), 1);
    assert.notEqual(mustHaveRoom(arena), slab);
  });

  it('has room for fewer the more are lent, and for all again when they are back', () => {
    const { arena, freed } = makeArena(6);
    /** How many more of the largest there is room for, and what is done with them. */
    const roomFor = (): number => {
      const taken: Slab[] = [];
      for (let slab = arena.next(); slab !== undefined; slab = arena.next()) {
        arena.hold(slab, LARGEST);
        taken.push(slab);
      }
      for (const slab of taken) arena.release(slab);
      return taken.length / PER_SLAB;
    };
    assert.equal(roomFor(), 6);
    const lent = [];
    const rooms: number[] = [];
    for (let i = 0; i < 6; i++) {
      for (let held = 0; held < PER_SLAB; held++) {
        const slab = mustHaveRoom(arena);
        arena.hold(slab, LARGEST);
        lent.push(arena.lend(slab));
        arena.release(slab);
      }
      rooms.push(roomFor());
    }
    assert.deepEqual(rooms, [6, 5, 4, 3, 3, 3]);
    for (const owner of lent) owner?.release();
    assert.equal(roomFor(), 6);
    assert.ok(freed() > 0);
  });

  it('always has room again, whatever is held, lent and given back in whatever order', () => {
    const random = seeded(7);
    let waits = false;
    const arena = new RequestArena(LARGEST, 6 * PER_SLAB * LARGEST, () => (waits = false));
    const held: Slab[] = [];
    const lent: NonNullable<ReturnType<typeof arena.lend>>[] = [];
    for (let round = 0; round < 50_000; round++) {
      const coming = (round >> 8) % 2 === 0 ? 0.8 : 0.2;
      if (random() < coming && !waits) {
        const slab = arena.next();
        waits = slab === undefined;
        if (slab === undefined) continue;
        arena.hold(slab, 40 + Math.floor(random() * (LARGEST - 39)));
        held.push(slab);
      } else if (held.length > 0 && random() < 0.7) {
        const [slab] = held.splice(Math.floor(random() * held.length), 1);
        assert.ok(slab !== undefined);
        const owner = random() < 0.5 ? arena.lend(slab) : undefined;
        if (owner !== undefined) lent.push(owner);
        arena.release(slab);
      } else {
        lent.splice(Math.floor(random() * lent.length), 1)[0]?.release();
      }
      // Nothing is held any more, so that nothing would come that could be waited for.
      if (held.length === 0) assert.ok(!waits);
    }
  });

  it('lends no more than it may, however little is kept of each', () => {
    const { arena } = makeArena(1);
    let refused = 0;
    for (let i = 0; i < 400; i++) {
      const slab = mustHaveRoom(arena);
      arena.hold(slab, LARGEST);
      if (i % PER_SLAB === 0 && arena.lend(slab) === undefined) refused++;
      arena.release(slab);
    }
    assert.ok(refused > 0);
  });
});
