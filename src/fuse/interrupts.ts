/**
 * Lets those go who are being killed while they wait for a reply, however long the server takes. A disk does
 * not fail a read with EINTR, so that any other signal is handled when the reply is there.
 *
 * The kernel tells of a signal (INTERRUPT), but of the first one only, and of none at all while somebody waits
 * for a direct read, which it has cut into requests that nobody waits for. So it is looked at who asks what is
 * not answered soon.
 */

import type { Fate } from './fate.js';
import type { FuseRequest } from './request.js';

/** Milliseconds between two looks; what was there in two of them is looked at closely. */
export const LOOK_INTERVAL = 250;
/**
 * Looks that tell nothing, after which a READ is given up all the same if there was a signal: who waits that
 * long is likely being killed.
 */
const PATIENCE = 20;

export class Interrupts {
  readonly #requests: readonly FuseRequest[];
  readonly #fateOf: (pid: number) => Fate;
  #timer: NodeJS.Timeout | undefined;

  /** @param requests also those that are answered by now */
  constructor(requests: readonly FuseRequest[], fateOf: (pid: number) => Fate) {
    this.#requests = requests;
    this.#fateOf = fateOf;
  }

  /** There is a request that may have to wait. */
  watch(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.#look(), LOOK_INTERVAL).unref();
  }

  /** Whoever waits for the reply to a request has a signal pending. */
  signalled(uniqueLow: number, uniqueHigh: number): void {
    const request = this.#requests.find(
      (one) =>
        one.interruptible &&
        one.uniqueLow >>> 0 === uniqueLow >>> 0 &&
        one.uniqueHigh === uniqueHigh,
    );
    if (request === undefined) return;
    request.signalled = true;
    this.#consider(request, this.#fateOf(request.pid));
  }

  #look(): void {
    this.#timer = undefined;
    // Many requests may be of few threads.
    const fates = new Map<number, Fate>();
    let any = false;
    for (const request of this.#requests) {
      if (!request.interruptible) continue;
      any = true;
      if (request.looks++ === 0) continue;
      const { pid } = request;
      const fate = fates.get(pid) ?? this.#fateOf(pid);
      fates.set(pid, fate);
      this.#consider(request, fate);
    }
    if (any) this.watch();
  }

  #consider(request: FuseRequest, fate: Fate): void {
    if (fate === 'dying') request.interrupt();
    else if (fate === 'unknown' && request.signalled && request.looks > PATIENCE) {
      // Anything else could be taken for one that failed.
      if (request.isRead) request.interrupt();
    }
  }
}
