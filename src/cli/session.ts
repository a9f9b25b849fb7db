/** A mount of the command: from a connected disk to a closed one. */

import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { ControlServer } from '../control/server.js';
import { errnoText } from '../errno.js';
import { native } from '../native.js';
import { unmountCommand } from '../fuse/mountpoint.js';
import type { Mountpoint } from '../fuse/mountpoint.js';
import type { Mount, MountEnd } from '../fuse/mount.js';
import type { Part } from '../partitions/part.js';
import type { NbdDisk } from '../nbd/nbd-disk.js';
import { mostMilliseconds } from '../nbd/stall-watch.js';
import { traceMain } from '../trace.js';
import type { MountCommand } from './command-line.js';
import { LONGEST_WAIT, TOO_LATE, within } from '../deadline.js';
import { CommandError, InternalError } from './errors.js';
import { MountError } from '../fuse/errors.js';
import { ExitStatus } from './exit-status.js';
import { findHolders } from './holders.js';
import { say } from './messages.js';
import type { Observation } from './observation.js';
import type { Origin, Urgency } from './origin.js';
import type { Pidfile } from './pidfile.js';
import type { Interruptions } from './signals.js';
import type { Supervisors } from './supervisors.js';

/** Milliseconds for the requests that are in flight when the disk is closed: reads that nobody waits for. */
const CLOSE_DEADLINE = 3_000;
/** Milliseconds for the last flush, beside what the disk may take for it, after which it has failed it itself. */
const END_SLACK = 5_000;
/** Milliseconds, about, that a disk and its server may take to end after that. */
const SERVER_END = 15_000;
/** Milliseconds for what is in the page cache when a mount is detached. */
const SYNC_DEADLINE = 10_000;
/**
 * Microseconds that the event loop looks for the next event before it sleeps, and with how many requests
 * under way at the most. With more there is enough to do for all processors, and a thread that does not
 * sleep takes one from the server or from who asks.
 */
const BUSY_POLL = 60;
const BUSY_POLL_REQUESTS = 2;
/** Milliseconds for what is left to do with a server that has not answered that. */
const HANG_PATIENCE = 5_000;
/** Milliseconds in which a file that nobody seems to hold may still be busy, and between two looks. */
const BUSY_PATIENCE = 2_000;
const BUSY_INTERVAL = 50;
/** Milliseconds for an unmount, which may have to write back. */
const UNMOUNT_DEADLINE = 2_000;
/** Milliseconds, beside what one request may take, for a server that is lost when the mount is to end. */
const LAST_PATIENCE = 4_000;
/** Milliseconds between two looks whether somebody has unmounted while the server is lost. */
const UNMOUNTED_INTERVAL = 1_000;
/** Milliseconds for taking down a mount that nobody has been told of, or that we failed. */
const UNDO_DEADLINE = 5_000;

/** What is made ready before the server is started. */
export interface Place {
  readonly mountpoint: Mountpoint;
  readonly pidfile: Pidfile | undefined;
  readonly observation: Observation;
  readonly supervisors: Supervisors;
}

export class Session {
  readonly #command: MountCommand;
  readonly #mountpoint: Mountpoint;
  readonly #origin: Origin;
  readonly #disk: NbdDisk;
  readonly #pidfile: Pidfile | undefined;
  readonly #observation: Observation;
  readonly #supervisors: Supervisors;
  /** The sentence about a server that died, and the line made of it; undefined while it lives. */
  #loss: Promise<string> | undefined;
  #report: Promise<void> | undefined;
  #mounted = false;
  #control: ControlServer | undefined;
  /** The user wants it to end, whatever is lost. */
  gaveUp = false;
  /** Signals have ended it, with something that was not saved. */
  #forced = false;
  /** The server has not answered what it was asked last. */
  #hangs = false;

  constructor(
    command: MountCommand,
    { mountpoint, pidfile, observation, supervisors }: Place,
    origin: Origin,
    disk: NbdDisk,
  ) {
    this.#command = command;
    this.#mountpoint = mountpoint;
    this.#origin = origin;
    this.#disk = disk;
    this.#pidfile = pidfile;
    this.#observation = observation;
    this.#supervisors = supervisors;
    disk.onLost = (reason) => {
      if (this.gaveUp) return;
      this.#loss = origin.explainLoss(reason);
      if (this.#mounted) this.#report = this.#reportLoss(this.#loss);
    };
  }

  /** How a captive server is to be ended. */
  get urgency(): Urgency {
    if (this.gaveUp) return 'at once';
    return this.#loss !== undefined || this.#hangs ? 'soon' : 'in its time';
  }

  /** The file with the disk, as the user wrote it. */
  get #shown(): string {
    return this.#mountpoint.shownFile;
  }

