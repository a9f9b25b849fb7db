/** Sockets that clients connect to. */

import { fstatSync, rmSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { errno, ErrnoError, checkResult } from '../errno.js';
import { READABLE, native } from '../native.js';
import type { PollWatcher } from '../native.js';
import { traceServer } from '../trace.js';

const BACKLOG = 128;
/** How often one wake-up accepts before others get their turn. */
const ACCEPTS_PER_WAKE = 16;
/** Milliseconds until accepting is tried again after the system was out of something. */
const PAUSE_WHEN_SHORT = 100;

/** Descriptors or memory may be had again later. */
const SHORT_OF = new Set<number>([errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]);
/** The connection at the front is gone, or was refused: the next one may be all right (accept(2)). */
const GONE = new Set<number>([
  errno.ECONNABORTED,
  errno.EPROTO,
  errno.EPERM,
  errno.ENETDOWN,
  errno.EHOSTUNREACH,
  errno.ENETUNREACH,
  errno.ETIMEDOUT,
]);

export interface Accepting {
  /** @param fd of a connection, non-blocking, owned from now on */
  accepted(fd: number): void;
  /** There will be no further one. */
  failed(error: Error): void;
}

export class Listener {
  readonly #fd: number;
  readonly #watcher: PollWatcher;
  readonly #socketFile: { readonly path: string; readonly stats: Stats } | undefined;
  #accepting: Accepting | undefined;
  #paused = true;
  #closed = false;
  #retry: NodeJS.Timeout | undefined;

  private constructor(fd: number, path?: string) {
    this.#fd = fd;
    if (path !== undefined) this.#socketFile = { path, stats: statSync(path) };
    this.#watcher = new native.PollWatcher(fd, () => this.#accept());
  }

  /**
   * A Unix socket, whose file is removed again by `close`.
   * @param path a leading NUL makes it abstract
   * @throws ErrnoError
   */
  static unix(path: string): Listener {
    const fd = checkResult(native.unixListen(path, BACKLOG), `cannot listen on socket ${path}`);
    return path.startsWith('\0') ? new Listener(fd) : new Listener(fd, path);
  }

  /** @param address numeric @param port 0 for one that is free @throws ErrnoError */
  static tcp(address: string, port: number): Listener {
    const what = `cannot listen on address ${address}, port ${port}`;
    return new Listener(checkResult(native.tcpListen(address, port, BACKLOG), what));
  }

  /**
   * A listening socket that whoever started us has made.
   * @param fd owned from now on
   * @throws ErrnoError
   */
  static inherited(fd: number): Listener {
    const what = `cannot listen on descriptor ${fd}`;
    checkResult(native.setCloseOnExec(fd, true), what);
    checkResult(native.setNonblocking(fd, true), what);
    if (!fstatSync(fd).isSocket()) throw new ErrnoError(errno.ENOTSOCK, what);
    return new Listener(fd);
  }

  /** Of a TCP socket. @throws ErrnoError */
  get port(): number {
    return checkResult(native.tcpPort(this.#fd), 'port of a socket');
  }

  start(accepting: Accepting): void {
    this.#accepting = accepting;
    this.resume();
  }

  /** Lets clients wait. */
  pause(): void {
    this.#paused = true;
    clearTimeout(this.#retry);
    if (!this.#closed) this.#watcher.stop();
  }

  resume(): void {
    if (this.#closed || !this.#paused) return;
    this.#paused = false;
    this.#watcher.start(READABLE);
  }

  #accept(): void {
    for (let i = 0; i < ACCEPTS_PER_WAKE && !this.#paused; i++) {
      const fd = native.accept(this.#fd);
      if (fd >= 0) {
        this.#accepting?.accepted(fd);
        continue;
      }
      if (fd === -errno.EAGAIN) return;
      if (GONE.has(-fd)) continue;
      const error = new ErrnoError(-fd, 'cannot accept a connection');
      traceServer('%s', error.message);
      this.pause();
      if (SHORT_OF.has(-fd)) this.#retry = setTimeout(() => this.resume(), PAUSE_WHEN_SHORT);
      else this.#accepting?.failed(error);
      return;
    }
  }

  /** May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.pause();
    this.#closed = true;
    this.removeSocketFile();
    this.#watcher.close();
    native.close(this.#fd);
  }

  /** Where it is still ours: another server may have put its own there. Never throws. */
  removeSocketFile(): void {
    if (this.#socketFile === undefined) return;
    const { path, stats } = this.#socketFile;
    try {
      const now = statSync(path);
      if (now.dev === stats.dev && now.ino === stats.ino) rmSync(path);
    } catch {
      // Gone already, or not ours to remove any more.
    }
  }
}
