/**
 * The connections of a disk to its server: which of them gets a request, and what becomes of the others'
 * requests when one is lost, or all are.
 */

import { errno } from '../errno.js';
import type { Reply } from '../disk/disk.js';
import { traceNbd } from '../trace.js';
import type { Transport } from '../transport/transport.js';
import { NbdConnection, SMALL_READ_BYTES } from './connection.js';
import type { ConnectionOptions } from './connection.js';
import { ConnectionPool } from './connection-pool.js';
import type { OwnForm, ReplyForm } from './connection-pool.js';
import { Command } from './constants.js';
import type { NegotiatedExport } from './export.js';
import { KeptCommand } from './in-flight.js';
import type { OpenedExport } from './open.js';
import { Recovery } from './recovery.js';
import type { RecoveryOptions } from './recovery.js';
import { Refill } from './refill.js';
import { differenceBetween, simpleDifferenceBetween } from './same-disk.js';

/** Milliseconds for what is in flight when the disk is closed. */
const CLOSE_DEADLINE = 10_000;

/** Why a server is not connected to again: see `joinNoMore`. */
const HIDDEN = ', and is not connected to again: what it serves may be hidden by the mount';

/** The most that a length of 32 bits can say, kept aligned to any block. */
export const MAX_RANGE = 0x1_0000_0000 - 65536;

export interface LinkOptions {
  /** Milliseconds for each command; a server that takes longer counts as lost. */
  readonly timeout?: number | undefined;
  /** Without it, all requests fail when the server is lost. */
  readonly recovery?: RecoveryOptions | undefined;
}

/** What is to be said about a command that cannot be sent now: all of `KeptCommand` that it has. */
export type Asked = Partial<Omit<KeptCommand, 'fail' | 'copyFrom'>> & Pick<KeptCommand, 'type'>;

export class ServerLink {
  readonly #agreed: NegotiatedExport;
  readonly #options: ConnectionOptions;
  readonly #recovery: Recovery | undefined;
  readonly #refill: Refill | undefined;
  readonly #pool = new ConnectionPool();
  /** How many of each form there were at the most. */
  readonly #most = { simple: 0, structured: 0 };
  /** How often all connections were lost. */
  #epoch = 0;
  /** Something was sent that changes the disk. */
  #changed = false;
  readonly #full = new AbortController();
  #mayReconnect = true;
  #closed: Promise<void> | undefined;
  /** Why the server is gone for good, as the end of a sentence about it. */
  #lost: string | undefined;
  #onLost: ((reason: string) => void) | undefined;
  /** Called whenever the server is lost and waited for. */
  onDown: (() => void) | undefined;
  /** Called whenever it is back. */
  onUp: (() => void) | undefined;

