/** Splitting a range into parts that a disk takes. */

import type { Reply } from './disk.js';

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
  start: (offset: bigint, length: number, reply: Reply) => void,
): void {
  if (length <= BigInt(most)) {
    start(offset, Number(length), reply);
    return;
  }
  let at = offset;
  const end = offset + length;
  // A loop as well as a callback, as an answer may come at once: recursion would grow with the range.
  let running = false;
  let answered = true;
  const partReply: Reply = {
    done(code) {
      if (code !== 0 || at === end) {
        answered = false;
        reply.done(code);
        return;
      }
      answered = true;
      if (!running) run();
    },
  };
  const run = (): void => {
    running = true;
    while (answered) {
      answered = false;
      const left = end - at;
      const part = left > BigInt(most) ? most : Number(left);
      const from = at;
      at += BigInt(part);
      start(from, part, partReply);
    }
    running = false;
  };
  run();
}
