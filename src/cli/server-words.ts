/** What a captive server says on its standard error, where it is not simply the user's own. */

import type { Readable } from 'node:stream';
import { within } from '../deadline.js';

/** Characters that are kept of a server that says more than anybody reads. */
const MOST = 8192;
/** Milliseconds for the last words of a server that has ended. */
const LAST_WORDS = 500;

/**
 * Keeps what a server says until it serves: should it end before, that is the reason, and part of one line. All
 * that it says later, and what was kept, is passed on.
 */
export class ServerWords {
  #kept = '';
  #passOn: ((text: string) => void) | undefined;
  readonly #ended: Promise<void>;

  constructor(stream: Readable) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      if (this.#passOn === undefined) this.#kept = (this.#kept + text).slice(0, MOST);
      else this.#passOn(text);
    });
    this.#ended = new Promise((resolve) => {
      stream.once('close', resolve).once('error', () => resolve());
    });
  }

  /** From now on each word goes to `passOn`, and those that were kept before them. */
  passOn(passOn: (text: string) => void): void {
    const kept = this.#kept;
    this.#kept = '';
    this.#passOn = passOn;
    if (kept !== '') passOn(kept);
  }

  /** What a server has said that has ended, as far as it was not passed on. */
  async last(): Promise<string> {
    // What it has left behind may hold the pipe.
    await within(this.#ended, LAST_WORDS);
    return this.#kept.trim();
  }
}
