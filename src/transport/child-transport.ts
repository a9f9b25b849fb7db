/** A transport over a program, whose standard input and output are the two directions of a stream. */

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { childOutput, passOn } from '../child-output.js';
import { TOO_LATE, within } from '../deadline.js';
import { checkResult } from '../errno.js';
import { native } from '../native.js';
import { Survivor } from '../survivor.js';
import { FdTransport } from './fd-transport.js';

/**
 * Milliseconds that the program may take to end by itself once the stream is closed, and again after
 * SIGTERM. What it was given last has left it long before.
 */
const END_DEADLINE = 300;

// Ctrl-C on the terminal is for us, who have to flush before the program may end: it ignores what a
// terminal sends. It cannot be in a session of its own, as it may have to ask for a password there.
// No word of the user is parsed by this shell, which becomes the program.
const BECOME_PROGRAM = 'trap "" HUP INT QUIT; exec "$@"';

export class ChildTransport extends FdTransport {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #ending = false;

  private constructor(fd: number, child: ChildProcess, guardian: Survivor) {
    super(fd);
    this.#child = child;
    this.#exited = new Promise((resolve) => {
      child.once('exit', (code) => {
        // Before its process id may be another's.
        void guardian.release();
        resolve(code);
      });
    });
  }

  /**
   * The program has our environment and our standard error.
   * @throws Error that says why it could not be started
   */
  static async start(file: string, args: readonly string[]): Promise<ChildTransport> {
    const ends = new Int32Array(2);
    checkResult(native.socketpair(ends), 'socketpair');
    const [ours, theirs] = ends as unknown as [number, number];
    let child: ChildProcess | undefined;
    try {
      child = spawn('/bin/sh', ['-c', BECOME_PROGRAM, 'sh', file, ...args], {
        stdio: [theirs, theirs, childOutput()],
      });
      passOn(child.stderr);
      if (child.pid === undefined) {
        const [error] = (await once(child, 'error')) as [Error];
        throw error;
      }
      // It is told of signals that could not be sent, too.
      child.on('error', () => undefined);
      // One that waits for its far side, as ssh does for nc, does not end with the stream: the server would
      // keep the connection, and perhaps take no other one.
      const guardian = Survivor.start({});
      guardian.kill(child.pid);
      return new ChildTransport(ours, child, guardian);
    } catch (error) {
      child?.kill();
      native.close(ours);
      throw error;
    } finally {
      // While we hold it, too, its end would not be the end of the stream.
      native.close(theirs);
    }
  }

  /** Ends the program as well, if it does not do so by itself. */
  override close(): void {
    super.close();
    if (this.#ending) return;
    this.#ending = true;
    void this.#end();
  }

  async #end(): Promise<void> {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      if ((await within(this.#exited, END_DEADLINE)) !== TOO_LATE) return;
      this.#child.kill(signal);
    }
  }
}
