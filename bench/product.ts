/** Installs the package as a user gets it: packed, and installed from the tarball. */

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './processes.js';
import type { Workshop } from './workshop.js';

/** Seen from dist/bench/, where the compiled file is. */
const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

/** Milliseconds; npm fetches the dependencies. */
const DEADLINE = 300_000;

interface Packed {
  readonly filename: string;
}

/** Returns the folder with the commands. */
export async function installProduct(workshop: Workshop): Promise<string> {
  const folder = workshop.newFolder('product');
  const options = { deadline: DEADLINE, signal: workshop.signal };
  const packed = await run(
    // All that it is made of was built before (scripts/bench.sh), and we run from it.
    ['npm', 'pack', PROJECT, '--json', '--ignore-scripts', '--pack-destination', folder],
    options,
  );
  const [tarball] = JSON.parse(packed.slice(packed.indexOf('['))) as Packed[];
  if (tarball === undefined) throw new Error('npm pack made no tarball');
  await run(
    [
      ...['npm', 'install', '--global', '--prefix', folder, '--ignore-scripts'],
      ...['--no-audit', '--no-fund', '--prefer-offline', join(folder, tarball.filename)],
    ],
    options,
  );
  return join(folder, 'bin');
}
