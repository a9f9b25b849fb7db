/** The disk that forgets: what may be missing after a power cut, and what may not. */

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { HEADROOM } from '../../src/disk/disk.js';
import type { Reply } from '../../src/disk/disk.js';
import { flushDisk, readDisk, writeDisk, zeroDisk } from '../../src/disk/promises.js';
import { seeded } from '../support/memory-disk.js';
import { PowerCutDisk, SECTOR } from '../support/power-cut-disk.js';

const SECTORS = 16;
const SIZE = SECTORS * SECTOR;
const EVERYTHING = 1;
const NOTHING = 0;
const ANSWER_AT_ONCE = 0;
const ANSWER_LATER = 0.6;

describe('a disk at a power cut', () => {
  let folder: string;
  let image: string;
  let disk: PowerCutDisk;
  let random: () => number;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-power-'));
    image = join(folder, 'image');
    await writeFile(image, Buffer.alloc(SIZE));
    random = seeded(1);
    disk = new PowerCutDisk(image, () => random());
  });
  afterEach(async () => {
    await disk.close();
    await rm(folder, { recursive: true });
  });

  const content = (): Promise<Buffer> => readFile(image);
  const put = (letter: string, sector: number, fua = false): Promise<void> =>
    writeDisk(disk, BigInt(sector * SECTOR), Buffer.alloc(SECTOR, letter), { fua });
  const letters = (bytes: Buffer): string =>
    Array.from({ length: SECTORS }, (_, i) => {
      const sector = bytes.subarray(i * SECTOR, (i + 1) * SECTOR);
      const [first = 0] = sector;
      assert.ok(sector.every((byte) => byte === first));
      return first === 0 ? '.' : String.fromCharCode(first);
    }).join('');

  /** Sends a request that is answered when it is answered. */
  function send(ask: (reply: Reply) => void): Promise<number> {
    return new Promise((done) => ask({ done }));
  }

  it('shows what was written, and stores none of it', async () => {
    await put('a', 3);
    assert.equal(letters(await readDisk(disk, 0n, SIZE)), '...a............');
    assert.equal(letters(await content()), '................');
    assert.deepEqual(disk.powerCut(NOTHING), { volatile: 1, lost: 1 });
    assert.equal(letters(await content()), '................');
  });

  it('has what was flushed', async () => {
    await put('a', 3);
    await zeroDisk(disk, BigInt(4 * SECTOR), BigInt(SECTOR), { fua: false, noHole: true });
    await put('b', 15);
    await flushDisk(disk);
    await put('c', 4);
    assert.deepEqual(disk.powerCut(NOTHING), { volatile: 1, lost: 1 });
    assert.equal(letters(await content()), '...a...........b');
  });

  it('has what was written with FUA, and nothing beside it', async () => {
    await put('a', 1);
    await put('b', 2, true);
    await put('c', 2);
    await send((reply) => disk.trim(BigInt(5 * SECTOR), BigInt(SECTOR), { fua: true }, reply));
    disk.powerCut(NOTHING);
    assert.equal(letters(await content()).replace(/[^.b]/, 'T'), '..b..T..........');
  });

  it('has no write that was not answered when the flush was asked for', async () => {
    await put('a', 1);
    random = () => ANSWER_LATER;
    const bytes = Buffer.alloc(HEADROOM + SECTOR, 'b');
    const write = send((reply) =>
      disk.write(BigInt(SECTOR), bytes, HEADROOM, SECTOR, { fua: false }, reply),
    );
    random = () => ANSWER_AT_ONCE;
    await send((reply) => disk.flush(reply));
    await write;
    disk.powerCut(NOTHING);
    assert.equal(letters(await content()), '.a..............');
  });

  it('may have any of the versions that were on their way', async () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 60; seed++) {
      await writeFile(image, Buffer.alloc(SIZE));
      const other = new PowerCutDisk(image, seeded(seed));
      const write = (letter: string): Promise<void> =>
        writeDisk(other, 0n, Buffer.alloc(2 * SECTOR, letter), { fua: false });
      await write('a');
      await flushDisk(other);
      await write('b');
      await write('c');
      other.powerCut(0.5);
      await other.close();
      seen.add(letters(await content()).slice(0, 2));
    }
    const one = ['a', 'b', 'c'];
    const all = one.flatMap((first) => one.map((second) => first + second));
    assert.deepEqual([...seen].toSorted(), all);
  });

  it('keeps what lies beside a write within a sector', async () => {
    await put('a', 0);
    await writeDisk(disk, 10n, Buffer.from('hello'), { fua: false });
    disk.powerCut(EVERYTHING);
    const after = await content();
    const versions = [Buffer.alloc(SECTOR, 'a'), Buffer.alloc(SECTOR, 'a')];
    versions[1]?.write('hello', 10);
    assert.ok(versions.some((version) => version.equals(after.subarray(0, SECTOR))));
  });
});
