/**
 * How much room a disk takes at its server, which is what stat(2) tells as st_blocks. By it du, ls -s and
 * tar -S see that a file is sparse, and cp looks for holes only in a file with fewer blocks than its size.
 *
 * Allocated is what the server does not call a hole, whatever a read gives there: as in any file system,
 * where a preallocated range has blocks and lseek(2) finds a hole in it all the same. It decides nothing
 * about content, so that it need not be exact at any time: while the server has not told, or cannot, a
 * range counts as allocated, and what is written counts until the disk is asked again.
 */

import type { Disk, Extent, Reply } from './disk.js';
import { inTurn } from './parts.js';

/** Milliseconds from the start of a count for which a stat waits for its end. */
const PATIENCE = 250;
/** Between two counts lies this much more time than one takes, so that stat in a loop asks little. */
const REST = 20;
/**
 * How often the server is asked in one count, at the most. With 32-bit requests that is 256 TiB; what
 * lies behind counts as allocated.
 */
const MAX_REQUESTS = 65536;

/** One walk over the disk. */
interface Count {
  readonly startedAt: number;
  /** Up to where the disk has told. */
  at: bigint;
  /** How many bytes are holes, of what was seen so far. */
  holes: bigint;
  /** Who waits for the end, or until patience is over. */
  waiting: (() => void)[];
  timer: NodeJS.Timeout | undefined;
}

export class Allocation {
  readonly #disk: Disk;
  readonly #underWay: () => number;
  readonly #now: () => number;
  /** By the last count; all of the disk before the first. */
  #counted: bigint;
  /** Written since the start of the last count that is over, as if none of it had been allocated. */
  #written = 0n;
  /** As `#written`, since the start of the count that is going on. */
  #writtenMeanwhile = 0n;
  /** Something has changed since the last count began, or there was none. */
  #stale: boolean;
  #count: Count | undefined;
  /** When the next count may begin. */
  #restsUntil = Number.NEGATIVE_INFINITY;
  #stopped = false;

  /**
   * @param underWay how many changes of the disk are not answered yet: a count may miss them
   * @param now milliseconds
   */
  constructor(disk: Disk, underWay: () => number, now: () => number = () => performance.now()) {
    this.#disk = disk;
    this.#underWay = underWay;
    this.#now = now;
    this.#counted = disk.info.size;
    this.#stale = disk.info.canExtents;
  }

  /** As far as it is known by now. */
  get bytes(): bigint {
    const { size } = this.#disk.info;
    const most = this.#counted + this.#written + this.#writtenMeanwhile;
    // Until there is a count, what the first one has seen is worth telling.
    const seen = this.#counted === size ? most - (this.#count?.holes ?? 0n) : most;
    return seen > size ? size : seen;
  }

  /** A range is being written, or zeroed for good. */
  written(length: bigint): void {
    this.#stale = this.#disk.info.canExtents;
    if (this.#count === undefined) this.#written += length;
    else this.#writtenMeanwhile += length;
  }

  /** Something may have changed that need not take more room. */
  changed(): void {
    this.#stale = this.#disk.info.canExtents;
  }

  /**
   * Counts if there is something new to count, and calls back once when `bytes` is as good as can be had
   * without a long wait: at once, or a moment later.
   */
  refresh(done: () => void): void {
    if (this.#count === undefined && this.#stale && !this.#stopped) {
      if (this.#now() >= this.#restsUntil) this.#start();
    }
    // A disk may have answered at once.
    const count = this.#count;
    const patience = count === undefined ? 0 : count.startedAt + PATIENCE - this.#now();
    if (count === undefined || patience <= 0) {
      done();
      return;
    }
    count.waiting.push(done);
    count.timer ??= setTimeout(() => tellAll(count), patience);
  }

  #start(): void {
    const count: Count = {
      startedAt: this.#now(),
      at: 0n,
      holes: 0n,
      waiting: [],
      timer: undefined,
    };
    this.#count = count;
    this.#stale = this.#underWay() > 0;
    inTurn(this.#places(count), (at, next) => this.#ask(count, at, next), {
      // What it failed to tell counts as allocated.
      done: () => this.#finish(count),
    });
  }

  *#places(count: Count): Generator<bigint, void> {
    const { size } = this.#disk.info;
    for (let i = 0; i < MAX_REQUESTS && count.at < size && !this.#stopped; i++) yield count.at;
  }

  #ask(count: Count, at: bigint, next: Reply): void {
    const { size } = this.#disk.info;
    this.#disk.extents(at, size - at, {
      extents(extents: readonly Extent[]) {
        for (const extent of extents) {
          // The last one may reach further than the disk.
          const left = size - count.at;
          const length = extent.length < left ? extent.length : left;
          if (extent.hole) count.holes += length;
          count.at += length;
        }
        next.done(0);
      },
      fail: (code) => next.done(code),
    });
  }

  #finish(count: Count): void {
    const now = this.#now();
    this.#count = undefined;
    this.#counted = this.#disk.info.size - count.holes;
    this.#written = this.#writtenMeanwhile;
    this.#writtenMeanwhile = 0n;
    this.#restsUntil = now + REST * (now - count.startedAt);
    tellAll(count);
  }

  /** The disk is not asked any more, and nobody waits. */
  stop(): void {
    this.#stopped = true;
    if (this.#count !== undefined) tellAll(this.#count);
  }
}

function tellAll(count: Count): void {
  clearTimeout(count.timer);
  count.timer = undefined;
  const { waiting } = count;
  count.waiting = [];
  for (const tell of waiting) tell();
}
