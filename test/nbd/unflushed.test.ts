import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Owner } from '../../src/buffer-pool.js';
import type { Reply } from '../../src/disk/disk.js';
import { Command, CommandFlag } from '../../src/nbd/constants.js';
import type { CommandType } from '../../src/nbd/constants.js';
import { PendingCommand } from '../../src/nbd/in-flight.js';
import { replayOf } from '../../src/nbd/replay.js';
import { Unflushed } from '../../src/nbd/unflushed.js';

const SIZE = 64;

interface Log {
  readonly unflushed: Unflushed;
  /** `wanted`, `covered`, `failed 5`. */
  readonly events: string[];
}

function make(limit = 1024 * 1024, now?: () => number): Log {
  const events: string[] = [];
  const told = {
    flushWanted: () => events.push('wanted'),
    covered: () => events.push('covered'),
    flushFailed: (code: number) => events.push(`failed ${code}`),
  };
  const unflushed = new Unflushed(limit, told, now);
  return { unflushed, events };
}

interface Answered {
  readonly type: CommandType;
  readonly offset?: number;
  readonly length?: number;
  readonly fua?: boolean;
  /** What each byte of it is. */
  readonly value?: number;
  readonly reply?: Reply;
  readonly mark?: number;
}

/** Memory that is used again as soon as a command is answered. */
const scratch = Buffer.alloc(2 * SIZE);

/** A write of a payload that may be kept as it is. */
function answerWith(unflushed: Unflushed, payload: Buffer): void {
  const command = new PendingCommand(0);
  command.type = Command.WRITE;
  command.length = payload.length;
  command.bytes = payload;
  command.reply = { done: () => undefined, keep: () => ({ release: () => undefined }) };
  unflushed.succeeded(command);
}

function answer(unflushed: Unflushed, answered: Answered): void {
  const { type, offset = 0, length = 8, fua = false, value = 1, mark = 0 } = answered;
  const command = new PendingCommand(0);
  const start = 5;
  command.type = type;
  command.flags = fua ? CommandFlag.FUA : 0;
  command.offset = BigInt(offset);
  command.length = length;
  command.reply = answered.reply ?? { done: () => undefined };
  command.mark = mark;
  if (type === Command.WRITE) {
    command.bytes = scratch;
    command.start = start;
    scratch.fill(value, start, start + length);
  }
  unflushed.succeeded(command);
  if (answered.reply === undefined) scratch.fill(0xee);
}

/** Does what would be sent again to a disk, in any order. */
function replayed(unflushed: Unflushed, disk: Buffer, reverse: boolean): number {
  const commands = replayOf(unflushed.newestFirst());
  for (const { type, offset, length, bytes, start } of reverse ? commands.toReversed() : commands) {
    const at = Number(offset);
    if (type === Command.WRITE) bytes?.copy(disk, at, start, start + length);
    else disk.fill(0, at, at + length);
  }
  return commands.length;
}

