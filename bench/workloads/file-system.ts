/**
 * Makes a file system on the disk and copies a source tree into it, through a loop device as root does
 * it; what is counted ends when the front end has, with all of it at the server. Then the disk is
 * fetched without the front end, checked, and compared with the tree.
 */

import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FrontEnd } from '../contenders.js';
import type { Measurement } from '../measurement.js';
import { Mount } from '../mount.js';
import { unmount } from '../mountpoints.js';
import { run } from '../processes.js';
import type { ServedSetting } from '../setting.js';
import type { Workshop } from '../workshop.js';

/** The tree that is copied: our own sources. */
const TREE = fileURLToPath(new URL('../../../src', import.meta.url));
const FILE_SYSTEM = '256M';

/** Milliseconds. */
const DEADLINE = 120_000;

async function withLoopMount(
  image: string,
  option: string,
  workshop: Workshop,
  action: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = workshop.newFolder('loop');
  try {
    await run(['mount', '-o', `loop,${option}`, image, folder], {
      deadline: DEADLINE,
      signal: workshop.signal,
    });
    await action(folder);
  } finally {
    await unmount(folder);
  }
}

async function check(setting: ServedSetting): Promise<void> {
  const { server, workshop } = setting;
  const options = { deadline: DEADLINE, signal: workshop.signal };
  const image = join(workshop.memory, 'fetched');
  try {
    await run(['nbdcopy', server.uri, image], options);
    await run(['e2fsck', '-f', '-n', image], options);
    await withLoopMount(image, 'ro', workshop, async (folder) => {
      await run(['diff', '-r', TREE, join(folder, 'tree')], options);
    });
  } finally {
    rmSync(image, { force: true });
  }
}

export async function measureFileSystem(
  contender: FrontEnd,
  setting: ServedSetting,
): Promise<Measurement> {
  const { server, workshop, commands } = setting;
  const options = { deadline: DEADLINE, signal: workshop.signal };
  const mount = await Mount.make(contender, { server }, commands, workshop);
  const begin = performance.now();
  let peakBytes: number;
  try {
    await run(['mkfs.ext4', '-q', '-F', mount.file, FILE_SYSTEM], options);
    await withLoopMount(mount.file, 'rw', workshop, async (folder) => {
      const tree = join(folder, 'tree');
      mkdirSync(tree);
      await run(['cp', '-r', `${TREE}/.`, tree], options);
    });
    peakBytes = mount.cost().peakBytes;
  } finally {
    await mount.end();
  }
  const value = (performance.now() - begin) / 1000;
  await check(setting);
  return { value, cost: { cpuSeconds: NaN, peakBytes } };
}
