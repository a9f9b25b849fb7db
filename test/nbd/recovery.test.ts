/** A disk whose server crashes, hangs up and stalls: what was answered is there, and nothing fails that need not. */

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { DURABLE, NOT_DURABLE } from '../../src/disk/disk.js';
import { flushDisk, readDisk, trimDisk, writeDisk, zeroDisk } from '../../src/disk/promises.js';
import { Command } from '../../src/nbd/constants.js';
import { connectDisk } from '../../src/nbd/nbd-disk.js';
import type { NbdDisk, RecoverySettings } from '../../src/nbd/nbd-disk.js';
import { ALL_FLAGS, BLOCK, ForgetfulServer } from '../support/forgetful-server.js';
import type { Fate, ForgetfulOptions, ServerRequest } from '../support/forgetful-server.js';
import { seeded } from '../support/memory-disk.js';
import { DEADLINE, until } from '../support/mounts.js';

/** Milliseconds; ends a test that hangs. */
const TIMED = { timeout: 120_000 };
const KIB = 1024;
const MIB = 1024 * 1024;
const SIZE = 256 * KIB;

/** How often a server that is being reconnected to is lost again, at random. */
const MOST_IN_ONE_OUTAGE = 4;

interface Setting {
  readonly server?: Partial<ForgetfulOptions>;
  readonly connections?: number;
  readonly timeout?: number;
  readonly recovery?: Partial<RecoverySettings> | null;
}

const errnoIs =
  (code: string) =>
  (error: unknown): boolean =>
    (error as NodeJS.ErrnoException).code === code;

/** Of a block, to be told from all others. */
const content = (mark: number, length = BLOCK): Buffer => {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 4) bytes.writeUInt32LE(mark, at);
  return bytes;
};

