/**
 * The memory for the payloads of all clients together. Who finds none waits for its turn, and a client
 * that keeps what others wait for, by sending a payload slowly or by not reading its replies, is cut
 * off: so the memory is bounded, and nobody can take it away from the others for long.
 */

/** For all clients; the longest request fits in it several times. */
const SHARED_BYTES = 256 * 1024 * 1024;
/**
 * A client that keeps some of it while others wait has to send or to take so much in so many milliseconds, which
 * any line can: as long as it does not, nothing of it will be free soon.
 */
const PROGRESS_BYTES = 64 * 1024;
const PATIENCE = 3_000;
/** Milliseconds after which it has to be done with what it keeps, however busy it is. */
const MOST_PATIENCE = 30_000;
/** Milliseconds between two looks at who keeps it, while somebody waits. */
const LOOK_EVERY = 500;

export interface Holder {
  /** How much it has sent and taken so far, in bytes. */
  readonly movedBytes: number;
  /** It is its turn, if it still waits for memory. */
  memoryFree(): void;
  /** Others wait for what it keeps: it has to let go of all. */
  evict(): void;
}

/** Memory that is set aside for one request. */
export interface Lease {
  readonly holder: Holder;
  readonly bytes: number;
  /** Since when it is the client who keeps it, and not the disk; in milliseconds. */
  since: number;
  /** When it was last seen to get on, and what it had moved by then. */
  seen: number;
  movedBytes: number;
}

export interface SharedMemoryOptions {
  readonly bytes?: number;
  /** Milliseconds without progress. */
  readonly patience?: number;
}

export class SharedMemory {
  readonly #limit: number;
  readonly #patience: number;
  #used = 0;
  /** What clients keep. */
  readonly #withClients = new Set<Lease>();
  /** In the order of their turns. */
  readonly #waiting = new Set<Holder>();
  #looking: NodeJS.Timeout | undefined;
  /** When that was, or when it was begun. */
  #lookedAt = 0;

  constructor({ bytes = SHARED_BYTES, patience = PATIENCE }: SharedMemoryOptions = {}) {
    this.#limit = bytes;
    this.#patience = patience;
  }

  /** How much is set aside, in bytes. */
  get usedBytes(): number {
    return this.#used;
  }

  /**
   * Whether so much can be taken now. Who hears no is in the queue, and is told by `memoryFree`; nobody
   * overtakes it. A request that is longer than all there is gets its turn when nothing is used.
   */
  ask(holder: Holder, bytes: number): boolean {
    const [first = holder] = this.#waiting;
    const fits = this.#used + bytes <= this.#limit || this.#used === 0;
    if (fits && first === holder) return true;
    this.#waiting.add(holder);
    if (this.#looking === undefined) {
      this.#lookedAt = performance.now();
      this.#looking = setInterval(() => this.#look(), Math.min(LOOK_EVERY, this.#patience)).unref();
    }
    return false;
  }

  /** Takes what `ask` has just said yes to. */
  take(holder: Holder, bytes: number): Lease {
    this.#used += bytes;
    this.leave(holder);
    return { holder, bytes, since: 0, seen: 0, movedBytes: 0 };
  }

  /** From now on the client is who keeps it. */
  withClient(lease: Lease): void {
    lease.since = lease.seen = performance.now();
    lease.movedBytes = lease.holder.movedBytes;
    this.#withClients.add(lease);
  }

  /** From now on the disk is. */
  withDisk(lease: Lease): void {
    this.#withClients.delete(lease);
  }

  giveBack(lease: Lease): void {
    this.#withClients.delete(lease);
    this.#used -= lease.bytes;
    this.#next();
  }

  /** Waits no more. */
  leave(holder: Holder): void {
    if (this.#waiting.delete(holder)) this.#next();
  }

  #next(): void {
    const [first] = this.#waiting;
    if (first !== undefined) {
      first.memoryFree();
      return;
    }
    clearInterval(this.#looking);
    this.#looking = undefined;
  }

  #look(): void {
    const now = performance.now();
    const gap = now - this.#lookedAt;
    this.#lookedAt = now;
    for (const lease of this.#withClients) {
      if (this.#waiting.size === 0) return;
      if (gap > 2 * LOOK_EVERY) {
        // This process was stopped: none of it is theirs.
        lease.since += gap;
        lease.seen += gap;
      }
      const { holder, since } = lease;
      if (holder.movedBytes - lease.movedBytes >= PROGRESS_BYTES) {
        lease.movedBytes = holder.movedBytes;
        lease.seen = now;
      }
      if (now - lease.seen > this.#patience || now - since > MOST_PATIENCE) holder.evict();
    }
  }
}
