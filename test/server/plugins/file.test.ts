import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, open, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import {
  diskExtents,
  flushDisk,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from '../../../src/disk/promises.js';
import { native } from '../../../src/native.js';
import { deviceNumbers } from '../../../src/device-number.js';
import { isInMemory, openFile } from '../../../src/server/plugins/file.js';
import { FileFlush } from '../../../src/server/plugins/file-flush.js';
import { seeded } from '../../support/memory-disk.js';
import { exerciseDisk } from '../../support/server-model.js';

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tsnbdkit-file-'));
});
after(() => rm(folder, { recursive: true }));

async function makeFile(name: string, content: Buffer | number): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, typeof content === 'number' ? '' : content);
  if (typeof content === 'number') await truncate(path, content);
  return path;
}

const WRITABLE = { readOnly: false };

describe('file: beside a model', () => {
  for (let seed = 1; seed <= 3; seed++) {
    it(`does what a buffer does (seed ${seed})`, async () => {
      // Of a size that is no multiple of anything.
      const size = 300_001;
      const disk = await openFile(await makeFile(`model${seed}`, size), WRITABLE);
      await exerciseDisk(disk, Buffer.alloc(size), { seed, steps: 300, longest: 100_000 });
      await disk.close();
    });
  }

  it('takes many requests at once', async () => {
    const disk = await openFile(await makeFile('many', 1 << 20), WRITABLE);
    const parts = Array.from({ length: 64 }, (_, i) => i);
    await Promise.all(
      parts.map((i) => writeDisk(disk, BigInt(i * 16384), Buffer.alloc(16384, i + 1))),
    );
    // Asking for extents moves the offset of the descriptor: nobody may notice.
    const asked = parts.map(async (i) => {
      await diskExtents(disk, BigInt(i * 16384), 1000n);
      const data = await readDisk(disk, BigInt(i * 16384), 16384);
      assert.ok(data.every((byte) => byte === i + 1));
    });
    await Promise.all(asked);
    await disk.close();
  });
});