describe('a disk whose server is lost', TIMED, () => {
  let server: ForgetfulServer;
  let disk: NbdDisk | undefined;
  let told: string[];
  let lost: string[];
  beforeEach(() => {
    told = [];
    lost = [];
  });
  afterEach(async () => {
    disk?.abort();
    disk = undefined;
    await server.stop();
  });

  async function open({
    server: about,
    connections = 1,
    timeout = 60_000,
    recovery = {},
  }: Setting = {}): Promise<NbdDisk> {
    server = await ForgetfulServer.start({ size: SIZE, ...about });
    disk = await connectDisk(server.target, {
      deadline: 2_000,
      connections,
      timeout,
      recovery:
        recovery === null
          ? undefined
          : {
              patience: 60_000,
              forever: false,
              unflushedLimit: 64 * MIB,
              report: (line) => told.push(line),
              ...recovery,
            },
    });
    disk.onLost = (reason) => lost.push(reason);
    return disk;
  }

  /** Does it to the first request of a type, once. */
  function onceTo(type: number, fate: Fate): void {
    let done = false;
    server.fateOf = (request) => {
      if (done || request.type !== type) return 'serve';
      done = true;
      return fate;
    };
  }

  const stableAt = (block: number): Buffer =>
    server.stable.subarray(block * BLOCK, (block + 1) * BLOCK);
  const at = (block: number): bigint => BigInt(block * BLOCK);
  const ofType = (type: number): ServerRequest[] =>
    server.asked.filter((request) => request.type === type);

  const COMMANDS = {
    READ: (on: NbdDisk) => readDisk(on, 0n, BLOCK),
    WRITE: (on: NbdDisk) => writeDisk(on, at(1), content(2)),
    FLUSH: flushDisk,
    TRIM: (on: NbdDisk) => trimDisk(on, at(8), BigInt(BLOCK)),
    WRITE_ZEROES: (on: NbdDisk) => zeroDisk(on, at(9), BigInt(BLOCK)),
  } as const;
  const FATES = ['crash before', 'crash after', 'cut before', 'cut after'] as const;

  for (const type of Object.keys(COMMANDS) as (keyof typeof COMMANDS)[]) {
    for (const fate of FATES) {
      for (const connections of [1, 3]) {
        it(`${type}, ${fate} it is done, over ${connections}`, async () => {
          const on = await open({ connections });
          await writeDisk(on, 0n, content(1));
          onceTo(Command[type], fate);
          const done = await COMMANDS[type](on);
          if (Buffer.isBuffer(done)) assert.deepEqual(done, content(1));
          server.fateOf = () => 'serve';
          assert.deepEqual(await readDisk(on, 0n, BLOCK), content(1));
          if (type === 'WRITE') assert.deepEqual(await readDisk(on, at(1), BLOCK), content(2));
          await flushDisk(on);
          assert.deepEqual(stableAt(0), content(1));
          assert.deepEqual(lost, []);
        });
      }
    }
  }

  it('gets the newest of what was written again and again, whole and in parts', async () => {
    const on = await open();
    await writeDisk(on, 0n, content(1, 8 * BLOCK));
    await writeDisk(on, at(2), content(2, 4 * BLOCK));
    await zeroDisk(on, at(3), BigInt(BLOCK));
    await writeDisk(on, at(5), content(3, 8 * BLOCK));
    const expected = Buffer.from(server.current);
    server.asked.length = 0;
    server.crash();
    assert.deepEqual(await readDisk(on, 0n, SIZE), expected);
    const again = server.asked.filter(({ type }) => type !== Command.READ);
    const spans = again.map(({ offset, length }) => [offset / BLOCK, (offset + length) / BLOCK]);
    assert.deepEqual(
      spans.toSorted(([a = 0], [b = 0]) => a - b),
      [
        [0, 2],
        [2, 3],
        [3, 4],
        [4, 5],
        [5, 13],
      ],
      'no two of them overlap',
    );
  });

  it('does not get again what a flush has covered, nor what was durable', async () => {
    const on = await open();
    await writeDisk(on, 0n, content(1));
    await flushDisk(on);
    await writeDisk(on, at(1), content(2), DURABLE);
    server.asked.length = 0;
    server.crash();
    await readDisk(on, 0n, BLOCK);
    assert.deepEqual(ofType(Command.WRITE), []);
  });

  it('does not get something old over what is durable', async () => {
    const on = await open();
    await writeDisk(on, 0n, content(1, 3 * BLOCK));
    await writeDisk(on, at(1), content(2), DURABLE);
    server.crash();
    assert.deepEqual(await readDisk(on, at(1), BLOCK), content(2));
    assert.deepEqual(await readDisk(on, at(2), BLOCK), content(1));
  });

  it('keeps what was answered after a flush was sent', async () => {
    const on = await open();
    await writeDisk(on, 0n, content(1));
    const flushed = flushDisk(on);
    // It is answered behind the flush, and was not when that was sent.
    await Promise.all([flushed, writeDisk(on, at(1), content(2))]);
    server.asked.length = 0;
    server.hangUp();
    await readDisk(on, 0n, BLOCK);
    assert.deepEqual(
      ofType(Command.WRITE).map(({ offset }) => offset),
      [BLOCK],
    );
  });

  it('keeps nothing where the server has no volatile cache', async () => {
    const on = await open({ server: { flags: ALL_FLAGS & ~4 } });
    await writeDisk(on, 0n, content(1));
    server.asked.length = 0;
    server.hangUp();
    assert.deepEqual(await readDisk(on, 0n, BLOCK), content(1));
    assert.deepEqual(ofType(Command.WRITE), []);
  });

  it('is lost for good without recovery', async () => {
    const on = await open({ recovery: null });
    server.crash();
    await assert.rejects(readDisk(on, 0n, BLOCK), errnoIs('EIO'));
    await until('it is told', () => lost.length > 0);
    assert.deepEqual(told, []);
  });

  it('keeps its other connections when one is lost, and gets another', async () => {
    const on = await open({ connections: 3 });
    await writeDisk(on, 0n, content(1));
    onceTo(Command.WRITE, 'cut before');
    await Promise.all(
      Array.from({ length: 60 }, (_, i) => writeDisk(on, at(i + 1), content(i + 1))),
    );
    await until('there are three again', () => on.connections === 3);
    assert.equal(server.connections, 3);
    for (let i = 0; i < 60; i++) {
      assert.deepEqual(await readDisk(on, at(i + 1), BLOCK), content(i + 1));
    }
    assert.deepEqual([told, lost], [[], []]);
  });

  it('is told of in a line when it is lost, and when it is back', async () => {
    const on = await open();
    await writeDisk(on, 0n, content(1));
    server.crash();
    await readDisk(on, 0n, BLOCK);
    assert.equal(told.length, 2);
    assert.match(told[0] ?? '', /^(closed|broke) the connection.*; reconnecting for up to 60 s$/);
    assert.match(told[1] ?? '', /^restored after [\d.]+ s, 2 requests sent again$/);
  });

  it('that crashes without end is not told of without end', async () => {
    const on = await open();
    for (let i = 0; i < 20; i++) {
      server.crash();
      await readDisk(on, 0n, BLOCK);
    }
    assert.ok(told.length <= 10, told.join('\n'));
  });

  it('fails what waits, and all syncs, when it is not back in time', async () => {
    const on = await open({ recovery: { patience: 300 } });
    await writeDisk(on, 0n, content(1, 2048));
    server.isDown = true;
    server.crash();
    const waiting = [readDisk(on, 0n, BLOCK), writeDisk(on, at(8), content(2)), flushDisk(on)];
    for (const each of waiting) await assert.rejects(each, errnoIs('EIO'));
    assert.equal(lost.length, 1);
    assert.match(
      lost[0] ?? '',
      /not back within [\d.]+ s.*; 2 KiB that were written .* not confirmed$/,
    );
    server.isDown = false;
    await assert.rejects(flushDisk(on), errnoIs('EIO'));
    await assert.rejects(readDisk(on, 0n, BLOCK), errnoIs('EIO'));
  });

  it('that is not back in time comes back later with forever, and syncs still fail', async () => {
    const on = await open({ recovery: { patience: 300, forever: true } });
    await writeDisk(on, 0n, content(1));
    server.isDown = true;
    server.crash();
    await assert.rejects(readDisk(on, 0n, BLOCK), errnoIs('EIO'));
    await assert.rejects(readDisk(on, 0n, BLOCK), errnoIs('EIO'));
    assert.deepEqual(lost, []);
    assert.match(told[0] ?? '', /; reconnecting for ever, and programs wait for up to 0\.3 s$/);
    server.isDown = false;
    await until('it is back', () => !on.isDown);
    assert.deepEqual(await readDisk(on, 0n, BLOCK), content(0), 'the write is lost');
    await writeDisk(on, at(1), content(2));
    await assert.rejects(flushDisk(on), errnoIs('EIO'));
    assert.deepEqual(stableAt(1), content(2));
    await assert.rejects(flushDisk(on), errnoIs('EIO'));
  });

  it('that is not back in time loses nothing with forever, if all was flushed', async () => {
    const on = await open({ recovery: { patience: 300, forever: true } });
    await writeDisk(on, 0n, content(1));
    await flushDisk(on);
    server.isDown = true;
    server.crash();
    await assert.rejects(readDisk(on, 0n, BLOCK), errnoIs('EIO'));
    server.isDown = false;
    await until('it is back', () => !on.isDown);
    await flushDisk(on);
    assert.deepEqual(await readDisk(on, 0n, BLOCK), content(1));
  });

  it('is given up when it is back with another disk, which is left alone', async () => {
    const on = await open();
    await writeDisk(on, 0n, content(1));
    server.stable = Buffer.alloc(2 * SIZE);
    server.asked.length = 0;
    server.crash();
    await assert.rejects(readDisk(on, 0n, BLOCK), errnoIs('EIO'));
    await assert.rejects(flushDisk(on), errnoIs('EIO'));
    assert.match(
      lost[0] ?? '',
      /^is back with another disk: it has 524288 bytes, and had 262144; 512 bytes/,
    );
    assert.deepEqual(server.asked, []);
    await sleep(300);
    assert.equal(server.connections, 0, 'it is not tried again');
  });

  it('is given up when it is back read-only', async () => {
    const on = await open();
    server.flags |= 2;
    server.crash();
    await assert.rejects(readDisk(on, 0n, BLOCK), errnoIs('EIO'));
    assert.match(lost[0] ?? '', /^is back with another disk: it is read-only, and was not$/);
  });

  it('fails the command that it dies of, and nothing else', async () => {
    // Each time it has to be back within that.
    const on = await open({ recovery: { patience: 2_000 } });
    await writeDisk(on, 0n, content(1));
    server.fateOf = ({ type, offset }) =>
      type === Command.READ && offset === BLOCK ? 'crash before' : 'serve';
    await assert.rejects(readDisk(on, at(1), BLOCK), errnoIs('EIO'));
    assert.deepEqual(await readDisk(on, 0n, BLOCK), content(1));
    await flushDisk(on);
    assert.deepEqual(lost, []);
  });

  it('that refuses to write again what it had written makes all syncs fail', async () => {
    const on = await open();
    await writeDisk(on, 0n, content(1));
    server.refuses = ({ type }) => (type === Command.WRITE ? 28 : 0);
    server.crash();
    await readDisk(on, 0n, BLOCK);
    server.refuses = () => 0;
    assert.ok(
      told.some((line) => line.startsWith('512 bytes that were written')),
      told.join('\n'),
    );
    await assert.rejects(flushDisk(on), errnoIs('EIO'));
    await assert.rejects(flushDisk(on), errnoIs('EIO'));
  });

  it('that stalls while it gets all again gets it once more', async () => {
    const on = await open({ timeout: 300, recovery: { patience: 10_000 } });
    for (let i = 0; i < 40; i++) await writeDisk(on, at(i), content(i + 1));
    let count = 0;
    server.fateOf = ({ type }) => (type === Command.WRITE && ++count === 20 ? 'ignore' : 'serve');
    server.crash();
    for (let i = 0; i < 40; i++) {
      assert.deepEqual(await readDisk(on, at(i), BLOCK), content(i + 1));
    }
    assert.equal(count, 80);
    await flushDisk(on);
    assert.equal(server.connections, 1);
  });

  it('that crashes while it gets all again gets it once more', async () => {
    const on = await open();
    for (let i = 0; i < 40; i++) await writeDisk(on, at(i), content(i + 1));
    let count = 0;
    server.fateOf = ({ type }) => {
      if (type !== Command.WRITE) return 'serve';
      count++;
      return count === 20 || count === 45 ? 'crash after' : 'serve';
    };
    server.crash();
    for (let i = 0; i < 40; i++) {
      assert.deepEqual(await readDisk(on, at(i), BLOCK), content(i + 1));
    }
    assert.equal(server.crashes, 3);
  });

  it('that shuts down is not asked again before it has, and then all is', async () => {
    const on = await open();
    await writeDisk(on, 0n, content(1));
    server.refuses = () => 108;
    const written = writeDisk(on, at(1), content(2));
    await until('it is asked to hang up', () => ofType(Command.DISC).length > 0);
    server.refuses = () => 0;
    server.crash();
    await written;
    assert.deepEqual(await readDisk(on, 0n, BLOCK), content(1));
    assert.deepEqual(await readDisk(on, at(1), BLOCK), content(2));
    assert.deepEqual(lost, []);
  });

  // A server that answers no more.

  it('is lost when it does not answer in time', async () => {
    const on = await open({ timeout: 300 });
    onceTo(Command.READ, 'ignore');
    assert.deepEqual(await readDisk(on, 0n, BLOCK), content(0));
    assert.match(told[0] ?? '', /^did not answer within 0.3 s; reconnecting/);
  });

  it('that stalls and goes on is the same one as before', async () => {
    const on = await open({ timeout: 200, connections: 2 });
    await writeDisk(on, 0n, content(1));
    server.stall();
    const reading = readDisk(on, 0n, BLOCK);
    await until('it is suspected', () => on.isDown);
    server.asked.length = 0;
    server.goOn();
    assert.deepEqual(await reading, content(1));
    await until('it is back', () => !on.isDown);
    await flushDisk(on);
    assert.deepEqual(ofType(Command.WRITE), [], 'it has forgotten nothing');
  });

  it('that stalls for good is given up in time', async () => {
    const on = await open({ timeout: 200, recovery: { patience: 300 } });
    await writeDisk(on, 0n, content(1));
    server.stall();
    const reading = readDisk(on, 0n, BLOCK);
    const writing = writeDisk(on, at(1), content(1));
    await assert.rejects(reading, errnoIs('EIO'));
    await assert.rejects(writing, errnoIs('EIO'));
    assert.equal(lost.length, 1);
  });

  it('fails in time without recovery, too', async () => {
    const on = await open({ timeout: 200, recovery: null });
    server.stall();
    await assert.rejects(readDisk(on, 0n, BLOCK), errnoIs('EIO'));
    assert.deepEqual(lost, ['did not answer within 0.2 s']);
  });

  it('that stalls while it flushes in the background tells of a flush that it refuses then', async () => {
    const on = await open({ timeout: 200, recovery: { unflushedLimit: 16 * KIB } });
    server.fateOf = ({ type }) => {
      // The next one is the flush, which is wanted when this is answered.
      if (type === Command.WRITE && ofType(Command.WRITE).length === 4) server.stall();
      return 'serve';
    };
    for (let i = 0; i < 4; i++) await writeDisk(on, at(i), content(i + 1));
    await until('it is suspected', () => on.isDown);
    server.refuses = ({ type }) => (type === Command.FLUSH ? 28 : 0);
    server.goOn();
    await until('it is back', () => !on.isDown);
    server.refuses = () => 0;
    assert.equal(ofType(Command.FLUSH).length, 1);
    await assert.rejects(flushDisk(on), errnoIs('ENOSPC'));
    await flushDisk(on);
  });

  // The end of the disk.

  it('that does not answer while it is closed is not connected to again', async () => {
    const on = await open({ timeout: 200 });
    onceTo(Command.READ, 'ignore');
    const reading = readDisk(on, 0n, BLOCK);
    await until('it is asked', () => ofType(Command.READ).length > 0);
    const closed = on.close();
    // Until after the time of the read.
    await sleep(600);
    assert.deepEqual([told, server.connections, on.isDown], [[], 1, false]);
    on.abort();
    await closed;
    await assert.rejects(reading, errnoIs('EIO'));
  });

  it('is lost once, also where the end is asked for afterwards', async () => {
    const on = await open({ recovery: { patience: 100 } });
    server.isDown = true;
    server.crash();
    await until('it is given up', () => lost.length > 0);
    assert.equal(on.isDown, false, 'it is not waited for');
    on.hurry(0);
    await sleep(100);
    assert.equal(lost.length, 1);
  });

  it('is waited for again when nobody is in a hurry any more', async () => {
    const on = await open({ timeout: 1 });
    on.hurry(0);
    on.hurryNoMore();
    await sleep(50);
    server.isDown = true;
    server.crash();
    const reading = readDisk(on, 0n, BLOCK);
    await until('it is lost', () => on.isDown);
    server.isDown = false;
    assert.deepEqual(await reading, content(0));
  });

  it('ends at once when it is closed or dropped meanwhile', async () => {
    for (const end of ['close', 'abort'] as const) {
      const on = await open();
      await writeDisk(on, 0n, content(1));
      server.isDown = true;
      server.crash();
      const reading = readDisk(on, 0n, BLOCK);
      await until('it is lost', () => on.isDown);
      await on[end]();
      await assert.rejects(reading, errnoIs('EIO'));
      await assert.rejects(flushDisk(on), errnoIs('EIO'));
      assert.deepEqual(lost, []);
      if (end === 'close') await server.stop();
    }
  });

  it('is waited for no longer than a hurry allows', async () => {
    const on = await open({ timeout: 100, recovery: { patience: 3_600_000 } });
    server.isDown = true;
    server.crash();
    const reading = readDisk(on, 0n, BLOCK);
    await until('it is lost', () => on.isDown);
    on.hurry(100);
    await assert.rejects(reading, errnoIs('EIO'));
  });

  it('is not connected to where the mount may hide what it serves', async () => {
    const on = await open({ connections: 2 });
    on.joinNoMore();
    server.crash();
    await assert.rejects(readDisk(on, 0n, BLOCK), errnoIs('EIO'));
    assert.match(lost[0] ?? '', /may be hidden by the mount$/);
  });

  // The bound on what is kept.

  it('is asked to flush long before all is kept that may be, and not for each write', async () => {
    const on = await open({ recovery: { unflushedLimit: 64 * KIB } });
    for (let i = 0; i < 100; i++) await writeDisk(on, at(i), content(i + 1));
    const flushes = ofType(Command.FLUSH).length;
    assert.ok(flushes >= 2 && flushes <= 40, `${flushes} flushes`);
  });

  it('lets writers wait while it is flushed too slowly', async () => {
    const on = await open({ recovery: { unflushedLimit: 16 * KIB } });
    let flushing = true;
    server.fateOf = ({ type }) => (type === Command.FLUSH && flushing ? 'ignore' : 'serve');
    let answered = 0;
    const all = Array.from({ length: 100 }, (_, i) =>
      writeDisk(on, at(i), content(i + 1)).then(() => answered++),
    );
    await until('one flush is under way', () => ofType(Command.FLUSH).length > 0);
    // Reads do not wait for it.
    await readDisk(on, 0n, BLOCK);
    await sleep(50);
    const more = writeDisk(on, at(200), content(7)).then(() => answered++);
    await sleep(50);
    assert.ok(answered <= 100);
    flushing = false;
    server.hangUp();
    await Promise.all([...all, more]);
    assert.deepEqual(await readDisk(on, at(200), BLOCK), content(7));
    assert.deepEqual(lost, []);
  });

  it('lets no writer wait for a flush that is answered after one that was sent later', async () => {
    const unflushedLimit = 16 * KIB;
    /** How many writes are kept, with what is counted for each beside its payload. */
    const kept = Math.ceil(unflushedLimit / (BLOCK + 128));
    const on = await open({ recovery: { unflushedLimit } });
    let written = 0;
    const write = (): Promise<void> =>
      writeDisk(on, at(written), content(1)).then(() => {
        written++;
      });
    onceTo(Command.FLUSH, 'hold');
    while (ofType(Command.FLUSH).length === 0) await write();
    await flushDisk(on);
    written = 0;
    while (written < kept) await write();
    server.asked.length = 0;
    const waiting = write();
    // It covers nothing that the other one has not covered.
    server.answerHeld();
    await until('there is room for it', () => written > kept);
    await waiting;
    assert.deepEqual(
      server.asked.map(({ type }) => type),
      [Command.FLUSH, Command.WRITE],
      'it has waited',
    );
  });

  it('tells whoever syncs next of a flush that failed in the background', async () => {
    const on = await open({ recovery: { unflushedLimit: 16 * KIB } });
    server.refuses = ({ type }) => (type === Command.FLUSH ? 28 : 0);
    let failed = 0;
    for (let i = 0; i < 60; i++) {
      await writeDisk(on, at(i), content(i + 1)).catch((error: unknown) => {
        assert.ok(errnoIs('ENOSPC')(error));
        failed++;
      });
    }
    assert.ok(failed > 0, 'nothing waits for ever');
    server.refuses = () => 0;
    await assert.rejects(flushDisk(on), errnoIs('ENOSPC'));
    await flushDisk(on);
    await writeDisk(on, 0n, content(1));
  });

  it('has lost nothing, whatever happens at whatever time', async () => {
    let crashes = 0;
    await fc.assert(
      fc.asyncProperty(fc.integer(), fc.integer({ min: 1, max: 4 }), async (seed, connections) => {
        const random = seeded(seed);
        const on = await open({
          connections,
          // It answers all. What was not sent to it is not to be found by that.
          timeout: TIMED.timeout,
          server: { random },
          recovery: { unflushedLimit: random() < 0.5 ? 24 * KIB : 64 * MIB },
        });
        try {
          await new History(server, on, random).run();
        } finally {
          await on.close();
          await server.stop();
        }
        crashes += server.crashes;
        assert.deepEqual(lost, []);
      }),
      // One that hangs is told with its seed.
      { numRuns: 40, endOnFailure: true, timeout: DEADLINE },
    );
    assert.notEqual(crashes, 0);
    server = await ForgetfulServer.start({ size: SIZE });
  });
});

