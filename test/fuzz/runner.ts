/** Runs targets with inputs that a seed repeats, and counts. */

import fc from 'fast-check';
import type { Finding } from './findings.js';
import type { Target } from './target.js';

/** What has gone through. */
export interface Tally {
  cases: number;
  frames: number;
}

export interface RunOptions {
  readonly seed: number;
  /** How many inputs. */
  readonly cases: number;
  readonly tally: Tally;
  /** Told of each input before it is used. */
  readonly beat?: () => void;
}

/** @returns the smallest input that was found to go wrong, or undefined */
export async function fuzz(
  target: Target<unknown>,
  { seed, cases, tally, beat }: RunOptions,
): Promise<Finding | undefined> {
  const property = fc.asyncProperty(target.inputs, async (input) => {
    beat?.();
    tally.cases++;
    tally.frames += target.frames(input);
    await target.run(input);
  });
  const result = await fc.check(property, { seed, numRuns: cases });
  if (!result.failed) return undefined;
  const { errorInstance, counterexample } = result;
  const why =
    errorInstance instanceof Error
      ? (errorInstance.stack ?? errorInstance.message)
      : 'no input of the kind could be made';
  return { target: target.name, why, input: counterexample?.[0] };
}
