/** One that is connected to the control socket of a mount, as the mount sees it. */

import { errno } from '../errno.js';
import { READABLE, native } from '../native.js';
import type { PollWatcher } from '../native.js';
import { LONGEST_QUESTION, LineSplitter, encodeMessage } from './messages.js';
import type { Message } from './messages.js';

/** Milliseconds for the first question: who asks nothing is let go. */
const DEADLINE = 5_000;
/** Bytes of one read; a question has a few. */
const CHUNK = 256;

export interface ControlClientHandlers {
  /** @param line without its end */
  readonly asked: (line: string) => void;
  readonly closed: () => void;
}

export class ControlClient {
  readonly #fd: number;
  readonly #handlers: ControlClientHandlers;
  readonly #watcher: PollWatcher;
  readonly #lines = new LineSplitter(LONGEST_QUESTION);
  readonly #buffer = Buffer.alloc(CHUNK);
  readonly #deadline: NodeJS.Timeout;
  #isClosed = false;
  #isMute = false;

  /** @param fd owned from now on */
  constructor(fd: number, handlers: ControlClientHandlers) {
    this.#fd = fd;
    this.#handlers = handlers;
    this.#watcher = new native.PollWatcher(fd, () => this.#readable());
    this.#watcher.start(READABLE);
    this.#deadline = setTimeout(() => this.close(), DEADLINE);
    this.#deadline.unref();
  }

  #readable(): void {
    const count = native.read(this.#fd, this.#buffer, 0, CHUNK);
    if (count === -errno.EAGAIN || count === -errno.EINTR) return;
    const lines =
      count > 0 ? this.#lines.push(this.#buffer.toString('latin1', 0, count)) : undefined;
    if (lines === undefined) {
      this.close();
      return;
    }
    for (const line of lines) {
      // What comes behind the last question is nobody's.
      if (this.#isClosed) return;
      this.#handlers.asked(line);
    }
  }

  /** One that does not read what it is told, or is gone, is not told more; what it has asked for is done. */
  tell(message: Message): void {
    if (this.#isClosed || this.#isMute) return;
    const bytes = encodeMessage(message);
    this.#isMute = native.write(this.#fd, bytes, 0, bytes.length) !== bytes.length;
  }

  /** It waits from now on. Its descriptor stays open to the end of the process, which it can see by that. */
  stay(): void {
    clearTimeout(this.#deadline);
  }

  /** Listens to it no more, so that it keeps no event loop. */
  deafen(): void {
    this.#watcher.close();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#deadline);
    this.#watcher.close();
    native.close(this.#fd);
    this.#handlers.closed();
  }
}
