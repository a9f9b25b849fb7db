/**
 * What becomes of a disk whose server is lost: it is waited for, and reconnected to. What was answered and
 * not flushed is sent again first (`unflushed.ts`, `replay.ts`), then what was not answered, then what came
 * meanwhile.
 *
 * That order is what makes it safe to send again what the server may have done: nothing that is newer has
 * been sent to it when it gets something older. A server that has kept all of it goes back to an older
 * content for a moment, in which nobody reads.
 */

import { errno, errnoText, errorText } from '../errno.js';
import type { Reply } from '../disk/disk.js';
import type { NbdConnection } from './connection.js';
import type { NegotiatedExport } from './export.js';
import { HeldCommands } from './held-commands.js';
import type { KeptCommand } from './in-flight.js';
import type { OpenedExport } from './open.js';
import { Progress, bytesText, secondsText } from './progress.js';
import { Attempts } from './reconnect.js';
import type { Open } from './reconnect.js';
import { Replay, replayOf } from './replay.js';
import { differenceBetween } from './same-disk.js';
import { Suspects } from './suspects.js';
import type { Unflushed } from './unflushed.js';

export interface RecoveryOptions {
  /** Milliseconds for which a server that is lost is waited for; what waits for it fails then. */
  readonly patience: number;
  /** It is tried after that as well, for what will be asked later. */
  readonly forever: boolean;
  /** Bytes that are kept because no flush has covered them. */
  readonly unflushedLimit: number;
  /** Connects to the server again. One at a time is asked for. */
  readonly open: Open;
  /** Told ends of sentences about the server, for the user. */
  readonly report: (line: string) => void;
}

/** The disk, as its recovery sees it. */
export interface Recovered {
  /** Makes a connection that the disk does not use yet. When it is lost, `lostAside` is called. */
  connect(opened: OpenedExport): NbdConnection;
  /** Uses it from now on. */
  admit(connection: NbdConnection): void;
  /** Sends a command, where there is a connection that takes it. @returns whether there is */
  send(command: KeptCommand): boolean;
  /** The server is lost, and waited for. */
  down(): void;
  /** It is back. */
  up(): void;
  /** It is of no more use. @param reason the end of a sentence about the server */
  end(reason: string): void;
}

/** From the loss of a server to its return, or to the end of all patience. */
interface Outage {
  readonly reason: string;
  readonly since: number;
  readonly stop: AbortController;
  timer: NodeJS.Timeout | undefined;
  lastError: unknown;
  /** It began with a command that was not answered in time. */
  isStall: boolean;
  /** Of a server that stalls, or has stalled while it was sent all again. */
  suspects: Suspects | undefined;
  /** What is sent again just now. */
  replay: Replay | undefined;
  /** The patience is over, and it is tried on. */
  isLong: boolean;
}

export class Recovery {
  readonly #held: HeldCommands;
  readonly #agreed: NegotiatedExport;
  readonly #options: RecoveryOptions;
  readonly #disk: Recovered;
  readonly #progress: Progress;
  #outage: Outage | undefined;
  /** Milliseconds of performance.now() at which an outage ends at the latest. */
  #endBy = Number.POSITIVE_INFINITY;
  #stopped = false;
  /** Something that was answered is lost: no flush may say otherwise from then on. */
  #unconfirmed = false;
  #reconnects = 0;

