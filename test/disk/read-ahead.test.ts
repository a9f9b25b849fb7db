import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HEADROOM, NOT_DURABLE } from '../../src/disk/disk.js';
import type { ReadReply } from '../../src/disk/disk.js';
import { readDisk, trimDisk, writeDisk, zeroDisk } from '../../src/disk/promises.js';
import { Chunk, ChunkMemory } from '../../src/disk/read-ahead-chunk.js';
import { ReadAheadDisk } from '../../src/disk/read-ahead.js';
import { errno } from '../../src/errno.js';
import { MemoryDisk, seeded } from '../support/memory-disk.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const STEP = 128 * KIB;

/** A clock by which each call is ten milliseconds later: all disks are far then; or that stands still. */
function clock(far: boolean): () => number {
  let time = 0;
  return () => (far ? (time += 10) : 0);
}

function filled(size: number): MemoryDisk {
  const disk = new MemoryDisk({ size });
  const random = seeded(size);
  for (let at = 0; at + 4 <= size; at += 4) {
    disk.content.writeUInt32LE(Math.floor(random() * 2 ** 32), at);
  }
  return disk;
}

/** Holds requests back, in order: reads with what they found when they were asked, changes before they are made. */
class ServerlikeDisk extends MemoryDisk {
  held: (() => void)[] = [];
  holding = false;

  #hold(run: () => void): void {
    if (this.holding) this.held.push(run);
    else run();
  }

  override read(offset: bigint, length: number, reply: ReadReply): void {
    super.read(offset, length, {
      data: (bytes, start) => {
        const found = Buffer.from(bytes);
        this.#hold(() => reply.data(found, start));
      },
      fail: (code) => reply.fail(code),
    });
  }

  override write(...request: Parameters<MemoryDisk['write']>): void {
    this.#hold(() => super.write(...request));
  }

  override trim(...request: Parameters<MemoryDisk['trim']>): void {
    this.#hold(() => super.trim(...request));
  }

  override zero(...request: Parameters<MemoryDisk['zero']>): void {
    this.#hold(() => super.zero(...request));
  }

  letGo(): void {
    for (const run of this.held.splice(0)) run();
  }
}

async function readOn(disk: ReadAheadDisk, content: Buffer, from: number, to: number) {
  for (let at = from; at < to; at += STEP) {
    const got = await readDisk(disk, BigInt(at), Math.min(STEP, to - at));
    assert.ok(got.equals(content.subarray(at, Math.min(at + STEP, to))), `at ${at}`);
  }
}

function started(disk: MemoryDisk, now: () => number): ReadAheadDisk {
  const ahead = new ReadAheadDisk(disk, now);
  ahead.start({ ahead: true });
  return ahead;
}

/** The reads that a disk was asked for: offset and length. */
const reads = (disk: MemoryDisk): [number, number][] =>
  disk.log
    .filter((line) => line.startsWith('read '))
    .map((line) => line.slice(5).split('+').map(Number) as [number, number]);

