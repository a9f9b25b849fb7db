/**
 * The command with a bug: what reads at a certain place of the disk makes it crash. The test starts it in the
 * place of bin/tsnbdfuse.
 *
 *     node e2e-crash.js WAY ARGUMENTS-OF-TSNBDFUSE...
 */

import { main } from '../../src/cli/main.js';
import { NbdDisk } from '../../src/nbd/nbd-disk.js';

/** Where it crashes, in bytes. */
export const CRASH_AT = 512n * 1024n;

const crash = (): never => {
  throw new Error('a bug that was put in');
};

const WAYS: Readonly<Record<string, () => void>> = {
  // Within the request itself.
  'at once': crash,
  // When nobody is there to catch it, so that the request is never answered.
  later: () => void setImmediate(crash),
  'in a promise': () => void Promise.resolve().then(crash),
};

const [way = '', ...args] = process.argv.slice(2);
const bug = WAYS[way];
if (bug !== undefined) {
  const read = Object.getOwnPropertyDescriptor(NbdDisk.prototype, 'read')?.value as NbdDisk['read'];
  NbdDisk.prototype.read = function (this: NbdDisk, offset, length, reply) {
    if (offset === CRASH_AT) bug();
    else read.call(this, offset, length, reply);
  };
  const status = await main(args, 'tsnbdfuse');
  process.exit(status);
}
