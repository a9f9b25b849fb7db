/** The side of the running command: who connects may ask for the unmount, and hears how it ends. */

import { errno } from '../../errno.js';
import { READABLE, native } from '../../native.js';
import type { PollWatcher } from '../../native.js';
import { traceMain } from '../../trace.js';
import { LineSplitter, encodeMessage, isRequest } from './messages.js';
import type { Greeting, Message, Request } from './messages.js';
import { newSocketName, peerOf } from './socket-name.js';

const BACKLOG = 16;
/** More than will ever wait for one end. */
const MOST_CLIENTS = 16;
/** Bytes of one read; a request has a few. */
const CHUNK = 256;
/** Milliseconds between two looks whether something was done. */
const PROGRESS_INTERVAL = 1_000;

export interface ControlHandlers {
  readonly greeting: Greeting;
  /** @returns 0 or a negated errno; never rejects */
  readonly request: (what: Request) => Promise<number>;
  /** A number that changes with all that is done. */
  readonly progress: () => number;
}

/** One that is connected. Its descriptor stays open to the end of the process, which it can see by that. */
class Client {
  readonly #fd: number;
  readonly #watcher: PollWatcher;
  readonly #lines = new LineSplitter();
  readonly #buffer = Buffer.alloc(CHUNK);
  #isClosed = false;
  #isMute = false;

  /** @param fd owned from now on */
  constructor(
    fd: number,
    readonly onRequest: (what: Request, from: Client) => void,
    readonly onClose: (client: Client) => void,
  ) {
    this.#fd = fd;
    this.#watcher = new native.PollWatcher(fd, () => this.#readable());
    this.#watcher.start(READABLE);
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
    // What is not known is not for us.
    for (const line of lines) if (isRequest(line)) this.onRequest(line, this);
  }

  /** One that does not read what it is told, or is gone, is not told more; what it has asked for is done. */
  tell(message: Message): void {
    if (this.#isClosed || this.#isMute) return;
    const bytes = encodeMessage(message);
    this.#isMute = native.write(this.#fd, bytes, 0, bytes.length) !== bytes.length;
  }

  /** Listens to it no more, so that it keeps no event loop. */
  deafen(): void {
    this.#watcher.close();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#watcher.close();
    native.close(this.#fd);
    this.onClose(this);
  }
}

export class ControlServer {
  readonly #handlers: ControlHandlers;
  readonly #fd: number;
  readonly #watcher: PollWatcher;
  readonly #clients = new Set<Client>();
  #ticking: NodeJS.Timeout | undefined;
  #isStopped = false;
  readonly #tellExit = (status: number): void => {
    for (const client of this.#clients) client.tell({ kind: 'exit', status });
  };

  private constructor(fd: number, handlers: ControlHandlers) {
    this.#fd = fd;
    this.#handlers = handlers;
    this.#watcher = new native.PollWatcher(fd, () => this.#accept());
    this.#watcher.start(READABLE);
    // The last that can be done, whatever way leads there.
    process.once('exit', this.#tellExit);
  }

  /**
   * @param device of the mount, `major:minor`, where it is known
   * @returns undefined where there can be none, without which the mount is as good
   */
  static open(device: string | undefined, handlers: ControlHandlers): ControlServer | undefined {
    if (device === undefined) return undefined;
    const fd = native.unixListen(`\0${newSocketName(device)}`, BACKLOG);
    if (fd >= 0) return new ControlServer(fd, handlers);
    traceMain('there is no control socket: %d', fd);
    return undefined;
  }

  #accept(): void {
    const fd = native.accept(this.#fd);
    if (fd < 0) return;
    const uid = peerOf(fd)?.uid;
    // Whoever it is: root may do everything, and others nothing.
    if ((uid !== 0 && uid !== process.geteuid?.()) || this.#clients.size >= MOST_CLIENTS) {
      native.close(fd);
      return;
    }
    const client = new Client(
      fd,
      (what, from) => void this.#answer(what, from),
      (closed) => this.#clients.delete(closed),
    );
    this.#clients.add(client);
    client.tell({ kind: 'greeting', greeting: this.#handlers.greeting });
    this.#tick();
  }

  async #answer(what: Request, client: Client): Promise<void> {
    traceMain('asked to %s', what);
    client.tell({ kind: 'result', result: await this.#handlers.request(what) });
  }

  /** Tells of progress as long as somebody listens. */
  #tick(): void {
    if (this.#ticking !== undefined) return;
    let before = this.#handlers.progress();
    this.#ticking = setInterval(() => {
      if (this.#clients.size === 0) {
        clearInterval(this.#ticking);
        this.#ticking = undefined;
        return;
      }
      const now = this.#handlers.progress();
      if (now !== before) for (const client of this.#clients) client.tell({ kind: 'progress' });
      before = now;
    }, PROGRESS_INTERVAL);
    this.#ticking.unref();
  }

  /** Comes before the exit: nobody is listened to any more, and those who are connected still hear how it ends. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    clearInterval(this.#ticking);
    this.#watcher.close();
    native.close(this.#fd);
    for (const client of this.#clients) client.deafen();
  }
}
