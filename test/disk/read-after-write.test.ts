/** Reads that wait for the writes before them, over a disk that does its requests in any order. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HEADROOM, NOT_DURABLE } from '../../src/disk/disk.js';
import type { Reply, WriteOptions } from '../../src/disk/disk.js';
import { readDisk, writeDisk, zeroDisk } from '../../src/disk/promises.js';
import { errno } from '../../src/errno.js';
import { ReadAfterWriteDisk } from '../../src/disk/read-after-write.js';
import { MemoryDisk, seeded } from '../support/memory-disk.js';

const SIZE = 8192;

/** Writes are done when it is told so, and reads at once. */
class LateDisk extends MemoryDisk {
  readonly late: ((code?: number) => void)[] = [];

  override write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    this.late.push((code = 0) => {
      if (code === 0) super.write(offset, bytes, start, length, options, reply);
      else reply.done(code);
    });
  }
}

describe('reads after writes', () => {
  const done: string[] = [];

  function setUp(): { below: LateDisk; disk: ReadAfterWriteDisk } {
    done.length = 0;
    const below = new LateDisk({ size: SIZE });
    return { below, disk: new ReadAfterWriteDisk(below) };
  }

  function write(disk: ReadAfterWriteDisk, at: number, letter: string, length = 100): void {
    const bytes = Buffer.alloc(HEADROOM + length, letter);
    disk.write(BigInt(at), bytes, HEADROOM, length, NOT_DURABLE, {
      done: (code) => done.push(`${letter} ${code}`),
    });
  }

  function read(disk: ReadAfterWriteDisk, at: number, length = 10): void {
    disk.read(BigInt(at), length, {
      data: (bytes, start) => done.push(bytes.toString('latin1', start, start + 1)),
      fail: (code) => done.push(`failed ${code}`),
    });
  }

  it('wait for those that they meet, and for no others', () => {
    const { below, disk } = setUp();
    write(disk, 100, 'a');
    write(disk, 300, 'b');
    read(disk, 199, 1);
    read(disk, 200, 100);
    read(disk, 90, 10);
    assert.deepEqual(done, ['\0', '\0']);
    below.late[1]?.();
    assert.deepEqual(done.splice(0), ['\0', '\0', 'b 0']);
    below.late[0]?.();
    assert.deepEqual(done.toSorted(), ['a', 'a 0']);
  });

  it('wait for all that they meet', () => {
    const { below, disk } = setUp();
    write(disk, 0, 'a');
    write(disk, 50, 'b');
    read(disk, 60);
    below.late[0]?.();
    assert.deepEqual(done.splice(0), ['a 0']);
    below.late[1]?.();
    assert.deepEqual(done.toSorted(), ['b', 'b 0']);
  });

  it('do not wait for those that come after them', () => {
    const { below, disk } = setUp();
    write(disk, 0, 'a');
    read(disk, 0);
    write(disk, 0, 'b');
    below.late[0]?.();
    assert.deepEqual(done.toSorted(), ['a', 'a 0']);
    below.late[1]?.();
    assert.deepEqual(done.at(-1), 'b 0');
  });

  it('go on when a write has failed', () => {
    const { below, disk } = setUp();
    write(disk, 0, 'a');
    read(disk, 0);
    below.late[0]?.(errno.EIO);
    assert.deepEqual(done.toSorted(), ['\0', `a ${errno.EIO}`]);
  });

  it('wait for zeroes as well', async () => {
    const below = new MemoryDisk({ size: SIZE, shuffle: seeded(1) });
    const disk = new ReadAfterWriteDisk(below);
    await writeDisk(disk, 0n, Buffer.alloc(100, 'x'));
    const zeroed = zeroDisk(disk, 0n, 50n, { fua: false, noHole: true });
    const content = await readDisk(disk, 0n, 100);
    await zeroed;
    assert.deepEqual(content.subarray(40, 60), Buffer.from(`${'\0'.repeat(10)}${'x'.repeat(10)}`));
  });

  it('have each time the last write before them, in whatever order the disk does them', async () => {
    for (let seed = 0; seed < 50; seed++) {
      const random = seeded(seed);
      const disk = new ReadAfterWriteDisk(new MemoryDisk({ size: SIZE, shuffle: random }));
      const model = Buffer.alloc(SIZE);
      const work: Promise<void>[] = [];
      // Each byte is written once: the order of writes that meet is nobody's to say.
      const free = Array.from({ length: 64 }, (_, i) => i).toSorted(() => random() - 0.5);
      for (const place of free) {
        const at = place * 128;
        const data = Buffer.alloc(128, place + 1);
        data.copy(model, at);
        work.push(writeDisk(disk, BigInt(at), data));
        const from = Math.floor(random() * (SIZE - 512));
        const expected = Buffer.from(model.subarray(from, from + 512));
        const check = async (): Promise<void> => {
          const content = await readDisk(disk, BigInt(from), 512);
          for (const [i, byte] of expected.entries())
            if (byte !== 0) assert.equal(content[i], byte);
        };
        work.push(check());
      }
      await Promise.all(work);
    }
  });
});
