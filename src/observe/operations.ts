/** What a mount has done so far: how often, how much, how long it took. Fed by each request, at next to no cost. */

import { Histogram } from './histogram.js';

/** A flush is one of the disk: an fsync or a close with nothing new to be made safe asks for none. */
export const OPERATIONS = ['read', 'write', 'flush', 'trim', 'zero'] as const;
export type OperationName = (typeof OPERATIONS)[number];

/** Of one kind. Counts are exact up to 2^53. */
export class OperationCounter {
  /** How many succeeded. */
  count = 0;
  bytes = 0;
  /** How many failed; these are in nothing else. */
  errors = 0;
  /** From the request to its answer. */
  readonly latency = new Histogram();

  /** @param begun milliseconds of performance.now() */
  succeeded(bytes: number, begun: number): void {
    this.count++;
    this.bytes += bytes;
    this.latency.add(performance.now() - begun);
  }

  /** @param code 0, or the errno that it failed with */
  answered(code: number, bytes: number, begun: number): void {
    if (code === 0) this.succeeded(bytes, begun);
    else this.errors++;
  }
}

export type Operations = Readonly<Record<OperationName, OperationCounter>>;

export function makeOperations(): Operations {
  return {
    read: new OperationCounter(),
    write: new OperationCounter(),
    flush: new OperationCounter(),
    trim: new OperationCounter(),
    zero: new OperationCounter(),
  };
}
