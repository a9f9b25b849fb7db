/** Makes connections in the place of those of several that were lost, while the others carry on. */

import { setTimeout as sleep } from 'node:timers/promises';
import { traceNbd } from '../trace.js';
import type { OwnForm } from './connection-pool.js';
import type { OpenedExport } from './open.js';
import { Attempts } from './reconnect.js';
import type { Open } from './reconnect.js';

/** Milliseconds: when a server ends, its connections do not all end at once. */
const SETTLE = 200;

export interface Refilled {
  /** The form of a connection that is missing now, if one is. */
  missing(): OwnForm | undefined;
  /** Adds one that was made, or closes it. */
  join(opened: OpenedExport): Promise<void>;
}

export class Refill {
  readonly #open: Open;
  readonly #disk: Refilled;
  readonly #stop = new AbortController();
  #running = false;

  constructor(open: Open, disk: Refilled) {
    this.#open = open;
    this.#disk = disk;
  }

  /** Connections may be missing. */
  need(): void {
    if (this.#running || this.#stop.signal.aborted) return;
    this.#running = true;
    this.#run()
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted) throw error;
      })
      .finally(() => (this.#running = false));
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    await sleep(SETTLE, undefined, { signal });
    let form = this.#disk.missing();
    // The server has not ended, so that its place is known.
    const attempts = new Attempts((ends) => this.#open(ends, 0, form === 'structured'));
    for (; form !== undefined; form = this.#disk.missing()) {
      const opened = await attempts.open(signal, (error) =>
        traceNbd('no further connection: %s', error),
      );
      await this.#disk.join(opened);
    }
  }

  stop(): void {
    this.#stop.abort();
  }
}
