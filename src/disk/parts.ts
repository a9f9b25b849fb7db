/** Splitting a range into parts that a disk takes. */

import type { Reply } from './disk.js';

/**
 * Runs a step for each item, the next one when the one before is answered, and ends at the first error.
 * It is a loop as well as a callback, as an answer may come at once: recursion would grow with the list.
 * @param reply answered when the last step is, or the first that failed
 */
export function inTurn<T>(
  items: Iterable<T>,
  step: (item: T, next: Reply) => void,
  reply: Reply,
): void {
  const left = items[Symbol.iterator]();
  let looping = false;
  let answered = true;
  const next: Reply = {
    done(code) {
      if (code !== 0) {
        reply.done(code);
        return;
      }
      answered = true;
      if (!looping) loop();
    },
  };
  const loop = (): void => {
    looping = true;
    while (answered) {
      const item = left.next();
      if (item.done === true) {
        looping = false;
        reply.done(0);
        return;
      }
      answered = false;
      step(item.value, next);
    }
    looping = false;
  };
  loop();
}

/** Does one part of a range. */
export type StartPart = (offset: bigint, length: number, reply: Reply) => void;

/** The parts of a range, at most so many bytes each. */
function* partsOf(
  offset: bigint,
  length: bigint,
  most: number,
): Generator<{ offset: bigint; length: number }, void> {
  const end = offset + length;
  for (let at = offset; at < end; at += BigInt(most)) {
    const left = end - at;
    yield { offset: at, length: left > BigInt(most) ? most : Number(left) };
  }
}

/**
 * Does a range part by part, the next one when the one before is answered, and ends at the first error.
 *
 * @param most bytes of a part; where it is a multiple of a block size, inner edges stay aligned to the
 *   offset's block
 * @param reply answered when the last part is, or the first that failed
 */
export function eachPart(
  offset: bigint,
  length: bigint,
  most: number,
  reply: Reply,
  start: StartPart,
): void {
  if (length <= BigInt(most)) {
    start(offset, Number(length), reply);
    return;
  }
  inTurn(
    partsOf(offset, length, most),
    (part, next) => start(part.offset, part.length, next),
    reply,
  );
}
