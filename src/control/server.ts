/** The side of the running command: who connects hears how the mount is, may ask for its end, and hears of that. */

import { Listener } from '../server/listen.js';
import { native } from '../native.js';
import type { MountStatus } from '../observe/mount-status.js';
import { traceMain } from '../trace.js';
import { ControlClient } from './control-client.js';
import { decodeQuestion } from './messages.js';
import type { Greeting, Message, Request } from './messages.js';
import { newSocketName, peerOf } from './socket-name.js';

/** Of those that have not asked yet. More than that are sent away: somebody is making fun of us. */
const MOST_ASKING = 16;
/** More than will ever wait for one end. */
const MOST_WAITING = 16;
/** Milliseconds between two looks whether something was done. */
const PROGRESS_INTERVAL = 1_000;

export interface ControlHandlers {
  readonly greeting: Greeting;
  /** How the mount is. */
  readonly status: () => MountStatus;
  /** @returns 0 or a negated errno; never rejects */
  readonly request: (what: Request) => Promise<number>;
  /** A number that changes with all that is done. */
  readonly progress: () => number;
}

export class ControlServer {
  readonly #handlers: ControlHandlers;
  readonly #listener: Listener;
  readonly #asking = new Set<ControlClient>();
  /** Those that are told how it ends. */
  readonly #waiting = new Set<ControlClient>();
  #ticking: NodeJS.Timeout | undefined;
  #isStopped = false;

  private constructor(listener: Listener, handlers: ControlHandlers) {
    this.#listener = listener;
    this.#handlers = handlers;
    listener.start({
      accepted: (fd) => this.#accepted(fd),
      failed: (error) => traceMain('no more questions are answered: %s', error.message),
    });
    // The last that can be done, whatever way leads there.
    process.once('exit', (status) => this.#tellWaiting({ kind: 'exit', status }));
  }

  /**
   * @param device of the mount, `major:minor`, where it is known
   * @returns undefined where there can be none, without which the mount is as good
   */
  static open(device: string | undefined, handlers: ControlHandlers): ControlServer | undefined {
    if (device === undefined) return undefined;
    try {
      return new ControlServer(Listener.unix(`\0${newSocketName(device)}`), handlers);
    } catch (error) {
      traceMain('there is no control socket: %s', error);
      return undefined;
    }
  }

  #accepted(fd: number): void {
    const uid = peerOf(fd)?.uid;
    // Whoever it is: root may do everything, and others nothing.
    if ((uid !== 0 && uid !== process.geteuid?.()) || this.#asking.size >= MOST_ASKING) {
      native.close(fd);
      return;
    }
    const client = new ControlClient(fd, {
      asked: (line) => void this.#answer(line, client),
      closed: () => {
        this.#asking.delete(client);
        this.#waiting.delete(client);
      },
    });
    this.#asking.add(client);
  }

  async #answer(line: string, client: ControlClient): Promise<void> {
    const question = decodeQuestion(line);
    if (typeof question === 'object') {
      client.tell({ kind: 'error', error: question.error });
      if (!this.#waiting.has(client)) client.close();
      return;
    }
    if (question === 'status') {
      client.tell({ kind: 'status', status: this.#handlers.status() });
      client.close();
      return;
    }
    if (!this.#letWait(client)) return;
    if (question === 'wait') {
      client.tell({ kind: 'greeting', greeting: this.#handlers.greeting });
      return;
    }
    traceMain('asked to %s', question);
    client.tell({ kind: 'result', result: await this.#handlers.request(question) });
  }

  /** @returns whether there is room for it */
  #letWait(client: ControlClient): boolean {
    if (this.#waiting.has(client)) return true;
    if (this.#waiting.size >= MOST_WAITING) {
      client.tell({ kind: 'error', error: 'too many wait for the end already' });
      client.close();
      return false;
    }
    client.stay();
    this.#asking.delete(client);
    this.#waiting.add(client);
    this.#tick();
    return true;
  }

  #tellWaiting(message: Message): void {
    for (const client of this.#waiting) client.tell(message);
  }

  /** Tells of progress as long as somebody waits. */
  #tick(): void {
    if (this.#ticking !== undefined) return;
    let before = this.#handlers.progress();
    this.#ticking = setInterval(() => {
      if (this.#waiting.size === 0) {
        clearInterval(this.#ticking);
        this.#ticking = undefined;
        return;
      }
      const now = this.#handlers.progress();
      if (now !== before) this.#tellWaiting({ kind: 'progress' });
      before = now;
    }, PROGRESS_INTERVAL);
    this.#ticking.unref();
  }

  /** Comes before the exit: nobody is listened to any more, and those who wait still hear how it ends. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    clearInterval(this.#ticking);
    this.#listener.close();
    for (const client of this.#asking) client.close();
    for (const client of this.#waiting) client.deafen();
  }
}
