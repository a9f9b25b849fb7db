/**
 * A disk whose reads see each write that was asked for before them: a read waits for the changes under way
 * that it meets. A disk need not do so (an NBD server may do requests in any order), and whoever reads beside
 * a write has no claim to either content; but the kernel's page cache keeps what it got.
 *
 * When a write goes through the page cache, its pages count as good before it is answered, and an open(2)
 * or an invalidation drops them all the same. What is read there next, perhaps on behalf of somebody who reads
 * beside it, would stay in the cache with the old content, after the write was answered.
 */

import type { Owner } from '../buffer-pool.js';
import type {
  Disk,
  DiskInfo,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from './disk.js';

export class ReadAfterWriteDisk implements Disk {
  readonly info: DiskInfo;
  readonly #disk: Disk;
  /** In the order of their asking. */
  readonly #underWay: Change[] = [];
  readonly #free: Change[] = [];
  #waiting: WaitingRead[] = [];
  #asked = 0;

  constructor(disk: Disk) {
    this.#disk = disk;
    this.info = disk.info;
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    const end = offset + BigInt(length);
    if (this.#meetsChange(offset, end, this.#asked)) {
      this.#waiting.push({ offset, end, length, reply, asked: this.#asked });
    } else {
      this.#disk.read(offset, length, reply);
    }
  }

  /** Whether a change is under way there that is among the first so many that were asked for. */
  #meetsChange(offset: bigint, end: bigint, asked: number): boolean {
    for (const change of this.#underWay) {
      if (change.number >= asked) return false;
      if (change.offset < end && offset < change.end) return true;
    }
    return false;
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    const change = this.#changing(offset, BigInt(length), reply);
    this.#disk.write(offset, bytes, start, length, options, change);
  }

  trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    this.#disk.trim(offset, length, options, this.#changing(offset, length, reply));
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    this.#disk.zero(offset, length, options, this.#changing(offset, length, reply));
  }

  #changing(offset: bigint, length: bigint, reply: Reply): Reply {
    const change = this.#free.pop() ?? new Change((done) => this.#changed(done));
    change.number = this.#asked++;
    change.offset = offset;
    change.end = offset + length;
    change.reply = reply;
    this.#underWay.push(change);
    return change;
  }

  #changed(change: Change): void {
    this.#underWay.splice(this.#underWay.indexOf(change), 1);
    this.#free.push(change);
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const read of waiting) {
      const { offset, end, length, reply, asked } = read;
      if (this.#meetsChange(offset, end, asked)) this.#waiting.push(read);
      else this.#disk.read(offset, length, reply);
    }
  }

  flush(reply: Reply): void {
    this.#disk.flush(reply);
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    this.#disk.extents(offset, length, reply);
  }

  close(): Promise<void> {
    return this.#disk.close();
  }
}

interface WaitingRead {
  readonly offset: bigint;
  readonly end: bigint;
  readonly length: number;
  readonly reply: ReadReply;
  /** How many changes were asked for before it. */
  readonly asked: number;
}

/** The reply for a change; kept and used again, so that a write allocates nothing. */
class Change implements Reply {
  number = 0;
  offset = 0n;
  end = 0n;
  reply: Reply | undefined;
  readonly #changed: (change: Change) => void;

  constructor(changed: (change: Change) => void) {
    this.#changed = changed;
  }

  keep(): Owner | undefined {
    return this.reply?.keep?.();
  }

  done(code: number): void {
    const { reply } = this;
    this.reply = undefined;
    // Also one that failed may have changed something; and what it was asked with may be used again from here.
    this.#changed(this);
    reply?.done(code);
  }
}