  /** @param hasCache what is answered may be gone with the server, until it is flushed */
  constructor(
    agreed: NegotiatedExport,
    hasCache: boolean,
    { timeout, recovery }: LinkOptions = {},
  ) {
    this.#agreed = agreed;
    if (recovery === undefined) {
      this.#options = { timeout };
      return;
    }
    this.#recovery = new Recovery(agreed, recovery, {
      connect: (opened) => this.#connect(opened.transport, opened.negotiated),
      admit: (connection) => {
        this.#admit(connection);
        this.#refill?.need();
      },
      send: (command) => this.#send(command),
      down: () => this.onDown?.(),
      up: () => this.onUp?.(),
      end: (reason) => this.#end(reason),
    });
    this.#refill = new Refill(recovery.open, {
      missing: () => this.#missing(),
      join: (opened) => this.join(opened),
    });
    const unflushed = hasCache ? this.#recovery.unflushed : undefined;
    this.#options = { timeout, unflushed, handsOver: true };
  }

  /** As of `NbdDisk`. */
  set onLost(told: ((reason: string) => void) | undefined) {
    this.#onLost = told;
    if (this.#lost !== undefined) told?.(this.#lost);
  }

  /** Given when no further connection is wanted. */
  get full(): AbortSignal {
    return this.#full.signal;
  }

  /** How many connections are in use. */
  get connections(): number {
    return this.#pool.all.length;
  }

  /** The server is lost, and waited for. */
  get isDown(): boolean {
    return this.#recovery?.isDown === true;
  }

  /** How often the server was lost and connected to again. */
  get reconnects(): number {
    return this.#recovery?.reconnects ?? 0;
  }

  /** Bytes that are kept since no flush has covered them. */
  get unflushedBytes(): number {
    return this.#recovery?.unflushed.payloadBytes ?? 0;
  }

  /** As of `NbdDisk`. */
  get trouble(): string | undefined {
    return this.#lost ?? this.#recovery?.trouble;
  }

  /** No request is taken any more. */
  get isOver(): boolean {
    return this.#lost !== undefined || this.#closed !== undefined;
  }

  // Making connections.

  /**
   * Uses a connection that leads to the disk, to the same run of its server as the others.
   * @param transport whose peer has just finished the handshake
   */
  add(transport: Transport, agreed: NegotiatedExport): void {
    if (this.#full.signal.aborted) transport.close();
    else this.#admit(this.#connect(transport, agreed));
  }

  #admit(connection: NbdConnection): void {
    this.#pool.add(connection);
    for (const form of ['simple', 'structured'] as const) {
      this.#most[form] = Math.max(this.#most[form], this.#pool.count(form));
    }
  }

  #connect(transport: Transport, agreed: NegotiatedExport): NbdConnection {
    const isOurs = (): boolean => this.#pool.all.includes(connection);
    const stalled = (reason: string): void => {
      if (isOurs()) this.#stalled(reason);
      else this.#recovery?.stalledAside(connection);
    };
    const connection = new NbdConnection(
      transport,
      agreed,
      (reason, leaving, unanswered) => {
        if (isOurs()) this.#connectionLost(connection, reason, leaving, unanswered);
        else this.#recovery?.lostAside(connection, leaving, unanswered);
      },
      { ...this.#options, stalled: this.#recovery === undefined ? undefined : stalled },
    );
    return connection;
  }

  /**
   * Uses a further connection, if it leads to the same disk, and to the same run of its server: a flush
   * over it is to cover what was written over the others. Otherwise closes it.
   */
  async join({ transport, negotiated }: OpenedExport): Promise<void> {
    const epoch = this.#epoch;
    const compare = negotiated.structuredReplies ? differenceBetween : simpleDifferenceBetween;
    const fits = compare(this.#agreed, negotiated) === undefined;
    // What answers now, after it was made, had not ended when it was made.
    const mayForget = this.#options.unflushed !== undefined && this.#changed;
    const sameRun = !mayForget || (await this.#answers());
    if (fits && sameRun && epoch === this.#epoch && !this.isDown) this.add(transport, negotiated);
    else transport.close();
  }

  /** Waits for an answer of the server, whatever it is. @returns false if there is nobody to ask */
  #answers(): Promise<boolean> {
    const connection = this.pick('rather simple');
    if (connection === undefined) return Promise.resolve(false);
    const { size, limits } = this.#agreed;
    const length = size < BigInt(limits.minimum) ? Number(size) : limits.minimum;
    return new Promise((resolve) => {
      connection.read(0n, length, {
        data: (_bytes, _start, owner) => {
          owner?.release();
          resolve(true);
        },
        fail: () => resolve(true),
      });
    });
  }

  /** The form of a connection that there was and is not now. */
  #missing(): OwnForm | undefined {
    if (this.#full.signal.aborted || this.isDown) return undefined;
    return (['structured', 'simple'] as const).find(
      (form) => this.#pool.count(form) < this.#most[form],
    );
  }

  /** Goes on with the connections that there are: none is made any more, not even to a server that was lost. */
  joinNoMore(): void {
    this.#mayReconnect = false;
    this.#full.abort();
    this.#refill?.stop();
  }

  // Requests.

  /** A connection for a request. @returns undefined where none can be sent now */
  pick(form: ReplyForm): NbdConnection | undefined {
    return this.isOver ? undefined : this.#pool.pick(form);
  }

  /** The same for what changes the disk, which has to be kept until it is flushed. */
  pickForChange(form: ReplyForm): NbdConnection | undefined {
    this.#changed = true;
    return this.#recovery?.isFull === true ? undefined : this.pick(form);
  }

  /** Answers what cannot be sent now, at once or when it can be. */
  later(asked: Asked): void {
    const command = Object.assign(new KeptCommand(), asked);
    if (this.#recovery === undefined || this.isOver) command.fail(errno.EIO);
    else this.#recovery.hold(command);
  }

  /** What a flush is to be answered through. */
  flushReply(reply: Reply): Reply {
    return this.#recovery?.flushReply(reply) ?? reply;
  }

  #send(command: KeptCommand): boolean {
    const connection = this.pick(formOf(command));
    connection?.again(command);
    return connection !== undefined;
  }

  // Losing connections.

  #connectionLost(
    connection: NbdConnection,
    reason: string,
    leaving: boolean,
    unanswered: readonly KeptCommand[],
  ): void {
    const recovery = this.#recovery;
    if (recovery === undefined) {
      // What was written over it and not flushed may be gone, so that going on with the others would
      // promise too much.
      this.#endWithServer(reason, leaving);
      return;
    }
    // What it may still answer has to be known before anything is sent to another run of the server.
    if (leaving) return;
    this.#pool.remove(connection);
    if (this.isOver) {
      for (const command of unanswered) command.fail(errno.EIO);
      return;
    }
    // The last one that can tell of extents is as good as the last one.
    if (this.#pool.count('structured') > 0 || !this.#agreed.structuredReplies) {
      if (this.connections > 0) {
        traceNbd('one of %d connections is lost: %s', this.connections + 1, reason);
        recovery.moved(unanswered);
        this.#refill?.need();
        return;
      }
    }
    const others = this.#pool.takeAll().flatMap((other) => other.giveUp());
    this.#allLost(reason, [...unanswered, ...others]);
  }

  #allLost(reason: string, unanswered: readonly KeptCommand[]): void {
    this.#epoch++;
    if (this.#mayReconnect) this.#recovery?.lost(reason, unanswered);
    else this.#recovery?.abandon(`${reason}${HIDDEN}`, unanswered);
  }

  /** A connection does not get its answers: most likely no other would. */
  #stalled(reason: string): void {
    // The end of all has a deadline of its own.
    if (this.isOver) return;
    const connections = this.#pool.takeAll();
    if (this.#mayReconnect) {
      this.#epoch++;
      this.#recovery?.stalled(reason, connections);
    } else {
      this.#allLost(
        reason,
        connections.flatMap((connection) => connection.giveUp()),
      );
    }
  }

  #endWithServer(reason: string, leaving: boolean): void {
    if (this.#lost !== undefined) return;
    this.#lost = reason;
    this.#full.abort();
    for (const connection of this.#pool.all) {
      // What a server that shuts down in good order has accepted it may still answer.
      if (leaving) void connection.close(CLOSE_DEADLINE);
      else connection.abort();
    }
    this.#onLost?.(reason);
  }

  /** The server will not be back. */
  #end(reason: string): void {
    this.#lost = reason;
    this.#full.abort();
    this.#refill?.stop();
    this.#onLost?.(reason);
  }

  // The end.

  /** As of `NbdDisk`. @param milliseconds in all */
  hurry(milliseconds: number): void {
    this.#recovery?.hurry(this.#options.timeout ?? 0, milliseconds);
  }

  /** As of `NbdDisk`. */
  hurryNoMore(): void {
    this.#recovery?.hurryNoMore();
  }

  /** Drops the connections at once; what is in flight gets EIO. `onLost` is not called. */
  abort(): void {
    this.#closed ??= Promise.resolve();
    this.#stop();
    for (const connection of this.#pool.all) connection.abort();
  }

  /** Waits for what is in flight, for a while. May be called twice. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#stop();
    await Promise.all(this.#pool.all.map((connection) => connection.close(CLOSE_DEADLINE)));
  }

  #stop(): void {
    this.#full.abort();
    this.#refill?.stop();
    this.#recovery?.stop();
  }
}

/** A range that only extended headers can say goes where these were agreed on. */
export const formFor = (length: number): ReplyForm =>
  length > MAX_RANGE ? 'structured' : 'rather simple';

function formOf({ type, length }: KeptCommand): ReplyForm {
  if (type === Command.BLOCK_STATUS) return 'structured';
  return type === Command.READ && length > SMALL_READ_BYTES ? 'rather structured' : formFor(length);
}
