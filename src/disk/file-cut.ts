/**
 * What a file owes to those who have cut it to nothing: what they skip before they close it is zeroed, and
 * nothing is written beside that. See truncation.ts.
 */

import type { Cut, Cuts } from './cuts.js';
import type { Reply } from './disk.js';
import { inTurn } from './parts.js';

export interface FileCutOptions {
  /** Shared by the files that show the same disk. */
  readonly cuts: Cuts;
  /** Where on the disk the file begins. */
  readonly start: bigint;
  readonly size: bigint;
  /** Zeroes a range of the file. */
  readonly zero: (offset: bigint, length: bigint, reply: Reply) => void;
  /** Some of the file was zeroed, or may have been, that is in the page cache as it was. */
  readonly filled: () => void;
}

export class FileCut {
  readonly #options: FileCutOptions;
  readonly #cuts: Cuts;
  readonly #start: bigint;
  /** Somebody has cut the file to nothing and still has it open. */
  #cut: Cut | undefined;

  constructor(options: FileCutOptions) {
    this.#options = options;
    this.#cuts = options.cuts;
    this.#start = options.start;
  }

  /** The file was cut to nothing by whoever has this handle. */
  begin(owner: bigint): void {
    this.#end();
    // Nobody waits for it there: what fails is tried again, and told, at the close.
    const cut = this.#cuts.add(owner, this.#start, this.#start + this.#options.size, () =>
      this.#fillGaps(cut, { done: () => undefined }),
    );
    this.#cut = cut;
  }

  #end(): void {
    if (this.#cut !== undefined) this.#cuts.remove(this.#cut);
    this.#cut = undefined;
  }

  /** A handle is gone: nothing more is owed to whoever had it. */
  endOf(owner: bigint): void {
    if (this.#cut?.owner === owner) this.#end();
  }

  /** Whoever cut the file has made it this long again. */
  extendedTo(owner: bigint, size: bigint): void {
    if (this.#cut?.owner === owner) this.#cut.state.extendedTo(size);
  }

  /** A range is being written or zeroed: who has cut the file, or another one that shows it, knows what is in it now. */
  covered(offset: bigint, length: bigint): void {
    const from = this.#start + offset;
    this.#cuts.written(this.#cut, from, from + length);
  }

  /** Where to put what is to change a range and has to wait; undefined where it may begin. */
  waitingFor(offset: bigint, length: bigint): (() => void)[] | undefined {
    const from = this.#start + offset;
    return this.#cuts.waitingFor(from, from + length);
  }

  /** Zeroes what the holder of a handle has skipped, if that has cut the file. */
  fill(owner: bigint, reply: Reply): void {
    const cut = this.#cut;
    if (cut?.owner === owner) this.#fillGaps(cut, reply);
    else reply.done(0);
  }

  /** What fails stays a gap, for the next one who asks. */
  #fillGaps(cut: Cut, reply: Reply): void {
    const waiting = this.#cuts.waitingFor(cut.start, cut.end);
    if (waiting !== undefined) {
      waiting.push(() => this.#fillGaps(cut, reply));
      return;
    }
    // Somebody else has cut the file meanwhile: what was written since is not known here.
    const gaps = cut === this.#cut ? cut.state.gaps() : [];
    if (gaps.length === 0) {
      reply.done(0);
      return;
    }
    this.#cuts.fillingStarts(cut);
    const finished: Reply = {
      done: (code) => {
        this.#options.filled();
        reply.done(code);
        this.#cuts.fillingEnds(cut);
      },
    };
    inTurn(
      gaps,
      ({ offset, length }, next) => {
        this.#options.zero(offset, length, {
          done: (code) => {
            const from = this.#start + offset;
            if (code === 0) this.#cuts.written(cut, from, from + length);
            next.done(code);
          },
        });
      },
      finished,
    );
  }
}
