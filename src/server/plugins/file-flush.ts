/**
 * Flushes of one file, for all clients. While one is under way, those that are asked for wait, and
 * then share the next one: it covers all that was answered before they came.
 */

import type { Reply } from '../../disk/disk.js';

export class FileFlush {
  readonly #sync: (done: (code: number) => void) => void;
  #waiting: Reply[] = [];
  #running = false;
  #failed = 0;

  /** @param sync makes durable what is written by the time of the call; tells 0 or a positive errno */
  constructor(sync: (done: (code: number) => void) => void) {
    this.#sync = sync;
  }

  /**
   * Once one has failed, all fail. The system tells of a lost write only once, and takes it for
   * written from then on, but each client has to hear that what it wrote may not be there.
   */
  request(reply: Reply): void {
    this.#waiting.push(reply);
    if (!this.#running) this.#next();
  }

  #next(): void {
    const covered = this.#waiting;
    this.#waiting = [];
    this.#running = true;
    this.#sync((code) => {
      this.#running = false;
      if (code !== 0) this.#failed = code;
      if (this.#waiting.length > 0) this.#next();
      for (const reply of covered) reply.done(this.#failed);
    });
  }
}