  /** For supervisors. */
  get #state(): string {
    const { name } = this.#origin;
    return this.#disk.isDown
      ? `${name} is lost, and waited for`
      : `${name} is shown as ${this.#shown}`;
  }

  async #reportLoss(loss: Promise<string>): Promise<void> {
    const what = await loss;
    this.#supervisors.status(`${what}; ${this.#shown} gives I/O errors`);
    say(
      this.#mounted
        ? `${what}; ${this.#shown} now gives I/O errors: unmount it with: ${unmountCommand(this.#mountpoint.shown)}`
        : `${what}; what was written last to ${this.#shown} may be lost`,
    );
  }

  async run(interruptions: Interruptions): Promise<ExitStatus> {
    try {
      await this.#checkDisk();
      const mount = await this.#mountUnlessAsked(interruptions);
      this.#disk.onDown = () => {
        this.#supervisors.status(this.#state);
        void this.#hurryWhenUnmounted(mount);
      };
      this.#disk.onUp = () => this.#supervisors.status(this.#state);
      try {
        await this.#observation.show();
        await this.#pidfile?.write();
        await this.#supervisors.ready(this.#state);
        // Not at a signal: a mount that is busy stays, and a service manager kills what has said that it ends.
        void mount.ending.then(() => this.#tellEnd());
        return await this.#untilEnd(mount, interruptions);
      } catch (error) {
        const over = mount.unmount({ lazy: true }).then(() => mount.ended);
        this.#hangs = (await within(over, UNDO_DEADLINE)) === TOO_LATE;
        throw error;
      } finally {
        this.#mounted = false;
        this.#pidfile?.remove();
        await this.#tellEnd();
      }
    } finally {
      if (this.gaveUp || this.#hangs) this.#disk.abort();
      if ((await within(this.#disk.close(), CLOSE_DEADLINE)) === TOO_LATE) {
        say(`${this.#origin.name} does not answer; its connection is dropped`);
        this.#hangs = true;
        this.#disk.abort();
      }
      await this.#report;
    }
  }

  /** To supervisors: the end has begun, and what is left to do may take a while. */
  #tellEnd(): Promise<unknown> {
    const most =
      this.#command.patience.timeout === undefined ? undefined : this.#endDeadline + SERVER_END;
    return this.#supervisors.stopping(`${this.#shown} is unmounted; what is left is written`, most);
  }

  async #checkDisk(): Promise<void> {
    if (this.#loss !== undefined) {
      throw new CommandError(await this.#loss, { failure: 'unreachable' });
    }
    const { info } = this.#disk;
    if (info.readOnly || this.#command.readOnly || info.canFlush || info.canFua) return;
    say(
      `${this.#origin.name} can neither flush nor write through: what is written to ${this.#shown} may be lost with the server, also after an fsync`,
    );
  }

  /** Makes the mount. A server that is lost meanwhile is not waited for when the end is asked for. */
  #mountUnlessAsked(interruptions: Interruptions): Promise<Mount> {
    let isAsked = false;
    const giveUp = (): void => {
      if (isAsked && !this.#mounted && this.#disk.isDown) this.#disk.abort();
    };
    this.#disk.onDown = giveUp;
    void interruptions.next.then(() => {
      isAsked = true;
      giveUp();
    });
    return this.#mount();
  }

  async #mount(): Promise<Mount> {
    const { mountDisk } = await import('../fuse/mount.js');
    const mount = await mountDisk(this.#disk, this.#mountpoint, {
      readOnly: this.#command.readOnly,
      cache: this.#command.cache,
      trim: this.#command.trim,
      part: partOfCommand(this.#command),
      partitions: this.#command.partitions,
      exclusive: this.#origin.exclusive,
      source: this.#origin.mountSource,
      fuse: this.#command.fuse,
      endDeadline: this.#endDeadline,
      // Once the server is lost everything fails, which is told in one line.
      warn: (line) => {
        setImmediate(() => {
          if (this.#loss === undefined && !this.gaveUp) say(line);
        });
      },
    });
    this.#mounted = true;
    // Before the pidfile: who waits for that may ask at once.
    this.#control = this.#openControl(mount);
    native.busyPoll(BUSY_POLL, mount.inFlight, BUSY_POLL_REQUESTS);
    // The server may have died while the mount was made.
    if (this.#loss !== undefined) this.#report ??= this.#reportLoss(this.#loss);
    return mount;
  }

  /** Others may ask how the mount is and for its end, and wait for the end of this process. */
  #openControl(mount: Mount): ControlServer | undefined {
    const { path, name } = this.#mountpoint;
    return ControlServer.open(mount.device, {
      greeting: { mountpoint: path, isDirectory: name !== undefined },
      status: this.#observation.begin({ mount, disk: this.#disk, origin: this.#origin }),
      progress: () => mount.answered,
      request: async (what) => {
        if (what === 'detach') return mount.hide();
        this.#hurry();
        const result = await mount.unmount({ lazy: false });
        // Who goes on using it is not to lose a server that is back a little later.
        if (result === -constants.errno.EBUSY) this.#disk.hurryNoMore();
        return result;
      },
    });
  }

  /** Comes last: whoever waits for the end of this process is connected to it. */
  close(): void {
    this.#control?.stop();
  }

  /** Milliseconds: whatever the disk still does in them is not to be cut off. */
  get #endDeadline(): number {
    const { timeout } = this.#command.patience;
    if (timeout === undefined) return LONGEST_WAIT;
    return Math.min(LONGEST_WAIT, mostMilliseconds(timeout) + LAST_PATIENCE + END_SLACK);
  }

  /** @returns the exit status */
  async #untilEnd(mount: Mount, interruptions: Interruptions): Promise<ExitStatus> {
    let latest = new AbortController();
    for (let signals = 0; ;) {
      const event = await Promise.race([mount.ended, interruptions.next]);
      if ('flushError' in event) return this.#exitStatus(event);
      interruptions.take();
      if (event.kind === 'crash') throw new InternalError(event.error);
      traceMain('%s', event.signal);
      signals++;
      latest.abort();
      latest = new AbortController();
      // Neither is waited for: it may be a server that hangs for which the next signal is sent.
      this.#hurry();
      if (signals === 1) void this.#unmount(mount, latest.signal);
      else if (signals === 2) void this.#detach(mount, latest.signal);
      else return await this.#giveUp(mount);
    }
  }

  /** The end is wanted: a server that is lost is not waited for as long as it would be otherwise. */
  #hurry(): void {
    this.#disk.hurry(LAST_PATIENCE);
  }

  /**
   * An unmount writes back what is in the page cache, and waits for it where nobody tells us: it shows only
   * by the mount that is gone from its place.
   */
  async #hurryWhenUnmounted(mount: Mount): Promise<void> {
    while (this.#mounted && this.#disk.isDown) {
      if (!(await mount.isMounted())) {
        this.#hurry();
        return;
      }
      await delay(UNMOUNTED_INTERVAL);
    }
  }

  /** @throws InternalError where a bug of ours ended it */
  #exitStatus({ flushError, writeError, error }: MountEnd): ExitStatus {
    if (error !== undefined && !(error instanceof MountError)) throw new InternalError(error);
    this.#hangs = flushError === constants.errno.ETIMEDOUT;
    // That nothing could be flushed to a server that died has been told with its death.
    if (this.#loss !== undefined) return ExitStatus.LOST;
    if (error !== undefined) say(`the mount of ${this.#shown} ended: ${error.message}`);
    if (flushError !== 0) {
      say(
        `the last flush of ${this.#shown} failed (${errnoText(flushError)}): what was written last may be lost`,
      );
    }
    // The cause comes first: what the server refused is lost however the mount was ended.
    if (writeError !== 0) return ExitStatus.LOST;
    if (error !== undefined || this.#forced) return ExitStatus.FORCED;
    return flushError === 0 ? ExitStatus.SAFE : ExitStatus.LOST;
  }

  /**
   * After a first signal. The mount ends when this worked, and stays when it is busy.
   * @param superseded another signal has come
   */
  async #unmount(mount: Mount, superseded: AbortSignal): Promise<void> {
    let result = await mount.unmount({ lazy: false });
    let holders: string[] = [];
    const end = Date.now() + BUSY_PATIENCE;
    while (result === -constants.errno.EBUSY && !superseded.aborted) {
      holders = await findHolders(this.#mountpoint.path);
      // Nobody to be named: it was closed meanwhile, or the close is not over.
      if (holders.length > 0 || Date.now() > end) break;
      await delay(BUSY_INTERVAL);
      result = await mount.unmount({ lazy: false });
    }
    // Somebody else was faster.
    if (result === 0 || result === -constants.errno.EALREADY || superseded.aborted) return;
    // Its end is on its way to us, unless it was detached while it was open.
    if (
      result === -constants.errno.EINVAL &&
      (await within(mount.ended, BUSY_PATIENCE)) !== TOO_LATE
    ) {
      return;
    }
    // Who goes on using it is not to lose a server that is back a little later.
    if (result !== -constants.errno.EINVAL) this.#disk.hurryNoMore();
    const problem = await this.#unmountProblem(mount, -result, holders);
    this.#tell(problem, superseded);
  }

  /** What became of a signal, unless another has come since. @param what the end of a sentence */
  #tell(what: string, superseded: AbortSignal): void {
    if (!superseded.aborted) say(`${this.#shown} ${what}`);
  }

  /** @returns the end of a sentence about the file */
  async #unmountProblem(mount: Mount, code: number, holders: readonly string[]): Promise<string> {
    const again = 'send the signal again to detach it now';
    switch (code) {
      case constants.errno.EINVAL:
        return 'is mounted no more, but still open; close it, or send the signal again to end it now';
      case constants.errno.EBUSY: {
        const cover = await mount.cover();
        if (cover !== undefined) {
          return `cannot be unmounted: another mount (${cover}) is over it; unmount that first`;
        }
        const who = holders.length === 0 ? '' : `, held by ${holders.join(', ')}`;
        return `is busy${who}; close it and unmount with: ${unmountCommand(this.#mountpoint.shown)}, or ${again}`;
      }
      default:
        return `cannot be unmounted: ${errnoText(code)}`;
    }
  }

  /** After a second signal: the file leaves the folder at once, whoever holds it. */
  async #detach(mount: Mount, superseded: AbortSignal): Promise<void> {
    // Who had it open may have closed it since. One that hangs is not waited for.
    const ended = await within(mount.unmount({ lazy: false }), UNMOUNT_DEADLINE);
    if (ended === 0 || ended === -constants.errno.EALREADY) return;
    // What programs have written so far is in the page cache, which a detached mount takes along.
    const synced = await within(mount.save(), SYNC_DEADLINE);
    // What has not come about by then will hardly do so now.
    const hurry = synced === TOO_LATE ? { patience: HANG_PATIENCE } : {};
    this.#forced = synced !== true;
    const result = await mount.unmount({ lazy: true, ...hurry });
    traceMain('detached: %d, synced: %s', result, synced);
    if (result === -constants.errno.EALREADY) {
      this.#forced = false;
      return;
    }
    // EINVAL: somebody else has detached it before.
    if (result !== 0 && result !== -constants.errno.EINVAL) {
      this.#forced = false;
      this.#tell(await this.#unmountProblem(mount, -result, []), superseded);
      return;
    }
    this.#tell(
      synced === true
        ? 'was detached while it was open; what was written so far is on the disk'
        : 'was detached while it was open, and not all that was written could be saved',
      superseded,
    );
  }

  /** After a third signal: nothing is waited for any more. */
  async #giveUp(mount: Mount): Promise<ExitStatus> {
    this.gaveUp = true;
    await this.#report;
    say(`${this.#shown}: not all was written when it ended; what was written last may be lost`);
    // Before the mount: who waits in it, which may be threads of ours, waits for the disk.
    this.#disk.abort();
    await within(mount.abort(), UNDO_DEADLINE);
    return this.#loss === undefined ? ExitStatus.FORCED : ExitStatus.LOST;
  }
}

function partOfCommand({ partition, window }: MountCommand): Part | undefined {
  if (partition !== undefined) return { kind: 'partition', number: partition };
  return window === undefined ? undefined : { kind: 'range', ...window };
}
