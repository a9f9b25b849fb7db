/** Random requests to a disk, beside a plain buffer that says what has to come out. */

import assert from 'node:assert/strict';
import type { Disk } from '../../src/disk/disk.js';
import {
  diskExtents,
  flushDisk,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from '../../src/disk/promises.js';
import { seeded } from './memory-disk.js';

export interface ModelOptions {
  readonly seed: number;
  readonly steps: number;
  /** Offsets and lengths are multiples of it. */
  readonly align?: number;
  /** The longest range, in bytes. */
  readonly longest: number;
  /** Where in the disk the model begins: the disk reaches to its end at least. */
  readonly base?: bigint;
}

/** @param model what the disk holds from `base` on */
export async function exerciseDisk(
  disk: Disk,
  model: Buffer,
  { seed, steps, align = 1, longest, base = 0n }: ModelOptions,
): Promise<void> {
  const random = seeded(seed);
  const below = (limit: number): number => Math.floor(random() * limit);
  const range = (): [number, number] => {
    const offset = below(model.length / align) * align;
    const most = Math.min(model.length - offset, longest);
    return [offset, Math.max(1, below(most / align)) * align];
  };
  for (let step = 0; step < steps; step++) {
    const [offset, length] = range();
    const at = base + BigInt(offset);
    const count = BigInt(length);
    const where = `seed ${seed}, step ${step}, ${offset}+${length}`;
    switch (below(7)) {
      case 0:
      case 1: {
        const data = Buffer.alloc(length);
        // Often zeroes, which a disk may treat in its own way.
        if (below(3) > 0) for (let i = 0; i < length; i++) data[i] = below(256);
        await writeDisk(disk, at, data);
        data.copy(model, offset);
        break;
      }
      case 2:
      case 3: {
        const data = await readDisk(disk, at, length);
        assert.ok(data.equals(model.subarray(offset, offset + length)), `read: ${where}`);
        break;
      }
      case 4:
        await zeroDisk(disk, at, count, { fua: false, noHole: below(2) === 0 });
        model.fill(0, offset, offset + length);
        break;
      case 5:
        await trimDisk(disk, at, count);
        // Whatever is there now has to stay.
        (await readDisk(disk, at, length)).copy(model, offset);
        break;
      default:
        await checkExtents(disk, model, offset, length, base, where);
        await flushDisk(disk);
    }
  }
}

async function checkExtents(
  disk: Disk,
  model: Buffer,
  offset: number,
  length: number,
  base: bigint,
  where: string,
): Promise<void> {
  const extents = await diskExtents(disk, base + BigInt(offset), BigInt(length));
  assert.ok(extents.length > 0, `no extents: ${where}`);
  let at = offset;
  for (const extent of extents) {
    assert.ok(at < offset + length, `an extent after the end: ${where}`);
    assert.ok(extent.length > 0n, `an extent of nothing: ${where}`);
    const end = Math.min(at + Number(extent.length), model.length);
    if (extent.zero) {
      const zero = model.subarray(at, end).every((byte) => byte === 0);
      assert.ok(zero, `an extent that is not zero from ${at} to ${end}: ${where}`);
    }
    at = end;
  }
}
