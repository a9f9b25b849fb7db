/**
 * A disk over another one that hears of each change of it: when it is asked for, and when it is answered. How
 * it reads is for each kind to say; all else goes straight on.
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

export abstract class ChangeWatchingDisk implements Disk {
  readonly info: DiskInfo;
  protected readonly below: Disk;
  readonly #free: Change[] = [];
  readonly #answered = (change: Change): void => {
    this.changed(change);
    this.#free.push(change);
  };

  constructor(below: Disk) {
    this.below = below;
    this.info = below.info;
  }

  abstract read(offset: bigint, length: number, reply: ReadReply): void;

  /** A change is over, and whoever asked for it has not heard of that. It is used again afterwards. */
  protected abstract changed(change: Change): void;

  /** A change is to be asked for. @returns what the disk below is to answer, in the place of the reply */
  protected changing(offset: bigint, length: bigint, reply: Reply): Reply {
    return this.watched(offset, length, reply);
  }

  /** The reply to a change by which `changed` hears of it. */
  protected watched(offset: bigint, length: bigint, reply: Reply): Change {
    const change = this.#free.pop() ?? new Change(this.#answered);
    change.offset = offset;
    change.end = offset + length;
    change.reply = reply;
    return change;
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    const change = this.changing(offset, BigInt(length), reply);
    this.below.write(offset, bytes, start, length, options, change);
  }

  trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    this.below.trim(offset, length, options, this.changing(offset, length, reply));
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    this.below.zero(offset, length, options, this.changing(offset, length, reply));
  }

  flush(reply: Reply): void {
    this.below.flush(reply);
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    this.below.extents(offset, length, reply);
  }

  close(): Promise<void> {
    return this.below.close();
  }
}

/** A write, a trim or a zero that is under way; kept and used again, so that it allocates nothing. */
export class Change implements Reply {
  offset = 0n;
  end = 0n;
  /** How many were asked for before it, for those who count them. */
  number = 0;
  /** Of whoever asked for it. */
  reply: Reply | undefined;
  readonly #answered: (change: Change) => void;

  constructor(answered: (change: Change) => void) {
    this.#answered = answered;
  }

  keep(): Owner | undefined {
    return this.reply?.keep?.();
  }

  done(code: number): void {
    const { reply } = this;
    this.reply = undefined;
    // Also one that failed may have changed a part of its range.
    this.#answered(this);
    reply?.done(code);
  }
}
