/** One mount that is being ended: the attempts while it is busy, and the wait for its process. */

import { setTimeout as delay } from 'node:timers/promises';
import type { MountProcess } from '../control/mount-process.js';
import { TOO_LATE, within } from '../deadline.js';
import { errno, errnoText } from '../errno.js';
import { detach } from '../fuse/attach.js';
import { mountText, unmountCommand } from '../fuse/mountpoint.js';
import type { MountEntry } from '../fuse/mountpoint.js';
import { CommandError } from './errors.js';
import { ExitStatus, meaningOf } from './exit-status.js';
import { isStillThere } from './find-mount.js';
import { findHolders } from './holders.js';
import { say } from './messages.js';
import type { UnmountCommand } from './unmount-command.js';

/** Milliseconds between two attempts at a mount that is busy. */
const BUSY_INTERVAL = 200;
/** Milliseconds in which a file that nobody seems to hold may still be busy, before a line says so. */
const UNSEEN_PATIENCE = 1_000;
/** Milliseconds in which the end of a detached mount shows that nobody had it open. */
const UNUSED_PATIENCE = 1_000;

interface Target {
  readonly mount: MountEntry;
  /** What has to be unmounted first. */
  readonly obstacle: MountEntry | undefined;
}

export class Unmounting {
  readonly #shown: string;
  readonly #isLazy: boolean;
  /** Milliseconds, or undefined for any time. */
  readonly #patience: number | undefined;
  readonly #serving: MountProcess;
  readonly #signal: AbortSignal;
  #target: Target | undefined;

  /**
   * @param signal ends the wait, with an error that is of no interest then
   */
  constructor(
    { mountpoint, isLazy, patience }: UnmountCommand,
    serving: MountProcess,
    signal: AbortSignal,
  ) {
    this.#shown = mountpoint;
    this.#isLazy = isLazy;
    this.#patience = patience;
    this.#serving = serving;
    this.#signal = signal;
    signal.addEventListener('abort', () => serving.close());
  }

  /** @returns the exit status @throws CommandError where it stays mounted */
  async run(target: Target): Promise<number> {
    this.#target = target;
    try {
      if (this.#isLazy) return await this.#detach(target.mount.mountpoint);
      return (await this.#unmount(target.mount.mountpoint)) ?? (await this.waitForEnd());
    } finally {
      this.#serving.close();
    }
  }

  /** @returns the status where there is nothing more to wait for @throws CommandError */
  async #unmount(path: string): Promise<number | undefined> {
    const start = performance.now();
    let isTold = false;
    for (;;) {
      const result = await this.#patiently(this.#serving.ask('unmount'));
      if (result === TOO_LATE) return this.#unanswered();
      if (result !== -errno.EBUSY) {
        this.#checkResult(result);
        return undefined;
      }
      this.#checkObstacle();
      const waited = performance.now() - start;
      const holders = await findHolders(path);
      const who = holders.length === 0 ? '' : `, held by ${holders.join(', ')}`;
      if (this.#patience !== undefined && waited >= this.#patience) {
        throw this.#problem(
          `is still busy after ${this.#seconds}${who}; close it and try again, or detach it at once with: ${this.#command('-uz')}`,
        );
      }
      if (!isTold && (holders.length > 0 || waited >= UNSEEN_PATIENCE)) {
        isTold = true;
        const forHowLong =
          this.#patience === undefined ? 'until it is closed' : `for up to ${this.#seconds}`;
        say(`${this.#shown} is busy${who}; waiting ${forHowLong}`);
      }
      await delay(BUSY_INTERVAL, undefined, { signal: this.#signal });
    }
  }

  /** Takes it out of sight at once, and waits all the same until nobody has it open. */
  async #detach(path: string): Promise<number> {
    this.#checkObstacle();
    // When it is out of sight, nobody can be seen to hold it.
    const holders = await findHolders(path);
    const result = await this.#patiently(this.#serving.ask('detach'));
    if (result === TOO_LATE) return this.#unanswered();
    this.#checkResult(result);
    const ended = await within(this.#serving.ended, UNUSED_PATIENCE, this.#signal);
    if (ended === TOO_LATE) {
      const who = holders.length === 0 ? 'those who have it open' : holders.join(', ');
      say(
        `${this.#shown} is detached, but ${who} may still write to it: nothing of that is sure to be safe until process ${this.#serving.pid} has ended`,
      );
    }
    return this.waitForEnd();
  }

  /** @returns the exit status */
  async waitForEnd(): Promise<number> {
    try {
      const status = await this.#patiently(this.#serving.ended);
      if (status === undefined) return await this.#killed();
      const { pid } = this.#serving;
      if (status === TOO_LATE) {
        say(
          `${this.#shown} is unmounted, but process ${pid} is still there, with nothing done for ${this.#seconds}: what was written last may not be safe yet; wait for it with: ${this.#command('-u')}`,
        );
        return ExitStatus.LOST;
      }
      if (status !== ExitStatus.SAFE) {
        say(`${this.#shown} ended with status ${status} (process ${pid}): ${meaningOf(status)}`);
      }
      return status;
    } finally {
      this.#serving.close();
    }
  }

  /** @throws CommandError where it stays mounted */
  #checkResult(result: number | undefined): void {
    // EINVAL and EALREADY: somebody else was faster. Undefined: the process has ended.
    const isGone = result === undefined || result === 0;
    if (isGone || result === -errno.EINVAL || result === -errno.EALREADY) return;
    if (result === -errno.EBUSY) this.#checkObstacle();
    throw this.#problem(`cannot be unmounted: ${errnoText(-result)}`);
  }

  /** @throws CommandError where another mount is in the way */
  #checkObstacle(): void {
    const obstacle = this.#target?.obstacle;
    if (obstacle === undefined) return;
    const at = obstacle.mountpoint === this.#target?.mount.mountpoint ? 'over it' : 'in it';
    throw this.#problem(
      `cannot be unmounted: another mount (${mountText(obstacle)}) is ${at}; unmount that first: umount ${obstacle.mountpoint}`,
    );
  }

  /** What is to be written back waits for a server that does not answer, or the process itself hangs. */
  #unanswered(): number {
    say(
      `the unmount of ${this.#shown} is not done after ${this.#seconds}: what was written waits for the server, or process ${this.#serving.pid} hangs; it goes on by itself, wait for it with: ${this.#command('-u')}`,
    );
    return ExitStatus.LOST;
  }

  /** The process has not told how it ended. @throws CommandError where it goes on */
  async #killed(): Promise<number> {
    const mount = this.#target?.mount;
    if (await this.#serving.isAlive()) {
      const { pid, refusal = 'it has hung up' } = this.#serving;
      throw this.#problem(
        `goes on as it is: process ${pid} does not listen (${refusal}); try again`,
      );
    }
    if (mount !== undefined && (await isStillThere(mount))) await detach(mount.mountpoint, true);
    say(
      `${this.#shown}: process ${this.#serving.pid} was killed before it was done; what was written last may be lost`,
    );
    return ExitStatus.LOST;
  }

  /** Waits as long as something is done there, and so long after that. */
  #patiently<T>(promise: Promise<T>): Promise<T | typeof TOO_LATE> {
    return this.#serving.patiently(promise, this.#patience, this.#signal);
  }

  get #seconds(): string {
    return `${(this.#patience ?? 0) / 1000} s`;
  }

  #command(option: string): string {
    return unmountCommand(this.#shown, `tsnbdfuse ${option}`);
  }

  #problem(what: string): CommandError {
    return new CommandError(`${this.#shown} ${what}`, { failure: 'mountpoint' });
  }
}
