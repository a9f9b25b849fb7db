/** A disk that is shown as a file, and its end. */

import { setTimeout as delay } from 'node:timers/promises';
import { TOO_LATE, within } from '../deadline.js';
import { ErrnoError, errno, errnoText } from '../errno.js';
import { MountError } from '../fuse/errors.js';
import type { Mount, MountEnd } from '../fuse/mount.js';
import { milliseconds } from './numbers.js';

/** What `MountedDisk.unmount` takes. */
export interface UnmountOptions {
  /** Milliseconds for which it is tried again while somebody has the file open; 2,000 if left out. */
  readonly timeout?: number | undefined;
}

/** Milliseconds for which a close waits for those who have the file open, and between two attempts. */
const BUSY_TIMEOUT = 2_000;
const BUSY_INTERVAL = 50;
/** Milliseconds for the end that follows an unmount that somebody else has made. */
const END_TIMEOUT = 2_000;
/** Milliseconds for what is left to do by force. */
const FORCE_TIMEOUT = 5_000;

/** It cannot be unmounted, as somebody uses it. */
export class BusyError extends MountError {
  /** `EBUSY`. */
  override readonly code = 'EBUSY';
  /** The number of `EBUSY`. */
  readonly errno = errno.EBUSY;
}

/** A disk that is mounted. Made by `mount`; see there what must not be done with its path. */
export class MountedDisk implements AsyncDisposable {
  /** The file that shows the disk, as an absolute path. For other processes: this one must not touch it. */
  readonly path: string;
  /**
   * Settles when it is unmounted, by whomever, and the disk is flushed. Rejects with a `MountError` where the
   * kernel ended it, or with an `ErrnoError` where not all that was written is safe. It need not be waited for.
   */
  readonly closed: Promise<void>;
  readonly #mount: Mount;
  /** What is mounted on. */
  readonly #place: string;
  readonly #closeTimeout: number;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(
    mount: Mount,
    path: string,
    place: string,
    closeTimeout: number,
    signal: AbortSignal | undefined,
  ) {
    this.#mount = mount;
    this.path = path;
    this.#place = place;
    this.#closeTimeout = closeTimeout;
    const aborted = (): void => void this.close().catch(() => undefined);
    this.closed = mount.ended.then((end) => {
      signal?.removeEventListener('abort', aborted);
      this.#check(end);
    });
    this.closed.catch(() => undefined);
    if (signal?.aborted === true) aborted();
    else signal?.addEventListener('abort', aborted);
  }

  /** How many requests of the kernel are not answered yet. */
  get inFlight(): number {
    return this.#mount.inFlight[0] ?? 0;
  }

  /**
   * Unmounts it, and waits until what was written is flushed.
   * @throws BusyError while somebody has the file open: it stays mounted then; RangeError for an option; otherwise
   *   as `closed`
   */
  async unmount({ timeout = BUSY_TIMEOUT }: UnmountOptions = {}): Promise<void> {
    const result = await this.#tryUnmount(milliseconds(timeout, 'the time to unmount'));
    switch (-result) {
      case 0:
      case errno.EALREADY:
        return this.closed;
      case errno.EBUSY: {
        const cover = await this.#mount.cover();
        const why = cover === undefined ? 'somebody has it open' : `it is covered by ${cover}`;
        throw new BusyError(`${this.#place} cannot be unmounted: ${why}`);
      }
      case errno.EINVAL:
        // Somebody else has unmounted it, and the end is on its way; or it is detached and still open.
        if ((await within(this.closed, END_TIMEOUT)) !== TOO_LATE) return;
        throw new BusyError(`${this.#place} is unmounted already, but somebody has it open`);
      default:
        throw new MountError(`${this.#place} cannot be unmounted: ${errnoText(-result)}`);
    }
  }

  /**
   * Ends the mount whoever uses it, within its deadlines: unmounts it, or where somebody has it open for more
   * than 2 s writes back what is cached and detaches it; and where the disk does not answer, ends it by force.
   * May be called twice.
   * @throws as `closed`; ErrnoError `ETIMEDOUT` where it was ended by force, and what was written last may be lost
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @returns as `Mount.unmount` */
  async #tryUnmount(patience: number): Promise<number> {
    const until = performance.now() + patience;
    for (;;) {
      const result = await this.#mount.unmount({ lazy: false });
      if (result !== -errno.EBUSY || performance.now() >= until) return result;
      await delay(BUSY_INTERVAL);
    }
  }

  async #close(): Promise<void> {
    // An unmount writes back first, for which the disk has to answer.
    const result = await within(this.#tryUnmount(BUSY_TIMEOUT), this.#closeTimeout + BUSY_TIMEOUT);
    if (result !== 0 && result !== -errno.EALREADY) await this.#detach(result === TOO_LATE);
    const longest = this.#closeTimeout + FORCE_TIMEOUT;
    if ((await within(this.closed, longest)) !== TOO_LATE) return;
    await within(this.#mount.abort(), FORCE_TIMEOUT);
    throw new ErrnoError(errno.ETIMEDOUT, `closing the mount of ${this.path}`);
  }

  /** Takes it out of sight, and from those who use it when all is flushed. */
  async #detach(hangs: boolean): Promise<void> {
    if (!hangs) await within(this.#mount.save(), this.#closeTimeout);
    await within(this.#mount.unmount({ lazy: true }), FORCE_TIMEOUT);
  }

  /** @throws MountError; ErrnoError; what a bug of ours threw */
  #check({ error, flushError, writeError }: MountEnd): void {
    if (error !== undefined) throw error;
    if (flushError !== 0) throw new ErrnoError(flushError, `the last flush of ${this.path}`);
    if (writeError !== 0) throw new ErrnoError(writeError, `writing back ${this.path}`);
  }
}
