/** Locks on ranges of a disk, for requests that must not meet. First come, first served. */

interface Holder {
  readonly start: bigint;
  readonly end: bigint;
  readonly run: (release: () => void) => void;
  running: boolean;
}

export class RangeLock {
  // In the order of asking; few at any time, as each belongs to a request in flight.
  readonly #holders: Holder[] = [];

  /**
   * Calls `run`, at once or later, when nothing that was asked for before overlaps the bytes from
   * `start` to `end` any more. They are locked until it calls `release`.
   */
  whenFree(start: bigint, end: bigint, run: (release: () => void) => void): void {
    const holder: Holder = { start, end, run, running: false };
    this.#holders.push(holder);
    if (this.#isFree(holder)) this.#start(holder);
  }

  #start(holder: Holder): void {
    holder.running = true;
    holder.run(() => this.#release(holder));
  }

  #release(holder: Holder): void {
    const at = this.#holders.indexOf(holder);
    if (at < 0) return;
    this.#holders.splice(at, 1);
    for (const waiting of this.#holders.filter((one) => !one.running)) {
      // One that starts here may release others, which then start from there.
      if (!waiting.running && this.#isFree(waiting)) this.#start(waiting);
    }
  }

  #isFree(holder: Holder): boolean {
    for (const before of this.#holders) {
      if (before === holder) return true;
      if (before.start < holder.end && holder.start < before.end) return false;
    }
    return false;
  }
}
