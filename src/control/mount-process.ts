/** The process of a mount, for who unmounts: found, asked, and waited for. */

import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { LONGEST_WAIT, TOO_LATE, within } from '../deadline.js';
import { Connection } from './connection.js';
import { decodeMessage } from './messages.js';
import type { Greeting, Message, Request } from './messages.js';
import { listSockets } from './socket-name.js';

/** Milliseconds for the first line. One that hangs or is stopped does not send it. */
const GREETING_DEADLINE = 2_000;
/** Milliseconds between its last word and its end, which is at hand then. */
const EXIT_DEADLINE = 5_000;
const EXIT_INTERVAL = 5;

export class MountProcess {
  /** Undefined where it did not say. */
  greeting: Greeting | undefined;
  /** The exit status it told; undefined where it was killed before. Once it is gone. Never rejects. */
  readonly ended: Promise<number | undefined>;
  /** When something was last done there, as `performance.now` has it. */
  lastSign = performance.now();
  readonly #connection: Connection;
  readonly #startTime: Promise<string | undefined>;
  #status: number | undefined;
  #saidAll: () => void = () => undefined;
  #isLetGo = false;
  #refusal: string | undefined;
  #heard: ((message: Message) => void) | undefined;

  private constructor(connection: Connection) {
    this.#connection = connection;
    this.#startTime = startTimeOf(connection.pid);
    connection.heard = (line) => this.#received(line);
    connection.ask('wait');
    // Its last word counts also where it cannot go: a file of its own may be in a file system that hangs.
    const saidAll = new Promise<void>((resolve) => {
      this.#saidAll = resolve;
    });
    this.ended = Promise.race([saidAll, connection.closed]).then(async () => {
      await this.#gone();
      return this.#status;
    });
  }

  get pid(): number {
    return this.#connection.pid;
  }

  /**
   * The process that serves a mount.
   * @param device of the mount, `major:minor`
   * @param owner of the mount; nobody else is believed
   */
  static async ofDevice(device: string, owner: number): Promise<MountProcess | undefined> {
    const sockets = await listSockets();
    const found = await connectAll(
      sockets.filter((socket) => socket.device === device),
      owner,
    );
    // The number of a device is used again while the process of the mount before it still ends.
    return newest(found);
  }

  /**
   * The process of a mount that is gone from its place, and that has not ended.
   * @param isMeant of what it says of itself
   */
  static async ending(isMeant: (greeting: Greeting) => boolean): Promise<MountProcess | undefined> {
    const found = await connectAll(await listSockets(), process.geteuid?.() ?? 0);
    const meant = found.filter(({ greeting }) => greeting !== undefined && isMeant(greeting));
    for (const other of found) if (!meant.includes(other)) other.close();
    return newest(meant);
  }

  /** @param owner of the process; undefined where it is another's @internal */
  static async connect(name: string, owner: number): Promise<MountProcess | undefined> {
    const connection = Connection.open(name, owner);
    if (typeof connection === 'number') return undefined;
    const process_ = new MountProcess(connection);
    await within(process_.#message('greeting'), GREETING_DEADLINE);
    return process_;
  }

  #received(line: string): void {
    const message = decodeMessage(line);
    if (message === undefined) return;
    this.lastSign = performance.now();
    if (message.kind === 'error') this.#refusal = message.error;
    if (message.kind === 'greeting') this.greeting = message.greeting;
    if (message.kind === 'exit') {
      this.#status = message.status;
      this.#saidAll();
    }
    this.#heard?.(message);
  }

  /** Resolves with undefined where the connection ends before. */
  async #message(kind: Message['kind']): Promise<Message | undefined> {
    const message = new Promise<Message>((resolve) => {
      this.#heard = (heard) => {
        if (heard.kind === kind) resolve(heard);
      };
    });
    return Promise.race([message, this.#connection.closed.then(() => undefined)]);
  }

  /** @returns 0 or a negated errno; undefined where the process ended before it answered */
  async ask(what: Request): Promise<number | undefined> {
    const answer = this.#message('result');
    this.#connection.ask(what);
    const message = await answer;
    return message?.kind === 'result' ? message.result : undefined;
  }

  /**
   * What a promise gives, or TOO_LATE when it is not settled and nothing was done in so many milliseconds.
   * @param patience undefined for any time
   * @param signal ends the wait
   * @throws the signal's reason
   */
  async patiently<T>(
    promise: Promise<T>,
    patience: number | undefined,
    signal: AbortSignal,
  ): Promise<T | typeof TOO_LATE> {
    for (;;) {
      const left =
        patience === undefined ? LONGEST_WAIT : this.lastSign + patience - performance.now();
      const result = await within(promise, Math.max(1, Math.min(left, LONGEST_WAIT)), signal);
      if (patience === undefined && result === TOO_LATE) continue;
      if (result !== TOO_LATE || performance.now() >= this.lastSign + (patience ?? 0))
        return result;
    }
  }

  /** Waits until the process is gone, or has nobody who waits for it (a zombie). */
  async #gone(): Promise<void> {
    const startTime = await this.#startTime;
    const end = performance.now() + EXIT_DEADLINE;
    while (startTime !== undefined && (await startTimeOf(this.pid)) === startTime) {
      if (this.#isLetGo || this.#refusal !== undefined || performance.now() >= end) return;
      await delay(EXIT_INTERVAL);
    }
  }

  /** Why it does not listen to us; undefined where it said nothing of that. */
  get refusal(): string | undefined {
    return this.#refusal;
  }

  /** Whether it is still there. */
  async isAlive(): Promise<boolean> {
    const startTime = await this.#startTime;
    return startTime !== undefined && (await startTimeOf(this.pid)) === startTime;
  }

  /** When it started, which tells it from others; undefined where it is gone. */
  get startTime(): Promise<string | undefined> {
    return this.#startTime;
  }

  /** It is of no interest any more. */
  close(): void {
    this.#isLetGo = true;
    this.#connection.close();
  }
}

async function connectAll(
  sockets: readonly { readonly name: string }[],
  owner: number,
): Promise<MountProcess[]> {
  const found = await Promise.all(sockets.map(({ name }) => MountProcess.connect(name, owner)));
  return found.filter((process_) => process_ !== undefined);
}

/** The one that was started last; the others are let go. */
async function newest(found: readonly MountProcess[]): Promise<MountProcess | undefined> {
  const times = await Promise.all(found.map(async (one) => Number((await one.startTime) ?? 0)));
  const last = found[times.indexOf(Math.max(...times))];
  for (const one of found) if (one !== last) one.close();
  return last;
}

/** In ticks since the start of the machine (proc(5)); undefined where the process is gone, or a zombie. */
async function startTimeOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
  // The name may have blanks and brackets of its own.
  const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // The 22nd field; the state is the third.
  return state === undefined || ['', 'Z', 'X'].includes(state) ? undefined : fields[18];
}
