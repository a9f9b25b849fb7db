/** Holds a dialogue with bytes that are there already, without a socket. */

import type { Dialogue } from '../../src/transport/dialogue.js';

export interface Held<T> {
  readonly sent: Buffer;
  /** What the dialogue was not interested in. */
  readonly left: Buffer;
  /** The most that it asked for at once. */
  readonly mostNeeded: number;
  /** Whether it ended; it waits for more input otherwise. */
  readonly ended: boolean;
  readonly result?: T;
  readonly error?: unknown;
}

export function hold<T>(dialogue: Dialogue<T>, input: Buffer): Held<T> {
  const sent: Buffer[] = [];
  let at = 0;
  let mostNeeded = 0;
  const held = (rest: Partial<Held<T>>): Held<T> => ({
    sent: Buffer.concat(sent),
    left: input.subarray(at),
    mostNeeded,
    ended: true,
    ...rest,
  });
  try {
    let step = dialogue.next(Buffer.alloc(0));
    while (step.done !== true) {
      if ('send' in step.value) {
        sent.push(Buffer.from(step.value.send));
        step = dialogue.next(Buffer.alloc(0));
        continue;
      }
      const { need } = step.value;
      mostNeeded = Math.max(mostNeeded, need);
      if (at + need > input.length) return held({ ended: false });
      at += need;
      step = dialogue.next(input.subarray(at - need, at));
    }
    return held({ result: step.value });
  } catch (error) {
    return held({ error });
  }
}
