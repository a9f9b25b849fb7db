/**
 * What the server has answered and no flush has covered yet: it may be nowhere but in the server's memory,
 * and is gone when that dies. It is kept here, in the order of the answers, until a flush that was sent
 * after the answer has succeeded (doc/proto.md, FLUSH), as NFS clients keep unstable writes until a COMMIT.
 */

import { BufferPool } from '../buffer-pool.js';
import type { Owner } from '../buffer-pool.js';
import type { CommandType } from './constants.js';
import { Command, CommandFlag } from './constants.js';
import type { AnswerWatch, PendingCommand } from './in-flight.js';

/** What is counted for an entry beside its payload. */
const ENTRY_BYTES = 128;
/** Bytes of copies that nobody uses, kept for the next ones. */
const SPARE_BYTES = 4 * 1024 * 1024;

/**
 * How much is kept follows from how long flushes take, so that memory is used only where it lets writes go on.
 * Up to QUICK_FLUSH milliseconds, as of a disk in memory: a flush is wanted when so many bytes have come since
 * the last one, and when so many are kept, writes wait for it. In proportion more where flushes take longer.
 */
const QUICK_FLUSH = 2.5;
const WANTED_IF_QUICK = 1024 * 1024;
const FULL_IF_QUICK = 2 * WANTED_IF_QUICK;
/** A flush is wanted when such a part of the limit has come at the latest. */
const WANTED_PART = 1 / 8;
/** Of the time that flushes take, how much the last one counts. */
const LAST_COUNTS = 1 / 4;

const NOTHING: Buffer = Buffer.alloc(0);

/** A write, zero or trim that was answered. */
export interface UnflushedEntry {
  readonly type: CommandType;
  /** CommandFlag bits. With FUA it is durable, and here only because it is newer than others. */
  readonly flags: number;
  readonly offset: bigint;
  /** In bytes. */
  readonly length: number;
  /** The payload of a write without FUA. */
  readonly bytes: Buffer;
  readonly start: number;
}

class Entry implements UnflushedEntry {
  type: CommandType = Command.WRITE;
  flags = 0;
  offset = 0n;
  length = 0;
  bytes = NOTHING;
  start = 0;
  owner: Owner | undefined;
  next: Entry | undefined;
}

export interface UnflushedEvents {
  /** A flush should be sent, so that there is room for more. */
  flushWanted(): void;
  /** A flush has succeeded: there may be room now. */
  covered(): void;
  /** The server has refused a flush. @param code a positive errno */
  flushFailed(code: number): void;
}

export class Unflushed implements AnswerWatch {
  readonly #limit: number;
  readonly #events: UnflushedEvents;
  readonly #now: () => number;
  readonly #copies = new BufferPool(SPARE_BYTES);
  // A list from the oldest entry to the newest. The entries are kept and used again.
  #first: Entry | undefined;
  #last: Entry | undefined;
  #free: Entry | undefined;
  /** The number of the first entry; they are counted over all the time. */
  #firstNumber = 0;
  #nextNumber = 0;
  #bytes = 0;
  #payloadBytes = 0;
  /** Of `bytes`, what came since a flush was sent. */
  #sinceMark = 0;
  /** When that was, and the milliseconds that flushes take on average. */
  #markedAt = 0;
  #flushTime = QUICK_FLUSH;
  /** In bytes: see WANTED_IF_QUICK. */
  #wanted = 0;
  #full = 0;

  /**
   * @param limit in bytes: what is kept at the most, but for what was sent before
   * @param now milliseconds
   */
  constructor(limit: number, events: UnflushedEvents, now: () => number = () => performance.now()) {
    this.#limit = limit;
    this.#events = events;
    this.#now = now;
    this.#setBounds();
  }

  get empty(): boolean {
    return this.#first === undefined;
  }

  /** Bytes of memory that are held, about. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Bytes that were written and are not covered; what was zeroed or trimmed is not counted. */
  get payloadBytes(): number {
    return this.#payloadBytes;
  }