describe('what no flush has covered', () => {
  it('is kept until a flush that was sent after it has succeeded', () => {
    const { unflushed, events } = make();
    answer(unflushed, { type: Command.WRITE });
    const mark = unflushed.mark();
    answer(unflushed, { type: Command.WRITE_ZEROES, offset: 8 });
    answer(unflushed, { type: Command.FLUSH, mark });
    assert.deepEqual(events, ['covered']);
    assert.deepEqual(
      unflushed.newestFirst().map(({ type, offset }) => [type, offset]),
      [[Command.WRITE_ZEROES, 8n]],
    );
    // One that was sent before it has been answered late.
    answer(unflushed, { type: Command.FLUSH, mark });
    assert.ok(!unflushed.empty);
    answer(unflushed, { type: Command.FLUSH, mark: unflushed.mark() });
    assert.ok(unflushed.empty);
    assert.deepEqual([unflushed.bytes, unflushed.payloadBytes], [0, 0]);
  });

  it('is not what is durable, unless something older is kept', () => {
    const { unflushed } = make();
    answer(unflushed, { type: Command.WRITE, fua: true });
    assert.ok(unflushed.empty);
    answer(unflushed, { type: Command.WRITE });
    answer(unflushed, { type: Command.WRITE, fua: true });
    assert.equal(unflushed.newestFirst().length, 2);
    assert.equal(replayOf(unflushed.newestFirst()).length, 0);
  });

  it('is not what is only sent again', () => {
    const { unflushed } = make();
    const command = new PendingCommand(0);
    command.type = Command.WRITE_ZEROES;
    command.isReplay = true;
    unflushed.succeeded(command);
    assert.ok(unflushed.empty);
  });

  it('stays where it is, if whoever wrote it can spare the memory', () => {
    const { unflushed } = make();
    let released = 0;
    const owner: Owner = { release: () => released++ };
    const reply: Reply = { done: () => undefined, keep: () => owner };
    answer(unflushed, { type: Command.WRITE, reply });
    assert.equal(unflushed.newestFirst()[0]?.bytes, scratch);
    answer(unflushed, { type: Command.FLUSH, mark: unflushed.mark() });
    assert.equal(released, 1);
    answer(unflushed, { type: Command.WRITE, reply });
    assert.equal(unflushed.forget(), 8);
    assert.equal(released, 2);
  });

  it('wants a flush at each eighth of its limit, and is full at its end', () => {
    const { unflushed, events } = make(4096);
    let count = 0;
    for (; !unflushed.full; count++) {
      assert.ok(count < 100);
      answer(unflushed, { type: Command.WRITE, length: 64 });
      if (events.at(-1) === 'wanted') {
        unflushed.mark();
        events.push('sent');
      }
    }
    assert.equal(count, Math.ceil(4096 / (64 + 128)));
    assert.equal(events.filter((event) => event === 'wanted').length, 7);
    answer(unflushed, { type: Command.FLUSH, mark: unflushed.mark() });
    assert.ok(!unflushed.full);
  });

  it('keeps more the longer flushes take, up to its limit', () => {
    const MIB = 1024 * 1024;
    let time = 0;
    let took = 0;
    const { unflushed, events } = make(64 * MIB, () => time);
    const payload = Buffer.alloc(MIB / 16);
    /** How many MiB are kept when a flush is wanted, and when no more should come; a flush is back then. */
    const bounds = (): number[] => {
      events.length = 0;
      let wanted = 0;
      while (!unflushed.full) {
        answerWith(unflushed, payload);
        if (wanted === 0 && events.length > 0) wanted = unflushed.bytes;
      }
      const full = unflushed.bytes;
      const sent = unflushed.mark();
      time += took;
      answer(unflushed, { type: Command.FLUSH, mark: sent });
      assert.ok(unflushed.empty);
      return [wanted, full].map((bytes) => Math.floor(bytes / MIB));
    };
    took = 1;
    assert.deepEqual(bounds(), [1, 2]);
    assert.deepEqual(bounds(), [1, 2]);
    took = 10;
    const growing = Array.from({ length: 30 }, bounds);
    assert.deepEqual(growing.at(-1), [4, 8]);
    took = 1000;
    assert.deepEqual(Array.from({ length: 3 }, bounds).at(-1), [8, 64]);
    took = 1;
    assert.deepEqual(Array.from({ length: 40 }, bounds).at(-1), [1, 2]);
  });

  it('stays when a flush fails', () => {
    const { unflushed, events } = make();
    answer(unflushed, { type: Command.WRITE });
    unflushed.mark();
    unflushed.flushFailed(5);
    assert.deepEqual(events, ['failed 5']);
    assert.ok(!unflushed.empty);
  });

  it('gives the same content again, in whatever order it is sent', () => {
    const step = fc.record({
      type: fc.constantFrom(Command.WRITE, Command.WRITE_ZEROES, Command.TRIM, Command.FLUSH),
      offset: fc.nat(SIZE - 1),
      length: fc.integer({ min: 1, max: SIZE }),
      value: fc.integer({ min: 1, max: 255 }),
      fua: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.boolean(), (steps, reverse) => {
        const { unflushed } = make();
        const current = Buffer.alloc(SIZE);
        const stable = Buffer.alloc(SIZE);
        for (const one of steps) {
          const { type, offset, value, fua } = one;
          const length = Math.min(one.length, SIZE - offset);
          if (type === Command.FLUSH) {
            current.copy(stable);
            answer(unflushed, { type, mark: unflushed.mark() });
            continue;
          }
          current.fill(type === Command.WRITE ? value : 0, offset, offset + length);
          if (fua) current.copy(stable, offset, offset, offset + length);
          answer(unflushed, { type, offset, length, value, fua });
        }
        // A server that has forgotten all that it may, and one that has forgotten nothing.
        for (const disk of [stable, Buffer.from(current)]) {
          replayed(unflushed, disk, reverse);
          assert.deepEqual(disk, current);
        }
      }),
    );
  });
});