describe('ReadAheadDisk', () => {
  it('reads ahead of a sequential reader, each byte once', async () => {
    const disk = filled(16 * MIB);
    const ahead = started(disk, clock(true));
    await readOn(ahead, disk.content, 0, 4 * MIB);
    const asked = reads(disk).reduce((sum, [, length]) => sum + length, 0);
    assert.ok(asked > 4 * MIB, 'something was read ahead');
    assert.ok(asked <= 13 * MIB, `${asked} bytes are more than the memory has`);
    await readOn(ahead, disk.content, 4 * MIB, 16 * MIB);
    assert.equal(
      reads(disk).reduce((sum, [, length]) => sum + length, 0),
      16 * MIB,
    );
    await ahead.close();
  });

  it('leaves a disk alone that is near', async () => {
    const disk = filled(4 * MIB);
    await readOn(started(disk, clock(false)), disk.content, 0, 4 * MIB);
    assert.equal(reads(disk).length, 32);
  });

  it('does nothing before it is started', async () => {
    const disk = filled(4 * MIB);
    await readOn(new ReadAheadDisk(disk, clock(true)), disk.content, 0, 4 * MIB);
    assert.equal(reads(disk).length, 32);
  });

  it('leaves readers alone that leap', async () => {
    const disk = filled(4 * MIB);
    const ahead = started(disk, clock(true));
    for (let i = 0; i < 32; i++) {
      const at = ((i * 7) % 32) * STEP;
      const got = await readDisk(ahead, BigInt(at), STEP);
      assert.ok(got.equals(disk.content.subarray(at, at + STEP)));
    }
    assert.equal(reads(disk).length, 32);
  });

  it('lets who gets something ask for more from there, and use its headroom', async () => {
    const disk = filled(16 * MIB);
    const ahead = started(disk, clock(true));
    await readOn(ahead, disk.content, 0, 4 * MIB);
    const at = 4 * MIB;
    const got: boolean[] = [];
    const nested = (from: number, left: number): void =>
      ahead.read(BigInt(from), STEP / 2, {
        data: (bytes, start) => {
          bytes.fill(left, start - HEADROOM, start);
          if (left > 0) nested(from + STEP, left - 1);
          const expected = disk.content.subarray(from, from + STEP / 2);
          got.push(bytes.subarray(start, start + STEP / 2).equals(expected));
        },
        fail: () => assert.fail(),
      });
    nested(at + STEP / 2, 3);
    assert.deepEqual(got, [true, true, true, true]);
    await readOn(ahead, disk.content, at, 8 * MIB);
  });

  it('gives the memory of a chunk back once, and not before all who wait have theirs', () => {
    const disk = new ServerlikeDisk({ size: MIB });
    disk.content.fill(7);
    disk.holding = true;
    const memory = new ChunkMemory(2, 4096);
    const bytes = memory.take() ?? assert.fail();
    const chunk = new Chunk(disk, memory, bytes, 0n, 4096);
    const got: (number | undefined)[] = [];
    const fail = (): void => assert.fail();
    chunk.give(0n, 1, {
      data: (lent, start) => {
        got.push(lent[start]);
        chunk.drop();
        // Somebody else reads to what is free.
        memory.take()?.fill(9);
      },
      fail,
    });
    chunk.give(1n, 1, { data: (lent, start) => got.push(lent[start]), fail });
    disk.letGo();
    assert.deepEqual(got, [7, 7]);
    assert.equal(memory.take(), bytes, 'it is free by now');
    assert.equal(memory.take(), undefined, 'and no more is');
  });

  it('reads no further than the disk', async () => {
    const disk = filled(2 * MIB + 1000);
    const ahead = started(disk, clock(true));
    await readOn(ahead, disk.content, 0, 2 * MIB + 1000);
    // MemoryDisk refuses what lies past its end.
  });

  it('asks for more as long as a reader has to wait, and never for more than its memory has', () => {
    const disk = new ServerlikeDisk({ size: 64 * MIB });
    const ahead = started(disk, clock(true));
    const got: number[] = [];
    const ask = (at: number): void =>
      ahead.read(BigInt(at), STEP, { data: () => got.push(at), fail: () => assert.fail() });
    for (let i = 0; i < 3; i++) ask(i * STEP);
    disk.holding = true;
    let furthest = 0;
    for (let i = 3; i < 200; i++) {
      ask(i * STEP);
      const ends = reads(disk).map(([at, length]) => at + length);
      furthest = Math.max(furthest, Math.max(...ends) - i * STEP);
      if (i % 10 === 0) {
        assert.ok(disk.held.length > 0);
        disk.letGo();
      }
    }
    disk.letGo();
    assert.deepEqual(
      got.sort((a, b) => a - b),
      Array.from({ length: 200 }, (_, i) => i * STEP),
    );
    assert.ok(furthest > 4 * MIB && furthest <= 12 * MIB, `${furthest} bytes ahead`);
  });

  for (const [what, change] of [
    ['write', (disk: ReadAheadDisk, at: bigint) => writeDisk(disk, at, Buffer.alloc(4096, 1))],
    ['zero', (disk: ReadAheadDisk, at: bigint) => zeroDisk(disk, at, 4096n)],
    ['trim', (disk: ReadAheadDisk, at: bigint) => trimDisk(disk, at, 4096n)],
  ] as const) {
    it(`shows a ${what} to what was read ahead`, async () => {
      const disk = filled(4 * MIB);
      const ahead = started(disk, clock(true));
      await readOn(ahead, disk.content, 0, MIB);
      await change(ahead, BigInt(MIB));
      await readOn(ahead, disk.content, MIB, 4 * MIB);
    });

    it(`does not keep what was read while a ${what} was under way`, async () => {
      const disk = new ServerlikeDisk({ size: 8 * MIB });
      const ahead = started(disk, clock(true));
      await readOn(ahead, disk.content, 0, MIB);
      disk.holding = true;
      const changed = change(ahead, BigInt(MIB + STEP));
      // Goes on reading ahead, over the place that is being changed.
      const during = [0, 1, 2, 3].map((i) => readDisk(ahead, BigInt(MIB + i * STEP), STEP));
      // The server has read what it was asked for before it makes the change, and answers it later.
      const [first, ...later] = disk.held.splice(0);
      first?.();
      await changed;
      later.forEach((answer) => answer());
      disk.holding = false;
      await Promise.all(during);
      await readOn(ahead, disk.content, MIB, 4 * MIB);
    });
  }

  it('gives nothing from before it was told to forget', async () => {
    const disk = filled(4 * MIB);
    const ahead = started(disk, clock(true));
    await readOn(ahead, disk.content, 0, MIB);
    disk.content.fill(7, MIB);
    ahead.forget();
    await readOn(ahead, disk.content, MIB, 4 * MIB);
  });

  it('reads nothing ahead of who has it forget before each read, as O_DIRECT does', async () => {
    const disk = filled(16 * MIB);
    const ahead = started(disk, clock(true));
    await readOn(ahead, disk.content, 0, 2 * MIB);
    disk.log.length = 0;
    for (let at = 4 * MIB; at < 12 * MIB; at += MIB) {
      ahead.forget();
      const got = await readDisk(ahead, BigInt(at), MIB);
      assert.ok(got.equals(disk.content.subarray(at, at + MIB)));
    }
    assert.deepEqual(
      reads(disk),
      Array.from({ length: 8 }, (_, i) => [(4 + i) * MIB, MIB]),
    );
  });

  it('leaves a disk alone that has come nearer, from the next reader on', async () => {
    const disk = filled(16 * MIB);
    let time = 0;
    let took = 10;
    const ahead = started(disk, () => (time += took));
    await readOn(ahead, disk.content, 0, 2 * MIB);
    assert.ok(
      reads(disk).some(([at]) => at >= 2 * MIB),
      'far at first',
    );
    took = 0;
    disk.log.length = 0;
    await readOn(ahead, disk.content, 10 * MIB, 14 * MIB);
    assert.equal(reads(disk).length, 32);
  });

  it('tells an error to who asks for that place, and goes on', async () => {
    const disk = filled(4 * MIB);
    const ahead = started(disk, clock(true));
    await readOn(ahead, disk.content, 0, MIB);
    // Read ahead by the next one: nobody has asked for that place.
    disk.failNext.set('read', errno.EIO);
    await readOn(ahead, disk.content, MIB, 4 * MIB);
    // Not behind what was read ahead: the reader's own.
    const alone = started(disk, clock(true));
    disk.failNext.set('read', errno.EIO);
    await assert.rejects(readDisk(alone, 0n, STEP), { code: 'EIO' });
  });

  for (let seed = 1; seed <= 6; seed++) {
    it(`is like the disk below, whatever comes between, seed ${seed}`, async () => {
      const random = seeded(seed);
      const pick = (below: number): number => Math.floor(random() * below);
      const size = 12 * MIB + pick(2) * 777;
      const disk = new MemoryDisk({ size, shuffle: random });
      const ahead = started(disk, clock(true));
      // What each range may hold: of writes that are answered the last one, in lanes that only one uses at a time.
      const model = Buffer.alloc(size);
      const readers = Array.from({ length: 3 }, () => pick(size));
      for (let round = 0; round < 80; round++) {
        const jobs: Promise<unknown>[] = [];
        const readings: { at: number; got: Promise<Buffer> }[] = [];
        for (const [i, from] of readers.entries()) {
          for (let n = pick(4); n > 0; n--) {
            const at = readers[i] ?? from;
            const length = Math.min(1 + pick(pick(2) === 0 ? STEP : 2 * MIB), size - at);
            readings.push({ at, got: readDisk(ahead, BigInt(at), length) });
            readers[i] = at + length >= size ? pick(size) : at + length;
          }
          if (pick(20) === 0) readers[i] = pick(size);
        }
        for (let n = pick(6); n > 0; n--) {
          // Small, close to one another and to what changes below.
          const at = Math.min((readers[0] ?? 0) + pick(MIB), size - 1);
          const length = Math.min(1 + pick(20_000), size - at);
          readings.push({ at, got: readDisk(ahead, BigInt(at), length) });
        }
        for (const { at, got } of readings) {
          jobs.push(
            got.then((bytes) =>
              assert.ok(bytes.equals(model.subarray(at, at + bytes.length)), `round ${round}`),
            ),
          );
        }
        await Promise.all(jobs);
        // Changes right before the readers, with what was read ahead of them still on its way.
        const changes: Promise<void>[] = [];
        const near = Math.min((readers[pick(3)] ?? 0) + pick(MIB), size - 1);
        const length = Math.min(1 + pick(300_000), size - near);
        if (pick(2) === 0) {
          const data = Buffer.alloc(length, 1 + pick(255));
          data.copy(model, near);
          changes.push(writeDisk(ahead, BigInt(near), data));
        } else {
          model.fill(0, near, near + length);
          changes.push(zeroDisk(ahead, BigInt(near), BigInt(length)));
        }
        // Somebody reads while it changes: whatever that gives must not be kept.
        const during = readDisk(
          ahead,
          BigInt(readers[0] ?? 0),
          Math.min(STEP, size - (readers[0] ?? 0)),
        );
        await Promise.all([...changes, during]);
      }
      await ahead.close();
    });
  }

  describe('around small reads', () => {
    const PAGE = 4 * KIB;

    /** Reads pages of a disk in an order that no sequential reader has, and compares them. */
    async function readPages(ahead: ReadAheadDisk, disk: MemoryDisk, pages: number[]) {
      for (const page of pages) {
        const got = await readDisk(ahead, BigInt(page * PAGE), PAGE);
        assert.ok(got.equals(disk.content.subarray(page * PAGE, (page + 1) * PAGE)), `${page}`);
      }
    }

    /** The pages of each block of 64 KiB, every fifth one, backwards. */
    const scattered = (blocks: number[]): number[] =>
      blocks.flatMap((block) => [15, 10, 5, 0].map((page) => block * 16 + page));

    it('fetches what stands around them, once', async () => {
      const disk = filled(16 * MIB);
      const ahead = started(disk, clock(true));
      // The first one is timed.
      await readPages(ahead, disk, [1000]);
      disk.log.length = 0;
      await readPages(ahead, disk, scattered([9, 4, 30, 17]));
      assert.deepEqual(
        reads(disk),
        [9, 4, 30, 17].map((block) => [block * 64 * KIB, 64 * KIB]),
      );
    });

    it('does so as well where the kernel reads ahead itself', async () => {
      const disk = filled(16 * MIB);
      const ahead = new ReadAheadDisk(disk, clock(true));
      ahead.start({ ahead: false });
      await readPages(ahead, disk, [1000]);
      disk.log.length = 0;
      await readPages(ahead, disk, scattered([9, 4]));
      assert.equal(reads(disk).length, 2);
      disk.log.length = 0;
      await readOn(ahead, disk.content, 4 * MIB, 8 * MIB);
      assert.equal(reads(disk).length, 32);
    });

    it('leaves a disk alone that is near', async () => {
      const disk = filled(4 * MIB);
      await readPages(started(disk, clock(false)), disk, scattered([9, 4, 30]));
      assert.ok(reads(disk).every(([, length]) => length === PAGE));
    });

    it('reads no further than the disk, and leaves alone what lies across', async () => {
      const disk = filled(MIB + 5000);
      const ahead = started(disk, clock(true));
      await readPages(ahead, disk, [100]);
      const tail = await readDisk(ahead, BigInt(MIB + 4096), 904);
      assert.ok(tail.equals(disk.content.subarray(MIB + 4096)));
      const across = await readDisk(ahead, BigInt(64 * KIB - 512), 1024);
      assert.ok(across.equals(disk.content.subarray(64 * KIB - 512, 64 * KIB + 512)));
      assert.deepEqual(reads(disk).slice(1), [
        [MIB, 5000],
        [64 * KIB - 512, 1024],
      ]);
    });

    it('gives up where nobody comes back for it, and tries again now and then', async () => {
      const disk = filled(64 * MIB);
      const ahead = started(disk, clock(true));
      // A page of each block, backwards.
      await readPages(
        ahead,
        disk,
        Array.from({ length: 1000 }, (_, i) => (1023 - i) * 16 + 3),
      );
      const around = reads(disk).filter(([, length]) => length > PAGE).length;
      assert.ok(around >= 10 && around < 30, `${around} of 1000`);
    });

    for (const [what, change] of [
      ['write', (disk: ReadAheadDisk, at: bigint) => writeDisk(disk, at, Buffer.alloc(512, 1))],
      ['zero', (disk: ReadAheadDisk, at: bigint) => zeroDisk(disk, at, 512n)],
      ['trim', (disk: ReadAheadDisk, at: bigint) => trimDisk(disk, at, 512n)],
    ] as const) {
      it(`keeps nothing that a ${what} has changed, or may have`, async () => {
        const disk = new ServerlikeDisk({ size: 4 * MIB });
        const ahead = started(disk, clock(true));
        await readPages(ahead, disk, [1000, 170]);
        await change(ahead, BigInt(163 * PAGE));
        await readPages(ahead, disk, [163, 162]);
        // The server has read what stands around before the change, and answers after it.
        disk.holding = true;
        const changed = change(ahead, BigInt(500 * PAGE));
        const during = readDisk(ahead, BigInt(502 * PAGE), PAGE);
        const [make, ...answers] = disk.held.splice(0);
        make?.();
        await changed;
        answers.forEach((answer) => answer());
        disk.holding = false;
        await during;
        await readPages(ahead, disk, [500, 503]);
      });
    }

    it('gives nothing from before it was told to forget', async () => {
      const disk = filled(4 * MIB);
      const ahead = started(disk, clock(true));
      await readPages(ahead, disk, [1000, 170]);
      disk.content.fill(9);
      ahead.forget();
      await readPages(ahead, disk, [171, 169]);
    });

    it('tells an error to who asks for that place, and to nobody else', async () => {
      const disk = filled(4 * MIB);
      const ahead = started(disk, clock(true));
      await readPages(ahead, disk, [1000]);
      disk.failNext.set('read', errno.EIO);
      // The one that asks reads alone, where what stands around cannot be read.
      await readPages(ahead, disk, [170, 165, 160]);
    });
  });

  it('lends nothing that somebody else still needs', () => {
    const disk = filled(4 * MIB);
    const ahead = started(disk, clock(true));
    const take = (at: number, length: number): void =>
      ahead.read(BigInt(at), length, {
        data: (bytes, start) => {
          const want = disk.content.subarray(at, at + length);
          assert.ok(bytes.subarray(start, start + length).equals(want), `at ${at}`);
          bytes.fill(0xcc, start - HEADROOM, start);
        },
        fail: () => assert.fail(),
      });
    for (let at = 0; at < MIB; at += STEP) take(at, STEP);
    // Once more, and from the middle on backwards.
    for (let at = MIB + 64 * KIB; at >= MIB - 64 * KIB; at -= 4096) take(at, 4096);
  });

  it('passes on what is durable', () => {
    const disk = filled(MIB);
    const ahead = started(disk, clock(true));
    let done = 0;
    ahead.write(
      0n,
      Buffer.alloc(HEADROOM + 512),
      HEADROOM,
      512,
      { fua: true },
      { done: () => done++ },
    );
    ahead.write(0n, Buffer.alloc(HEADROOM + 512), HEADROOM, 512, NOT_DURABLE, {
      done: () => done++,
    });
    ahead.flush({ done: () => done++ });
    assert.deepEqual(disk.log, ['write-fua 0+512', 'write 0+512', 'flush 0+0']);
    assert.equal(done, 3);
  });
});
