/**
 * Runs exerciser.py, which says what it does: random requests on a mounted file, compared with a plain one.
 *
 * TSNBDFUSE_STEPS is how many requests each worker makes, TSNBDFUSE_SEED what is added to each seed.
 */

import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Workplace } from './mounts.js';

const PROGRAM = fileURLToPath(new URL('../../../test/support/exerciser.py', import.meta.url));
const SEED = Number(process.env['TSNBDFUSE_SEED'] ?? '0');
const STEPS = process.env['TSNBDFUSE_STEPS'];
const PAGE = 4096;
const CHECK = 'check';

/** Milliseconds for each step, by far: some servers start a program for each request. */
const STEP_DEADLINE = 500;
const START_DEADLINE = 30_000;

export const CACHES = ['writeback', 'writethrough', 'none'] as const;

/** One of the cache modes, another with each seed. */
export function cacheFor(seed: number): string {
  return CACHES[(seed + SEED) % CACHES.length] ?? '';
}

export interface Exercise {
  readonly seed: number;
  /** Unless TSNBDFUSE_STEPS says otherwise. */
  readonly steps: number;
  readonly workers?: number;
  /** Of what size are the pieces that belong to one worker at a time: a page if not said. */
  readonly grain?: 1 | typeof PAGE;
  /** The mode of the mount, if it is mounted with one. */
  readonly cache?: (typeof CACHES)[number];
  readonly readOnly?: boolean;
  /** The mounted file. */
  readonly file?: string;
  /** The server may refuse requests now and then, with EIO. */
  readonly errors?: boolean;
  /** Now and then all page caches of the machine are dropped, which takes root. */
  readonly dropCaches?: boolean;
  /** Told when one of the workers has made a step. */
  readonly onStep?: () => void;
  /** Told when one of the workers has got an error that was to be expected. */
  readonly onError?: () => void;
  /** What is to happen between the last step and the comparison of all. */
  readonly beforeCheck?: () => Promise<void>;
  /** Milliseconds in which all is to be done, if the usual ones are not enough. */
  readonly deadline?: number;
}

/** Makes `model`, with stretches of zeroes, and `image`, which is the same and sparse. */
export async function prepare(place: Workplace, size: number): Promise<Buffer> {
  const data = Buffer.alloc(size);
  randomBytes(size / 4).copy(data, size / 8);
  await writeFile(place.join('model'), data);
  await place.ok('cp', ['--sparse=always', 'model', 'image']);
  return data;
}

/** @throws Error that tells what differs from `model`, and how to see it again */
export async function exercise(place: Workplace, how: Exercise): Promise<void> {
  const { workers = 1, grain = PAGE, cache, file = 'disk.raw', onStep } = how;
  const steps = Number(STEPS ?? how.steps);
  const deadline = how.deadline ?? START_DEADLINE + steps * STEP_DEADLINE;
  const flags = [
    '--grain',
    String(grain),
    // Where page cache and O_DIRECT meet in one page, nobody promises that they agree.
    ...(grain < PAGE ? ['--no-direct'] : []),
    // Without the cache every write(2) is as with O_DIRECT, and a page that is mapped is in the page cache all
    // the same. The kernel writes the page back and drops it around such a write, but holds off nobody who
    // makes it dirty in between: then the page goes back whole, with what it had of the bytes of the write.
    ...(cache === 'none' ? ['--map-grain', String(PAGE)] : []),
    ...(how.readOnly === true ? ['--read-only'] : []),
    ...(how.errors === true ? ['--errors'] : []),
    ...(how.dropCaches === true ? ['--drop-caches'] : []),
    ...(onStep === undefined ? [] : ['--tell']),
  ];
  const run = (seed: number, what: string): Promise<string> =>
    place.ok('python3', [PROGRAM, file, 'model', String(seed), what, ...flags], {
      deadline,
      onOutput: (text) => {
        if (what === CHECK) return;
        for (const mark of text) {
          if (mark === '.') onStep?.();
          if (mark === '!') how.onError?.();
        }
      },
    });
  const seeds = Array.from({ length: workers }, (_, i) => (how.seed + SEED) * workers + i);
  // All of them end before anybody is told, so that nothing is unmounted under one.
  const ends = await Promise.allSettled(seeds.map((seed) => run(seed, String(steps))));
  const failed = ends.flatMap((end) => (end.status === 'rejected' ? [String(end.reason)] : []));
  if (failed.length > 0) {
    const again = `TSNBDFUSE_SEED=${SEED} TSNBDFUSE_STEPS=${steps}`;
    throw new Error(`${failed.join('\n')}\n(with ${again})`);
  }
  await how.beforeCheck?.();
  await run(0, CHECK);
}
