/**
 * What one client holds of the server's memory: first of a share that is its own, so that its ordinary
 * requests are served whatever the others do, and beyond that of what all have together.
 */

import type { Request } from './request.js';
import type { Holder, SharedMemory } from './shared-memory.js';

/** Of each client: several requests of the size that clients like. */
export const OWN_BYTES = 2 * 1024 * 1024;

export class ClientMemory {
  readonly #shared: SharedMemory;
  readonly #holder: Holder;
  #own = 0;
  #held = 0;

  constructor(shared: SharedMemory, holder: Holder) {
    this.#shared = shared;
    this.#holder = holder;
  }

  /** In bytes. */
  get heldBytes(): number {
    return this.#held;
  }

  /** Whether there is room for so much; if not, `Holder.memoryFree` tells when to ask again. */
  ask(bytes: number): boolean {
    if (this.#own + bytes > OWN_BYTES) return this.#shared.ask(this.#holder, bytes);
    this.#shared.leave(this.#holder);
    return true;
  }

  /** Asks no more. */
  leave(): void {
    this.#shared.leave(this.#holder);
  }

  /** Sets aside for a request what `ask` has just said yes to. */
  hold(request: Request, bytes: number): void {
    this.#held += bytes;
    request.heldBytes = bytes;
    if (this.#own + bytes <= OWN_BYTES) this.#own += bytes;
    else request.lease = this.#shared.take(this.#holder, bytes);
  }

  /** How long it is held is up to the client from now on: it has to send the rest, or to take it. */
  withClient({ lease }: Request): void {
    if (lease !== undefined) this.#shared.withClient(lease);
  }

  /** How long it is held is up to the disk from now on. */
  withDisk({ lease }: Request): void {
    if (lease !== undefined) this.#shared.withDisk(lease);
  }

  release(request: Request): void {
    const { lease, heldBytes } = request;
    this.#held -= heldBytes;
    request.heldBytes = 0;
    request.lease = undefined;
    if (lease === undefined) this.#own -= heldBytes;
    else this.#shared.giveBack(lease);
  }
}
