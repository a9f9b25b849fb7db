/**
 * The side of a daemon in `--daemon`. The launcher in bin/ is a shell that has started us in the background and waits
 * for our end, or for a signal: SIGUSR1, the disk is mounted, it may go. Until then we are in the session of the
 * user, so that ssh can ask for a password; after that we have left everything that is the user's.
 */

import { closeSync, constants, openSync } from 'node:fs';
import { constants as os } from 'node:os';
import { childOutputPassedOn, passOnChildOutput } from '../child-output.js';
import { checkResult, errorText } from '../errno.js';
import { native } from '../native.js';
import { traceMain } from '../trace.js';
import { launchedDaemon } from './daemon-output.js';
import type { LaunchedDaemon } from './daemon-output.js';
import { CommandError, Interrupted } from './errors.js';
import { Syslog } from './syslog.js';

const STDOUT = 1;
const STDERR = 2;
/** Milliseconds for what a server said that has ended. */
const LAST_WORDS = 500;

export class Daemon {
  readonly #launched: LaunchedDaemon;
  #log: number | undefined;
  /** The launcher has been told, and ends with a status of its own. */
  isReady = false;

  private constructor(launched: LaunchedDaemon) {
    this.#launched = launched;
  }

  /** @returns undefined where we were not started as one */
  static begin(): Daemon | undefined {
    if (launchedDaemon === undefined) return undefined;
    passOnChildOutput();
    return new Daemon(launchedDaemon);
  }

  get #hasLauncher(): boolean {
    return process.ppid === this.#launched.launcher;
  }

  /**
   * A mount that nobody has been told of is not to live on: whatever the launcher dies of, it is as if a signal that
   * ends us had come to us as well.
   * @throws Interrupted where it is gone already
   */
  watchLauncher(): void {
    checkResult(native.setParentDeathSignal(os.signals.SIGHUP), 'prctl');
    if (!this.#hasLauncher) throw new Interrupted('SIGHUP');
  }

  /**
   * Where messages go once the disk is mounted; the system's log if this is not called.
   * @param path as the user wrote it
   * @throws CommandError
   */
  openLog(path: string): void {
    const { O_WRONLY, O_APPEND, O_CREAT, O_NOCTTY, O_NONBLOCK } = constants;
    try {
      this.#log = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_NONBLOCK, 0o666);
    } catch (error) {
      throw new CommandError(`cannot write the log ${path}: ${errorText(error)}`, { cause: error });
    }
  }

  /**
   * The disk is mounted: the launcher ends with 0, and we live on.
   * @param keepDirectory stay where we were started, and not in /
   * @throws Interrupted when the launcher is gone
   */
  ready(keepDirectory: boolean): void {
    native.setParentDeathSignal(0);
    if (!this.#hasLauncher) throw new Interrupted('SIGHUP');
    // Before the launcher goes: its caller may close the terminal then.
    traceMain('session: %d', native.setsid());
    if (!keepDirectory) process.chdir('/');
    this.#leaveOutput();
    process.kill(this.#launched.launcher, 'SIGUSR1');
    this.isReady = true;
  }

  #leaveOutput(): void {
    const { stdout, stderr } = this.#launched;
    const nothing = openSync('/dev/null', 'r+');
    try {
      checkResult(native.dup2(nothing, STDOUT), 'dup2');
      checkResult(native.dup2(this.#log ?? nothing, STDERR), 'dup2');
    } finally {
      closeSync(nothing);
    }
    stdout.redirect(() => undefined);
    if (this.#log === undefined) {
      const syslog = new Syslog('tsnbdfuse');
      stderr.redirect((bytes) => syslog.write(bytes));
    } else {
      // What is left is standard error, for the messages of Node as well.
      closeSync(this.#log);
      this.#log = undefined;
    }
  }

  /** The last moment: what was said by those who are gone is passed on. */
  async end(): Promise<void> {
    await childOutputPassedOn(LAST_WORDS);
  }
}
