/**
 * Finds commands that a server does not answer, with one coarse timer for a connection, which runs only
 * while something is in flight.
 */

import type { CommandType } from './constants.js';
import { Command } from './constants.js';
import type { InFlight, PendingCommand } from './in-flight.js';

/** How often is looked within the deadline, and the most milliseconds between two looks. */
const LOOKS = 8;
const MAX_INTERVAL = 1000;

/** For each of so many bytes a command may take its deadline once more, up to so many times. */
const SLOW_BYTES = 1024 * 1024 * 1024;
const MOST_EXTRA = 4;

/** @param deadline milliseconds for a command @returns the most that any command may take that moves nothing */
export const mostMilliseconds = (deadline: number): number => deadline * (1 + MOST_EXTRA);

export class StallWatch {
  readonly #inFlight: InFlight;
  readonly #interval: number;
  /** How many looks the deadline has. */
  readonly #patience: number;
  readonly #moved: () => number;
  readonly #stalled: () => void;
  #timer: NodeJS.Timeout | undefined;
  #tick = 0;
  #lastMoved = 0;
  /** Bytes that were written since the last flush, about: the next one may have to wait for them. */
  #dirty = 0;
  #flushing = false;

  /**
   * @param deadline milliseconds for a command
   * @param moved how many bytes the connection has sent and received
   * @param stalled called when a command is not answered in time; the watch ends then
   */
  constructor(inFlight: InFlight, deadline: number, moved: () => number, stalled: () => void) {
    this.#inFlight = inFlight;
    this.#interval = Math.max(1, Math.min(MAX_INTERVAL, deadline / LOOKS));
    this.#patience = Math.ceil(deadline / this.#interval);
    this.#moved = moved;
    this.#stalled = stalled;
  }

  /**
   * A command is in flight.
   * @param due how many bytes the connection will have moved when all is sent that was to be sent, and all
   *   is received that was asked for
   */
  started(command: PendingCommand, due: number): void {
    command.since = this.#tick;
    command.due = due;
    if (command.type === Command.WRITE) this.#dirty += command.length;
    else if (command.type === Command.FLUSH) this.#flushing = true;
    this.#lookLater();
  }

  #lookLater(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#look();
    }, this.#interval);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    this.#forgetFlushed();
    if (this.#inFlight.count === 0) return;
    const tick = ++this.#tick;
    const moved = this.#moved();
    const moves = moved !== this.#lastMoved;
    this.#lastMoved = moved;
    for (const command of this.#inFlight) {
      // On a slow line a command waits for the data of those before it, and for its own, as long as they
      // move. Once as much has passed as there was before it, others may not hold it up for ever.
      if (moves && moved < command.due) command.since = tick;
      // The first look may come right after it was sent.
      else if (tick - command.since > this.#patience * this.#share(command)) {
        this.#stalled();
        return;
      }
    }
    this.#lookLater();
  }

  #forgetFlushed(): void {
    if (!this.#flushing) return;
    for (const { type } of this.#inFlight) if (type === Command.FLUSH) return;
    this.#flushing = false;
    this.#dirty = 0;
  }

  /** How many deadlines it may take: zeroing, trimming and flushing may be much work that moves nothing. */
  #share({ type, length }: PendingCommand): number {
    const work = isRange(type) ? length : type === Command.FLUSH ? this.#dirty : 0;
    return 1 + Math.min(MOST_EXTRA, Math.floor(work / SLOW_BYTES));
  }
}

const isRange = (type: CommandType): boolean =>
  type === Command.WRITE_ZEROES || type === Command.TRIM;