/** Writes back what the page cache has of a file, and drops it. */
async function forget(path: string): Promise<void> {
  const args = [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none'];
  await promisify(execFile)('dd', args, { timeout: 60_000 });
}

describe('file: beside the system itself', () => {
  // That of /dev/shm cannot tell what needs no waiting; that of the other can, mostly.
  for (const where of [tmpdir(), '/dev/shm']) {
    it(`gives and stores the same, with all at once, in ${where}`, async (test) => {
      const own = where === tmpdir() ? folder : await mkdtemp('/dev/shm/tsnbdkit-file-');
      try {
        await manyAtOnce(test, join(own, 'many-at-once'));
      } finally {
        if (own !== folder) await rm(own, { recursive: true });
      }
    });
  }

  /** As many at once as there are slots, in each of which a model says what has to come out. */
  async function manyAtOnce(test: TestContext, path: string): Promise<void> {
    // The slots' edges are within pages, so that neighbours write to the same page.
    const SLOT = 100_001;
    const SLOTS = 24;
    await writeFile(path, Buffer.alloc(SLOT * SLOTS, 5));
    const disk = await openFile(path, WRITABLE);
    const slow = await open(path, 'r+');
    const random = seeded(29);
    const below = (limit: number): number => Math.floor(random() * limit);
    const model = Buffer.alloc(SLOT * SLOTS, 5);
    const answers = { now: 0, later: 0 };

    async function step(slot: number): Promise<void> {
      const from = below(SLOT);
      // Many short ones, which are gathered, and some longer ones.
      const length = 1 + below(Math.min(SLOT - from, below(3) === 0 ? SLOT : 9000));
      const at = slot * SLOT + from;
      const here = model.subarray(at, at + length);
      switch (below(5)) {
        case 0:
        case 1: {
          const data = Buffer.alloc(length, below(256));
          data.copy(here);
          await writeDisk(disk, BigInt(at), data);
          // What is answered, everybody sees.
          const seen = await slow.read(Buffer.alloc(length), 0, length, at);
          assert.ok(seen.buffer.equals(here), `written ${at}+${length}`);
          break;
        }
        case 2:
          here.fill(below(256));
          await slow.write(here, 0, length, at);
          break;
        case 3:
          await zeroDisk(disk, BigInt(at), BigInt(length));
          here.fill(0);
          break;
        default: {
          const turn = { isOver: false };
          const data = new Promise<Buffer>((resolve, reject) => {
            disk.read(BigInt(at), length, {
              data: (bytes, start, owner) => {
                answers[turn.isOver ? 'later' : 'now']++;
                resolve(Buffer.from(bytes.subarray(start, start + length)));
                owner?.release();
              },
              fail: (code) => reject(new Error(`errno ${code}`)),
            });
          });
          turn.isOver = true;
          assert.ok((await data).equals(here), `read ${at}+${length}`);
        }
      }
    }

    for (let round = 0; round < 6; round++) {
      await forget(path);
      await Promise.all(
        Array.from({ length: SLOTS }, async (_, slot) => {
          for (let i = 0; i < 12; i++) await step(slot);
        }),
      );
      await flushDisk(disk);
    }
    test.diagnostic(`reads: ${answers.now} at once, ${answers.later} later`);
    assert.ok((await readFile(path)).equals(model));
    await slow.close();
    await disk.close();
  }
});

describe('file: room', () => {
  it('is freed by trim and zero, and kept where no hole is wanted', async () => {
    const path = await makeFile('room', Buffer.alloc(4 << 20, 1));
    const disk = await openFile(path, WRITABLE);
    const half = 2n << 20n;
    const blocks = async (): Promise<number> => {
      await flushDisk(disk);
      return (await stat(path)).blocks;
    };
    const full = await blocks();
    await trimDisk(disk, 0n, half);
    const trimmed = await blocks();
    assert.ok(trimmed <= full / 2 + 64, `${trimmed} blocks of ${full}`);
    await zeroDisk(disk, half, half, { fua: false, noHole: true });
    assert.ok((await blocks()) >= trimmed - 64);
    const [hole] = await diskExtents(disk, 0n, half);
    assert.deepEqual(hole, { length: half, hole: true, zero: true });
    await zeroDisk(disk, 0n, 2n * half);
    assert.ok((await blocks()) <= 64);
    assert.ok((await readDisk(disk, 0n, 4 << 20)).every((byte) => byte === 0));
    assert.equal((await stat(path)).size, 4 << 20);
    await disk.close();
  });
});

describe('file: extents', () => {
  it('come from the file system', async () => {
    const path = await makeFile('sparse', 4 << 20);
    const file = await open(path, 'r+');
    await file.write(Buffer.alloc(1 << 16, 7), 0, 1 << 16, 1 << 20);
    await file.sync();
    await file.close();
    const disk = await openFile(path, { readOnly: true });
    const M = 1n << 20n;
    const K64 = 1n << 16n;
    assert.deepEqual(await diskExtents(disk, 0n, 4n * M), [
      { length: M, hole: true, zero: true },
      { length: K64, hole: false, zero: false },
      { length: 3n * M - K64, hole: true, zero: true },
    ]);
    assert.deepEqual(await diskExtents(disk, M + 5n, 10n), [
      { length: 10n, hole: false, zero: false },
    ]);
    assert.deepEqual(await diskExtents(disk, 2n * M, 2n * M), [
      { length: 2n * M, hole: true, zero: true },
    ]);
    await disk.close();
  });
});

describe('file: what is nowhere but in memory', () => {
  it('is a file on a tmpfs, and no device whose node is on one', async () => {
    // The kernel's own file system for devices calls itself a tmpfs.
    for (const [path, flags, expected] of [
      [join('/dev/shm', `tsnbdkit-${process.pid}`), 'w', true],
      ['/dev/null', 'r', false],
    ] as const) {
      const file = await open(path, flags);
      try {
        assert.equal(await isInMemory(file.fd), expected, path);
      } finally {
        await file.close();
        if (expected) await rm(path);
      }
    }
  });
});

describe('file: errors', () => {
  for (const where of [tmpdir(), '/dev/shm']) {
    it(`of a file in ${where} that was cut short are EIO`, async () => {
      await withFile(where, async (path) => {
        const disk = await openFile(path, WRITABLE);
        await truncate(path, 4096);
        await assert.rejects(readDisk(disk, 0n, 8192), { code: 'EIO' });
        await assert.rejects(readDisk(disk, 4096n, 512), { code: 'EIO' });
        await disk.close();
      });
    });

    it(`of the system reach whoever asked, in ${where}`, async () => {
      await withFile(where, async (path) => {
        const disk = await openFile(path, { readOnly: true });
        await assert.rejects(writeDisk(disk, 0n, Buffer.from('x')), { code: 'EBADF' });
        await assert.rejects(zeroDisk(disk, 0n, 512n), { code: 'EBADF' });
        await disk.close();
      });
    });
  }

  /** Of 8 KiB, in a folder that is removed again. */
  async function withFile(where: string, use: (path: string) => Promise<void>): Promise<void> {
    const own = await mkdtemp(join(where, 'tsnbdkit-errors-'));
    try {
      await writeFile(join(own, 'file'), Buffer.alloc(8192, 1));
      await use(join(own, 'file'));
    } finally {
      await rm(own, { recursive: true });
    }
  }

  it('of opening say what is wrong', async () => {
    const refusals: readonly (readonly [string, RegExp])[] = [
      [join(folder, 'nothing'), /nothing does not exist/],
      [folder, /is a directory/],
      ['/dev/null', /neither a regular file nor a block device/],
      ['', /name of the file is empty/],
    ];
    for (const [path, message] of refusals) {
      await assert.rejects(openFile(path, WRITABLE), message);
    }
    const loop = join(folder, 'loop');
    await symlink(loop, loop);
    await assert.rejects(openFile(loop, WRITABLE), /ELOOP/);
  });

  it('refuses what positions cannot be told for', async () => {
    // Only some file systems have files this large; that of /dev/shm does.
    const path = `/dev/shm/tsnbdkit-huge-${process.pid}`;
    await writeFile(path, '');
    try {
      assert.equal(await native.truncate(path, 2n ** 53n), 0);
      await assert.rejects(openFile(path, WRITABLE), /too large/);
    } finally {
      await rm(path);
    }
  });
});

describe('file: flush', () => {
  const collect = () => {
    const ends: ((code: number) => void)[] = [];
    const results: string[] = [];
    const flush = new FileFlush((done) => ends.push(done));
    const ask = (name: string): void =>
      flush.request({ done: (code) => results.push(`${name} ${code}`) });
    return { ends, results, ask };
  };

  it('is shared by those who came while one was under way', () => {
    const { ends, results, ask } = collect();
    for (const name of ['a', 'b', 'c']) ask(name);
    assert.equal(ends.length, 1);
    ends[0]?.(0);
    assert.deepEqual(results, ['a 0']);
    assert.equal(ends.length, 2);
    ends[1]?.(0);
    assert.deepEqual(results, ['a 0', 'b 0', 'c 0']);
    assert.equal(ends.length, 2);
  });

  it('tells everybody of an error, from then on', () => {
    const { ends, results, ask } = collect();
    ask('a');
    ends[0]?.(5);
    ask('b');
    ends[1]?.(0);
    assert.deepEqual(results, ['a 5', 'b 5']);
  });
});

describe('deviceNumbers', () => {
  it('takes a dev_t apart', () => {
    assert.deepEqual(deviceNumbers(0xfe01n), { major: 254, minor: 1 });
    assert.deepEqual(deviceNumbers((1n << 20n) | (8n << 8n) | 3n), { major: 8, minor: 259 });
  });
});