  constructor(agreed: NegotiatedExport, options: RecoveryOptions, disk: Recovered) {
    this.#agreed = agreed;
    this.#options = options;
    this.#disk = disk;
    this.#progress = new Progress(options.report);
    this.#held = new HeldCommands(options.unflushedLimit, {
      send: (command) => disk.send(command),
      isDown: () => this.isDown,
      isStopped: () => this.#stopped,
    });
  }

  /** What no flush has covered yet. */
  get unflushed(): Unflushed {
    return this.#held.unflushed;
  }

  /** The server is away. */
  get isDown(): boolean {
    return this.#outage !== undefined;
  }

  /** How often the server was lost and connected to again. */
  get reconnects(): number {
    return this.#reconnects;
  }

  /** What is wrong, as the end of a sentence about the server; undefined where nothing is. */
  get trouble(): string | undefined {
    if (this.#outage !== undefined) return this.#outage.reason;
    return this.#unconfirmed
      ? 'something that was written is lost or not confirmed, and syncs fail'
      : undefined;
  }

  /** Whether a write has to wait. */
  get isFull(): boolean {
    return this.unflushed.full;
  }

  /** Takes a command that cannot be sent now. It is answered in the end, whatever happens. */
  hold(command: KeptCommand): void {
    if (this.#stopped || this.#outage?.isLong === true) {
      command.fail(errno.EIO);
      return;
    }
    this.#held.add(command);
  }

  /** What a flush is answered with is to go through it. */
  flushReply(reply: Reply): Reply {
    // What is to be told shows when it is answered: it may have been held for long.
    return {
      done: (code) => {
        const earlier = this.#held.takeFlushError();
        if (code !== 0) reply.done(code);
        else reply.done(this.#unconfirmed ? errno.EIO : earlier);
      },
    };
  }

  // Outages.

  /**
   * A connection is lost, and there is no other one.
   * @param reason the end of a sentence about the server
   * @param unanswered what was sent to it
   */
  lost(reason: string, unanswered: readonly KeptCommand[]): void {
    if (this.#stopped) {
      for (const command of unanswered) command.fail(errno.EIO);
      return;
    }
    this.#startOutage(reason);
    this.#takeOver(unanswered);
    this.#disk.down();
  }

  /**
   * The server does not answer, and has not hung up.
   * @param connections all that there are, which the disk does not use any more
   */
  stalled(reason: string, connections: readonly NbdConnection[]): void {
    const outage = this.#startOutage(reason);
    outage.isStall = true;
    outage.suspects = new Suspects(connections, () => this.#back(outage));
    this.#disk.down();
  }

  /** A connection is lost that the disk does not use. @param leaving it is about to be: see `Lost` */
  lostAside(connection: NbdConnection, leaving: boolean, unanswered: readonly KeptCommand[]): void {
    const { suspects, replay } = this.#outage ?? {};
    if (suspects?.has(connection) === true) {
      if (leaving) return;
      suspects.remove(connection);
      this.#takeOver(unanswered);
    } else if (replay?.connection === connection) {
      replay.lost();
      // Nothing that it may still answer is waited for: all of it is kept, and sent again.
      if (leaving) connection.giveUp();
    } else {
      for (const command of unanswered) command.fail(errno.EIO);
    }
  }

  /** A connection does not get its answers that the disk does not use. */
  stalledAside(connection: NbdConnection): void {
    const outage = this.#outage;
    if (outage?.replay?.connection !== connection) return;
    // What it has it may still do, as long as it does not show that it lives. Then all is sent once more.
    outage.suspects = new Suspects([connection], () => this.#dropSuspects(outage));
    outage.replay.lost();
  }

  /** A connection is lost, and others are there for what was sent to it. */
  moved(unanswered: readonly KeptCommand[]): void {
    this.#takeOver(unanswered);
    this.#held.send();
  }

  #takeOver(unanswered: readonly KeptCommand[]): void {
    const now = performance.now();
    const { patience } = this.#options;
    const tooLate: KeptCommand[] = [];
    const again: KeptCommand[] = [];
    for (const command of unanswered) {
      // What it repeats is still kept.
      if (command.isReplay) continue;
      if (command.lostAt === 0) command.lostAt = now;
      // It may be the command that the server dies of.
      (now - command.lostAt > patience ? tooLate : again).push(command);
    }
    // They came before what is held, which may wait for room only.
    this.#held.addFirst(again);
    for (const command of tooLate) command.fail(errno.EIO);
  }

  #startOutage(reason: string): Outage {
    const since = performance.now();
    const outage: Outage = {
      reason,
      since,
      stop: new AbortController(),
      timer: undefined,
      lastError: undefined,
      isStall: false,
      suspects: undefined,
      replay: undefined,
      isLong: false,
    };
    this.#outage = outage;
    this.#setTimer(outage);
    const most = Math.max(0, this.#deadlineOf(outage) - since);
    this.#progress.lost(reason, most, this.#options.forever);
    this.#recover(outage).catch((error: unknown) => {
      if (!outage.stop.signal.aborted) throw error;
    });
    return outage;
  }

  #deadlineOf({ since }: Outage): number {
    return Math.min(since + this.#options.patience, this.#endBy);
  }

  #setTimer(outage: Outage): void {
    clearTimeout(outage.timer);
    const left = Math.max(0, this.#deadlineOf(outage) - performance.now());
    outage.timer = setTimeout(() => this.#tooLate(outage), left);
  }

  async #recover(outage: Outage): Promise<void> {
    const { signal } = outage.stop;
    const { open } = this.#options;
    const attempts = new Attempts((ends, failed) =>
      open(ends, failed, this.#agreed.structuredReplies),
    );
    for (;;) {
      const opened = await attempts.open(signal, (error) => {
        outage.lastError = error;
        // It may take one client at a time.
        this.#dropSuspects(outage);
        const left = outage.isLong ? 0 : this.#deadlineOf(outage) - performance.now();
        this.#progress.failed(error, left);
      });
      const difference = differenceBetween(this.#agreed, opened.negotiated);
      if (difference !== undefined) {
        opened.transport.close();
        this.#giveUp(`is back with another disk: ${difference}`);
        return;
      }
      await outage.suspects?.settle();
      if (signal.aborted) opened.transport.close();
      signal.throwIfAborted();
      this.#dropSuspects(outage);
      if (await this.#resume(outage, opened)) return;
      outage.lastError = new Error('it was lost again');
    }
  }

  #dropSuspects(outage: Outage): void {
    const { suspects } = outage;
    outage.suspects = undefined;
    if (suspects !== undefined) this.#takeOver(suspects.giveUp());
  }

  /** @returns whether the server is back */
  async #resume(outage: Outage, opened: OpenedExport): Promise<boolean> {
    const connection = this.#disk.connect(opened);
    const commands = replayOf(this.unflushed.newestFirst());
    const replay = new Replay(connection, commands);
    outage.replay = replay;
    replay.start();
    const { lost, refusedBytes, code } = await replay.ended;
    outage.replay = undefined;
    if (outage.stop.signal.aborted) connection.abort();
    outage.stop.signal.throwIfAborted();
    if (lost || !connection.usable) return false;
    if (refusedBytes > 0) {
      this.#unconfirmed = true;
      this.#progress.tell(
        `${bytesText(refusedBytes)} that were written before it was lost could not be written again (${errnoText(code)}): syncs fail from now on`,
      );
    }
    this.#reconnects++;
    this.#over(outage, [connection], commands.length);
    return true;
  }

  /** A server that stalled has answered all that it was asked. */
  #back(outage: Outage): void {
    const connections = outage.suspects?.take() ?? [];
    outage.suspects = undefined;
    outage.stop.abort();
    this.#over(outage, connections, 0);
  }

  #over(outage: Outage, connections: readonly NbdConnection[], replayed: number): void {
    clearTimeout(outage.timer);
    this.#outage = undefined;
    for (const connection of connections) this.#disk.admit(connection);
    const requests = replayed + this.#held.count;
    this.#held.send();
    this.#progress.restored(requests);
    this.#disk.up();
    if (this.unflushed.full) this.#held.makeRoom();
  }

  #tooLate(outage: Outage): void {
    const waited = secondsText(performance.now() - outage.since);
    const { lastError } = outage;
    const why = lastError === undefined ? '' : ` (${errorText(lastError)})`;
    if (!this.#options.forever) {
      this.#giveUp(`${outage.reason}, and was not back within ${waited}${why}`);
      return;
    }
    outage.isLong = true;
    const lost = this.#failAll();
    this.#progress.tell(
      `not back within ${waited}${why}${lost}; it gives I/O errors until it is back`,
    );
  }

  /** A server is lost that must not be connected to again. */
  abandon(reason: string, unanswered: readonly KeptCommand[]): void {
    this.#stopped = true;
    this.#takeOver(unanswered);
    this.#giveUp(reason);
  }

  #giveUp(reason: string): void {
    this.#disk.end(`${reason}${this.#stop()}`);
  }

  /** @returns what is to be said of what is lost */
  #stop(): string {
    this.#stopped = true;
    clearTimeout(this.#outage?.timer);
    this.#outage?.stop.abort();
    const lost = this.#failAll();
    this.#outage = undefined;
    return lost;
  }

  /** @returns what is to be said of what is lost */
  #failAll(): string {
    const outage = this.#outage;
    // What is sent is about to be somebody else's memory.
    outage?.replay?.abandon();
    if (outage !== undefined) this.#dropSuspects(outage);
    const wasWritten = !this.unflushed.empty;
    const bytes = this.unflushed.forget();
    if (wasWritten) this.#unconfirmed = true;
    this.#held.fail(errno.EIO);
    return wasWritten
      ? `; ${bytesText(bytes)} that were written and not yet flushed are not confirmed`
      : '';
  }

  /**
   * From now on a server that is lost is not waited for any longer than that, in all.
   * @param timeout milliseconds for what is in flight, unless that has taken as long already
   * @param milliseconds beside it
   */
  hurry(timeout: number, milliseconds: number): void {
    const left = this.#outage?.isStall === true ? milliseconds : timeout + milliseconds;
    this.#endBy = Math.min(this.#endBy, performance.now() + left);
    this.#reviseDeadline();
  }

  /** The end that was wanted does not come: a server is waited for as long as before. */
  hurryNoMore(): void {
    this.#endBy = Number.POSITIVE_INFINITY;
    this.#reviseDeadline();
  }

  #reviseDeadline(): void {
    if (this.#outage !== undefined && !this.#outage.isLong) this.#setTimer(this.#outage);
  }

  /** Nothing is waited for any more: what is held gets EIO, now and later. May be called twice. */
  stop(): void {
    this.#stop();
  }
}
