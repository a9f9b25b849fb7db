/** Copies a disk that is nearly all hole to a file, and compares what came of it. */

import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { FrontEnd } from '../contenders.js';
import type { Measurement } from '../measurement.js';
import { Mount } from '../mount.js';
import { run, TimeoutError } from '../processes.js';
import { SPARSE_EXTENT, SPARSE_OFFSETS, SPARSE_SIZE } from '../servers.js';
import type { ServedSetting } from '../setting.js';

/** Milliseconds, for the copy by which the patience with the others is measured. */
const DEADLINE = 180_000;
const LEAST_PATIENCE = 5_000;

async function compare(copy: string, image: string): Promise<void> {
  const { size, blocks } = statSync(copy);
  if (size !== SPARSE_SIZE) throw new Error(`the copy has ${size} bytes`);
  const data = SPARSE_EXTENT * SPARSE_OFFSETS.length;
  if (blocks * 512 > data * 1.1) throw new Error(`the copy takes ${blocks * 512} bytes`);
  for (const offset of SPARSE_OFFSETS) {
    await run(['cmp', '-i', String(offset), '-n', String(SPARSE_EXTENT), copy, image]);
  }
}

/** @param patience seconds after which the copy is stopped */
export async function measureSparseCopy(
  contender: FrontEnd,
  setting: ServedSetting,
  patience: number | undefined,
): Promise<Measurement> {
  const { server, workshop, commands } = setting;
  const copy = join(workshop.memory, 'copy');
  const deadline = patience === undefined ? DEADLINE : Math.max(patience * 1000, LEAST_PATIENCE);
  const mount = await Mount.make(contender, { server }, commands, workshop);
  try {
    const begin = performance.now();
    const seconds = (): number => (performance.now() - begin) / 1000;
    try {
      await run(['cp', '--sparse=auto', mount.file, copy], { deadline, signal: workshop.signal });
    } catch (error) {
      if (!(error instanceof TimeoutError) || patience === undefined) throw error;
      return { value: seconds(), stopped: true, cost: { ...mount.cost(), cpuSeconds: NaN } };
    }
    const value = seconds();
    await compare(copy, server.image);
    return { value, cost: { ...mount.cost(), cpuSeconds: NaN } };
  } finally {
    await mount.end();
    rmSync(copy, { force: true });
  }
}
