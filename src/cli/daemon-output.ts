/**
 * The standard streams of a daemon, in place of Node's own: these would hold the terminal or the pipe open that it
 * was started with. Imported before all that looks at process.stderr, as debug does when it is loaded.
 */

import { writeSync } from 'node:fs';
import { Writable } from 'node:stream';

/** By it the launcher (bin/tsnbdfuse) tells its process id to the daemon that it starts. */
const DAEMON_VARIABLE = 'TSNBDFUSE_DAEMON';

type Sink = (bytes: Buffer) => void;

/** At first that of the user, later whatever takes its place. */
export class DaemonOutput extends Writable {
  /** For debug, which asks whether it is a terminal; it will not be one for long. */
  readonly fd = -1;
  #sink: Sink;

  /** @param fd where it goes at first */
  constructor(fd: number) {
    super();
    this.#sink = (bytes) => void writeSync(fd, bytes);
  }

  /** What is written from now on goes there. */
  redirect(sink: Sink): void {
    this.#sink = sink;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    try {
      this.#sink(chunk);
    } catch {
      // A reader that is gone, or a disk that is full: a message is not worth a mount.
    }
    done();
  }
}

export interface LaunchedDaemon {
  /** Its process id. */
  readonly launcher: number;
  readonly stdout: DaemonOutput;
  readonly stderr: DaemonOutput;
}

function begin(): LaunchedDaemon | undefined {
  const launcher = process.env[DAEMON_VARIABLE];
  if (launcher === undefined) return undefined;
  // Not for the programs that we start.
  Reflect.deleteProperty(process.env, DAEMON_VARIABLE);
  const [stdout, stderr] = [new DaemonOutput(1), new DaemonOutput(2)];
  Object.defineProperty(process, 'stdout', { value: stdout, configurable: true });
  Object.defineProperty(process, 'stderr', { value: stderr, configurable: true });
  return { launcher: Number(launcher), stdout, stderr };
}

/** Undefined where we are no daemon. */
export const launchedDaemon = begin();
