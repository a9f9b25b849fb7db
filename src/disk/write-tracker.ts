/** Knows whether anything was written that no flush has covered. */

import type { Reply } from './disk.js';

/** A flush covers the writes that were answered before it was sent, and no others (doc/proto.md, FLUSH). */
export class WriteTracker {
  /** How many writes were answered. */
  #answered = 0;
  /** How many of them a flush has covered. */
  #covered = 0;
  #underWay = 0;
  readonly #free: TrackedReply[] = [];

  /** The reply for a write, zero or trim: it goes on to `reply`, and is counted. */
  tracked(reply: Reply): Reply {
    const tracked = this.#free.pop() ?? new TrackedReply(this);
    tracked.next = reply;
    this.#underWay++;
    return tracked;
  }

  /** Only for TrackedReply. */
  answered(tracked: TrackedReply): void {
    // Also a write that failed may have changed a part of its range.
    this.#answered++;
    this.#underWay--;
    this.#free.push(tracked);
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
  readonly #tracker: WriteTracker;

  constructor(tracker: WriteTracker) {
    this.#tracker = tracker;
  }

  done(code: number): void {
    const { next } = this;
    this.next = undefined;
    this.#tracker.answered(this);
    next?.done(code);
  }
}
