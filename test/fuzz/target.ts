/** What can be fuzzed: inputs that are made up, and what has to hold whatever they are. */

import { setImmediate as turn } from 'node:timers/promises';
import type fc from 'fast-check';

export interface Target<Input> {
  readonly name: string;
  /** Of buffers, numbers, strings and lists of them: see findings.ts, which keeps them as files. */
  readonly inputs: fc.Arbitrary<Input>;
  /** How many messages of a protocol an input has. */
  frames(input: Input): number;
  /** @throws whatever is a finding */
  run(input: Input): void | Promise<void>;
}

/** Turns of the event loop after which what has not ended hangs: each piece of a stream takes one. */
const MOST_TURNS = 20_000;

/** Gives what the promise does. @throws Error when that takes too many turns of the event loop */
export async function settled<T>(promise: Promise<T>, what: string): Promise<T> {
  const state = { over: false };
  const end = (): void => void (state.over = true);
  promise.then(end, end);
  for (let turns = 0; !state.over; turns++) {
    if (turns === MOST_TURNS) throw new Error(`${what} has not ended in ${MOST_TURNS} turns`);
    await turn();
  }
  return promise;
}