/** Random commands, and random crashes of the server, compared with what a disk would have after each. */
class History {
  readonly #server: ForgetfulServer;
  readonly #disk: NbdDisk;
  readonly #random: () => number;
  /** All contents that each block has had, by their marks. */
  readonly #marks: number[][];
  /** Which blocks a command is about just now. */
  readonly #busy = new Set<number>();
  #nextMark = 1;

  constructor(server: ForgetfulServer, disk: NbdDisk, random: () => number) {
    this.#server = server;
    this.#disk = disk;
    this.#random = random;
    this.#marks = Array.from({ length: SIZE / BLOCK }, () => [0]);
  }

  #below(most: number): number {
    return Math.floor(this.#random() * most);
  }

  async run(): Promise<void> {
    const fates = ['crash before', 'crash after', 'cut before', 'cut after'] as const;
    let inOneOutage = 0;
    this.#server.fateOf = () => {
      if (!this.#disk.isDown) inOneOutage = 0;
      // A long replay would hardly ever get through, and the pauses between the attempts grow to seconds.
      if (inOneOutage === MOST_IN_ONE_OUTAGE || this.#random() >= 0.04) return 'serve';
      if (this.#disk.isDown) inOneOutage++;
      return fates[this.#below(fates.length)] ?? 'serve';
    };
    const actors = Array.from({ length: 1 + this.#below(12) }, async () => {
      for (let i = 0; i < 30; i++) await this.#act();
    });
    await Promise.all(actors);
    this.#server.fateOf = () => 'serve';
    await this.#check(0, this.#marks.length);
    await flushDisk(this.#disk);
    assert.deepEqual(this.#server.stable, this.#server.current);
  }

  /** One command, on blocks that no other one is about. */
  async #act(): Promise<void> {
    const dice = this.#random();
    if (dice < 0.12) {
      await this.#flush();
      return;
    }
    const first = this.#below(this.#marks.length);
    const count = Math.min(1 + this.#below(24), this.#marks.length - first);
    const blocks = Array.from({ length: count }, (_, i) => first + i);
    if (blocks.some((block) => this.#busy.has(block))) return;
    for (const block of blocks) this.#busy.add(block);
    try {
      await this.#change(dice, first, count);
    } finally {
      for (const block of blocks) this.#busy.delete(block);
    }
  }

  async #change(dice: number, first: number, count: number): Promise<void> {
    const offset = BigInt(first * BLOCK);
    const length = count * BLOCK;
    if (dice < 0.4) {
      await this.#check(first, count);
    } else if (dice < 0.9) {
      const mark = this.#nextMark++;
      this.#note(first, count, mark);
      const options = dice < 0.5 ? DURABLE : NOT_DURABLE;
      await writeDisk(this.#disk, offset, content(mark, length), options);
      if (options.fua) this.#isStable(first, count, mark);
    } else {
      this.#note(first, count, 0);
      await zeroDisk(this.#disk, offset, BigInt(length));
    }
  }

  #note(first: number, count: number, mark: number): void {
    for (let i = 0; i < count; i++) this.#marks[first + i]?.push(mark);
  }

  #isStable(first: number, count: number, mark: number): void {
    for (let i = 0; i < count; i++) {
      assert.equal(this.#server.stable.readUInt32LE((first + i) * BLOCK), mark, 'it is durable');
    }
  }

  /** What it reads is what was written last. */
  async #check(first: number, count: number): Promise<void> {
    const read = await readDisk(this.#disk, BigInt(first * BLOCK), count * BLOCK);
    for (let i = 0; i < count; i++) {
      assert.equal(
        read.readUInt32LE(i * BLOCK),
        this.#marks[first + i]?.at(-1),
        'what was written last',
      );
    }
  }

  /** What was answered before a flush is stable after it, or something newer is. */
  async #flush(): Promise<void> {
    const answered = this.#marks.map((marks, block) =>
      // The last one of a busy block may not be answered.
      this.#busy.has(block) ? marks.length - 2 : marks.length - 1,
    );
    await flushDisk(this.#disk);
    for (const [block, marks] of this.#marks.entries()) {
      const mark = this.#server.stable.readUInt32LE(block * BLOCK);
      const newest = marks.lastIndexOf(mark);
      assert.ok(newest >= Math.max(0, answered[block] ?? 0), `block ${block} has an old content`);
    }
  }
}
