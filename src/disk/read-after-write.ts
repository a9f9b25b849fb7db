/**
 * A disk whose reads see each write that was asked for before them: a read waits for the changes under way
 * that it meets. A disk need not do so (an NBD server may do requests in any order), and whoever reads beside
 * a write has no claim to either content; but the kernel's page cache keeps what it got.
 *
 * When a write goes through the page cache, its pages count as good before it is answered, and an open(2)
 * or an invalidation drops them all the same. What is read there next, perhaps on behalf of somebody who reads
 * beside it, would stay in the cache with the old content, after the write was answered. So would what is read
 * beside a direct write by AIO, since the kernel drops the pages before such a write and not after it.
 */

import { ChangeWatchingDisk } from './change-watching-disk.js';
import type { Change } from './change-watching-disk.js';
import type { ReadReply, Reply } from './disk.js';

export class ReadAfterWriteDisk extends ChangeWatchingDisk {
  /** In the order of their asking. */
  readonly #underWay: Change[] = [];
  #waiting: WaitingRead[] = [];
  #asked = 0;

  read(offset: bigint, length: number, reply: ReadReply): void {
    if (this.#underWay.length === 0) {
      this.below.read(offset, length, reply);
      return;
    }
    const end = offset + BigInt(length);
    if (this.#meetsChange(offset, end, this.#asked)) {
      this.#waiting.push({ offset, end, length, reply, asked: this.#asked });
    } else {
      this.below.read(offset, length, reply);
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

  protected override changing(offset: bigint, length: bigint, reply: Reply): Reply {
    const change = this.watched(offset, length, reply);
    change.number = this.#asked++;
    this.#underWay.push(change);
    return change;
  }

  protected override changed(change: Change): void {
    this.#underWay.splice(this.#underWay.indexOf(change), 1);
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const read of waiting) {
      const { offset, end, length, reply, asked } = read;
      if (this.#meetsChange(offset, end, asked)) this.#waiting.push(read);
      else this.below.read(offset, length, reply);
    }
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
