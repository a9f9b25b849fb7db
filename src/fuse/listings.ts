/** The open directories of a mount, each with what was in it when it was opened. */

import type { Entry } from './tree.js';

export class Listings {
  readonly #listings = new Map<bigint, readonly Entry[]>();
  #next = 1n;

  /** @returns the number by which the kernel names it, `fh` */
  add(entries: readonly Entry[]): bigint {
    const fh = this.#next++;
    this.#listings.set(fh, entries);
    return fh;
  }

  /** Empty if there is no such listing. */
  get(fh: bigint): readonly Entry[] {
    return this.#listings.get(fh) ?? [];
  }

  remove(fh: bigint): void {
    this.#listings.delete(fh);
  }
}
