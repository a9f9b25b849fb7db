/** What comes in between: signals that ask us to end, and errors that nobody caught. */

import { InternalError, Interrupted } from './errors.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export type Interruption =
  | { readonly kind: 'signal'; readonly signal: NodeJS.Signals }
  /** A bug of ours. */
  | { readonly kind: 'crash'; readonly error: unknown };

/** A queue of interruptions; while it is open, none of them ends the process. */
export class Interruptions {
  readonly #queue: Interruption[] = [];
  #wake: (() => void) | undefined;
  #next: Promise<Interruption> | undefined;
  #crashed = false;

  readonly #signalled = (signal: NodeJS.Signals): void => this.#add({ kind: 'signal', signal });

  readonly #crash = (error: unknown): void => {
    // One is enough to end; the ones after it would most likely come from the same place.
    if (this.#crashed) return;
    this.#crashed = true;
    this.#add({ kind: 'crash', error });
  };

  constructor() {
    for (const signal of SIGNALS) process.on(signal, this.#signalled);
    // Covers rejections that nobody handles as well.
    process.on('uncaughtException', this.#crash);
  }

  #add(interruption: Interruption): void {
    this.#queue.push(interruption);
    this.#wake?.();
  }

  /** Resolves with the oldest one; the same promise until that one is taken. */
  get next(): Promise<Interruption> {
    this.#next ??= this.#oldest();
    return this.#next;
  }

  async #oldest(): Promise<Interruption> {
    for (;;) {
      const [oldest] = this.#queue;
      if (oldest !== undefined) return oldest;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** The signal that nobody has taken yet, if there is one. */
  get pendingSignal(): NodeJS.Signals | undefined {
    return this.#queue.find((interruption) => interruption.kind === 'signal')?.signal;
  }

  /** Drops the oldest one. */
  take(): void {
    this.#queue.shift();
    this.#next = undefined;
  }

  /**
   * What a promise gives, unless an interruption comes first.
   * @param dispose gets what the promise gives after that, when nobody wants it any more; never rejects
   * @throws Interrupted; InternalError
   */
  async orEarlier<T>(promise: Promise<T>, dispose?: (late: T) => unknown): Promise<T> {
    const stopped = this.next.then((interruption): never => {
      if (interruption.kind === 'crash') {
        this.take();
        throw new InternalError(interruption.error);
      }
      throw new Interrupted(interruption.signal);
    });
    stopped.catch(() => undefined);
    try {
      return await Promise.race([promise, stopped]);
    } catch (error) {
      if (dispose !== undefined) promise.then(dispose, () => undefined);
      throw error;
    }
  }

  /** @returns an error that nobody took, if there is one */
  close(): InternalError | undefined {
    for (const signal of SIGNALS) process.off(signal, this.#signalled);
    process.off('uncaughtException', this.#crash);
    const left = this.#queue.find((interruption) => interruption.kind === 'crash');
    return left === undefined ? undefined : new InternalError(left.error);
  }
}
