/** A transport over a connected, non-blocking socket, by system calls without a thread in between. */

import { errno } from '../errno.js';
import { READABLE, WRITABLE, native } from '../native.js';
import type { PollWatcher } from '../native.js';
import type { Owner } from '../buffer-pool.js';
import type { Transport, TransportEvents } from './transport.js';

/** The most pieces of one writev(2), IOV_MAX. */
const MAX_PARTS = 1024;

export class FdTransport implements Transport {
  readonly #fd: number;
  readonly #watcher: PollWatcher;
  #events: TransportEvents | undefined;
  #closed = false;
  #failed = false;
  #reading = true;
  #watched = 0;

  // The queue: part i is #ranges[2i + 1] bytes of #buffers[i] from #ranges[2i] on, for #first <= i < #last.
  #buffers: (Buffer | undefined)[] = [];
  #owners: (Owner | undefined)[] = [];
  #ranges = new Uint32Array(2 * MAX_PARTS);
  #first = 0;
  #last = 0;
  #queuedBytes = 0;
  #flushScheduled = false;
  #blocked = false;
  readonly #flushAtEndOfTurn = () => {
    this.#flushScheduled = false;
    this.flush();
  };

  /** @param fd owned from now on */
  constructor(fd: number) {
    this.#fd = fd;
    this.#watcher = new native.PollWatcher(fd, (status, events) => this.#polled(status, events));
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  open(events: TransportEvents): void {
    this.#events = events;
    this.#watch();
  }

  #watch(): void {
    if (this.#closed || this.#events === undefined) return;
    const wanted = (this.#reading ? READABLE : 0) | (this.#blocked ? WRITABLE : 0);
    if (wanted === this.#watched) return;
    this.#watched = wanted;
    if (wanted === 0) this.#watcher.stop();
    else this.#watcher.start(wanted);
  }

  #polled(status: number, events: number): void {
    if (status < 0) {
      // libuv stopped the watcher. What is wrong comes out of the next receive or send.
      this.#watched = 0;
      events = READABLE | WRITABLE;
    }
    if ((events & WRITABLE) !== 0 && this.#blocked) {
      this.#blocked = false;
      this.flush();
    }
    if ((events & READABLE) !== 0 && this.#reading && !this.#closed) this.#events?.readable();
    this.#watch();
  }

  receive(bytes: Buffer, start: number, length: number): number {
    if (this.#closed) return -errno.EBADF;
    return native.read(this.#fd, bytes, start, length);
  }

  pause(): void {
    this.#reading = false;
    this.#watch();
  }

  resume(): void {
    this.#reading = true;
    this.#watch();
  }

  send(bytes: Buffer, start: number, length: number, owner?: Owner): void {
    // Nothing is sent at once: as a part of its own it would never be seen to leave.
    if (this.#closed || this.#failed || length === 0) {
      owner?.release();
      return;
    }
    const previous = this.#last - 1;
    if (
      previous >= this.#first &&
      owner === undefined &&
      this.#owners[previous] === undefined &&
      this.#buffers[previous] === bytes &&
      (this.#ranges[2 * previous] ?? 0) + (this.#ranges[2 * previous + 1] ?? 0) === start
    ) {
      // Behind the piece before it in the same buffer: one part for both.
      this.#ranges[2 * previous + 1] = (this.#ranges[2 * previous + 1] ?? 0) + length;
    } else {
      if (2 * this.#last === this.#ranges.length) this.#makeRoom();
      this.#buffers[this.#last] = bytes;
      this.#owners[this.#last] = owner;
      this.#ranges[2 * this.#last] = start;
      this.#ranges[2 * this.#last + 1] = length;
      this.#last++;
    }
    this.#queuedBytes += length;
    if (!this.#flushScheduled && !this.#blocked) {
      this.#flushScheduled = true;
      queueMicrotask(this.#flushAtEndOfTurn);
    }
  }

  /** Moves the queue to the front of its arrays, and doubles them where that is not enough. */
  #makeRoom(): void {
    const count = this.#last - this.#first;
    this.#buffers = this.#buffers.slice(this.#first, this.#last);
    this.#owners = this.#owners.slice(this.#first, this.#last);
    const kept = this.#ranges.subarray(2 * this.#first, 2 * this.#last);
    const roomy = this.#ranges.length >= 4 * count;
    const ranges = roomy ? this.#ranges : new Uint32Array(2 * this.#ranges.length);
    ranges.set(kept);
    this.#ranges = ranges;
    this.#first = 0;
    this.#last = count;
  }

  flush(): void {
    if (this.#closed || this.#failed || this.#blocked) return;
    const hadWork = this.#last > this.#first;
    while (this.#last > this.#first) {
      const count = Math.min(this.#last - this.#first, MAX_PARTS);
      const parts = this.#buffers as Buffer[];
      const sent = native.writev(this.#fd, parts, this.#ranges, this.#first, count);
      if (sent === -errno.EAGAIN) {
        this.#blocked = true;
        this.#watch();
        return;
      }
      if (sent < 0) {
        this.#fail(-sent);
        return;
      }
      this.#leave(sent);
    }
    if (hadWork) this.#events?.drained();
  }

  /** Takes the first `sent` bytes off the queue. */
  #leave(sent: number): void {
    this.#queuedBytes -= sent;
    while (sent > 0) {
      const length = this.#ranges[2 * this.#first + 1] ?? 0;
      if (length > sent) {
        this.#ranges[2 * this.#first] = (this.#ranges[2 * this.#first] ?? 0) + sent;
        this.#ranges[2 * this.#first + 1] = length - sent;
        return;
      }
      sent -= length;
      this.#dropFirst();
    }
  }

  #dropFirst(): void {
    const owner = this.#owners[this.#first];
    this.#buffers[this.#first] = undefined;
    this.#owners[this.#first] = undefined;
    this.#first++;
    if (this.#first === this.#last) this.#first = this.#last = 0;
    owner?.release();
  }

  #fail(code: number): void {
    this.#failed = true;
    this.#abandonQueue();
    this.#events?.sendFailed(code);
  }

  #abandonQueue(): void {
    while (this.#last > this.#first) this.#dropFirst();
    this.#queuedBytes = 0;
  }

  /**
   * Gives the descriptor away to what does its own I/O on it; for the transport it is as if closed.
   * @param take owns the descriptor when it returns, and leaves it here when it throws
   */
  handOver<T>(take: (fd: number) => T): T {
    // Only one may watch it.
    this.#watcher.stop();
    this.#watched = 0;
    try {
      const taken = take(this.#fd);
      this.#closed = true;
      this.#watcher.close();
      this.#abandonQueue();
      return taken;
    } finally {
      this.#watch();
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher.close();
    native.close(this.#fd);
    this.#abandonQueue();
  }
  reset(): void {
    if (!this.#closed) native.resetOnClose(this.#fd);
    this.close();
  }
}
