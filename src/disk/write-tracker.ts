/** Knows whether anything was written that no flush has covered, and which write failed first. */

import type { Owner } from '../buffer-pool.js';
import type { Reply } from './disk.js';

/** A flush covers the writes that were answered before it was sent, and no others (doc/proto.md, FLUSH). */
export class WriteTracker {
  /** How many writes were answered. */
  #answered = 0;
  /** How many of them a flush has covered. */
  #covered = 0;
  #underWay = 0;
  readonly #free: TrackedReply[] = [];
  readonly #failed: (code: number, offset: bigint) => void;
  readonly #changed: ((offset: bigint, length: bigint) => void) | undefined;

  /**
   * @param failed told of each write that failed, with its positive errno and where it was
   * @param changed told of each range that was, or may have been, written
   */
  constructor(
    failed: (code: number, offset: bigint) => void,
    changed?: (offset: bigint, length: bigint) => void,
  ) {
    this.#failed = failed;
    this.#changed = changed;
  }

  /**
   * The reply for a write, zero or trim: it goes on to `reply`, and is counted.
   * @param durable it needs no flush when it has succeeded
   */
  tracked(reply: Reply, offset: bigint, length: bigint, durable = false): Reply {
    const tracked = this.#free.pop() ?? new TrackedReply(this);
    tracked.next = reply;
    tracked.offset = offset;
    tracked.length = length;
    tracked.durable = durable;
    this.#underWay++;
    return tracked;
  }

  /** How many are not answered yet. */
  get underWay(): number {
    return this.#underWay;
  }

  /** Only for TrackedReply. */
  answered(tracked: TrackedReply, code: number): void {
    // Also a write that failed may have changed a part of its range.
    if (!tracked.durable || code !== 0) this.#answered++;
    this.#underWay--;
    this.#free.push(tracked);
    if (code !== 0) this.#failed(code, tracked.offset);
    this.#changed?.(tracked.offset, tracked.length);
  }

  /**
   * Take it before a flush is sent, and give it back to `flushed` when that has succeeded. Undefined
   * if there is nothing to flush; a write that is under way counts as something.
   */
  mark(): number | undefined {
    return this.#answered === this.#covered && this.#underWay === 0 ? undefined : this.#answered;
  }

  flushed(mark: number): void {
    if (mark > this.#covered) this.#covered = mark;
  }
}

/** Kept and used again, so that a write allocates nothing. */
class TrackedReply implements Reply {
  next: Reply | undefined;
  offset = 0n;
  length = 0n;
  durable = false;
  readonly #tracker: WriteTracker;

  constructor(tracker: WriteTracker) {
    this.#tracker = tracker;
  }

  keep(): Owner | undefined {
    return this.next?.keep?.();
  }

  done(code: number): void {
    const { next } = this;
    this.next = undefined;
    this.#tracker.answered(this, code);
    next?.done(code);
  }
}