  /** Whether nothing should be written before a flush has made room. */
  get full(): boolean {
    return this.#bytes >= this.#full;
  }

  succeeded(command: PendingCommand): void {
    switch (command.type) {
      case Command.WRITE:
      case Command.WRITE_ZEROES:
      case Command.TRIM:
        if (!command.isReplay) this.#answered(command);
        break;
      case Command.FLUSH:
        this.#covered(command.mark);
        break;
      default:
    }
  }

  flushFailed(code: number): void {
    this.#events.flushFailed(code);
  }

  #answered(command: PendingCommand): void {
    const durable = (command.flags & CommandFlag.FUA) !== 0;
    // What is durable has to be known only where something older may be sent again over it.
    if (durable && this.#first === undefined) return;
    const entry = this.#free ?? new Entry();
    this.#free = entry.next;
    entry.next = undefined;
    entry.type = command.type;
    entry.flags = command.flags;
    entry.offset = command.offset;
    entry.length = command.length;
    let size = ENTRY_BYTES;
    if (command.type === Command.WRITE && !durable) {
      this.#keepPayload(entry, command);
      size += command.length;
      this.#payloadBytes += command.length;
    }
    if (this.#last === undefined) this.#first = entry;
    else this.#last.next = entry;
    this.#last = entry;
    this.#nextNumber++;
    this.#bytes += size;
    this.#sinceMark += size;
    if (this.#sinceMark >= this.#wanted) this.#events.flushWanted();
  }

  #keepPayload(entry: Entry, { bytes, start, length, reply }: PendingCommand): void {
    if (bytes === undefined) throw new Error('a write without its payload');
    const owner = reply?.keep?.();
    if (owner !== undefined) {
      entry.owner = owner;
      entry.bytes = bytes;
      entry.start = start;
      return;
    }
    const copy = this.#copies.take(length);
    bytes.copy(copy.bytes, 0, start, start + length);
    entry.owner = copy;
    entry.bytes = copy.bytes;
    entry.start = 0;
  }

  /** To be taken when a flush is sent: it covers what was answered before. */
  mark(): number {
    this.#sinceMark = 0;
    this.#markedAt = this.#now();
    return this.#nextNumber;
  }

  #covered(mark: number): void {
    this.#flushTime += LAST_COUNTS * (this.#now() - this.#markedAt - this.#flushTime);
    this.#setBounds();
    // One that was sent later may have covered more before.
    while (this.#firstNumber < mark && this.#first !== undefined) this.#dropFirst(this.#first);
    this.#events.covered();
  }

  #setBounds(): void {
    const times = Math.max(1, this.#flushTime / QUICK_FLUSH);
    this.#wanted = Math.min(WANTED_PART * this.#limit, WANTED_IF_QUICK * times);
    this.#full = Math.min(this.#limit, FULL_IF_QUICK * times);
  }

  #dropFirst(entry: Entry): void {
    const written = entry.owner === undefined ? 0 : entry.length;
    this.#bytes -= ENTRY_BYTES + written;
    this.#payloadBytes -= written;
    this.#first = entry.next;
    if (this.#first === undefined) this.#last = undefined;
    this.#firstNumber++;
    entry.owner?.release();
    entry.owner = undefined;
    entry.bytes = NOTHING;
    entry.next = this.#free;
    this.#free = entry;
  }

  /** From the newest to the oldest. They stay valid until a flush covers them, or they are forgotten. */
  newestFirst(): UnflushedEntry[] {
    const entries: UnflushedEntry[] = [];
    for (let entry = this.#first; entry !== undefined; entry = entry.next) entries.push(entry);
    return entries.reverse();
  }

  /** Lets go of all of it. @returns how many bytes were written and never covered */
  forget(): number {
    const lost = this.#payloadBytes;
    while (this.#first !== undefined) this.#dropFirst(this.#first);
    this.#sinceMark = 0;
    return lost;
  }
}
