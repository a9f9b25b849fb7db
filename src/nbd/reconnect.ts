/** Attempts to reach a server again, further and further apart. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenedExport } from './open.js';

/** Milliseconds between the first two attempts, doubled from then on up to the second. */
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 5_000;
/** By so much a pause is longer or shorter than that, so that the clients of a server do not come all at once. */
const JITTER = 0.25;

/**
 * Makes one attempt.
 * @param failed how many were made before it
 * @param structuredReplies whether they are asked for
 * @throws whatever it failed with
 */
export type Open = (
  signal: AbortSignal,
  failed: number,
  structuredReplies: boolean,
) => Promise<OpenedExport>;

export class Attempts {
  readonly #open: (signal: AbortSignal, failed: number) => Promise<OpenedExport>;
  #made = 0;

  constructor(open: (signal: AbortSignal, failed: number) => Promise<OpenedExport>) {
    this.#open = open;
  }

  /**
   * Tries until it works. Called again, for a connection that did not last, it goes on as if it had not worked.
   * @param failed told what each attempt failed with
   * @throws the signal's reason
   */
  async open(signal: AbortSignal, failed: (error: unknown) => void): Promise<OpenedExport> {
    for (;;) {
      if (this.#made > 0) await sleep(pauseAfter(this.#made), undefined, { signal });
      try {
        const opened = await this.#open(signal, this.#made++);
        if (!signal.aborted) return opened;
        opened.transport.close();
      } catch (error) {
        signal.throwIfAborted();
        failed(error);
      }
      signal.throwIfAborted();
    }
  }
}

function pauseAfter(attempts: number): number {
  const pause = Math.min(FIRST_PAUSE * 2 ** (attempts - 1), LONGEST_PAUSE);
  return pause * (1 + JITTER * (2 * Math.random() - 1));
}
