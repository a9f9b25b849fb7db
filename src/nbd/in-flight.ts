/** The commands that were sent and are not answered yet, by their cookies. */

import { errno } from '../errno.js';
import type { Extent, ExtentsReply, ReadReply, Reply } from '../disk/disk.js';
import type { StatusExtent, StatusReply } from './block-status.js';
import type { CommandType } from './constants.js';
import { Command } from './constants.js';
import { RangeSet } from './range-set.js';

/** All that is needed to send a command, and to send it again when its connection is lost. */
export class KeptCommand {
  type: CommandType = Command.READ;
  /** CommandFlag bits. */
  flags = 0;
  offset = 0n;
  /** In bytes. */
  length = 0;
  /** Of a WRITE: its payload is `length` bytes from `start` on. */
  bytes: Buffer | undefined;
  start = 0;
  /** Exactly one of the four, by the type; of a BLOCK_STATUS one of the last two. */
  reply: Reply | undefined;
  readReply: ReadReply | undefined;
  extentsReply: ExtentsReply | undefined;
  statusReply: StatusReply | undefined;
  /** When a connection was first lost under it (performance.now()), or 0. */
  lostAt = 0;
  /** It sends again what was answered before, so that there is nothing about it to be kept. */
  isReplay = false;

  /** Answers it with the errno, which is positive. Its connection must have let go of it. */
  fail(code: number): void {
    this.reply?.done(code);
    this.readReply?.fail(code);
    this.extentsReply?.fail(code);
    this.statusReply?.fail(code);
  }

  copyFrom(other: KeptCommand): void {
    this.type = other.type;
    this.flags = other.flags;
    this.offset = other.offset;
    this.length = other.length;
    this.bytes = other.bytes;
    this.start = other.start;
    this.reply = other.reply;
    this.readReply = other.readReply;
    this.extentsReply = other.extentsReply;
    this.statusReply = other.statusReply;
    this.lostAt = other.lostAt;
    this.isReplay = other.isReplay;
  }
}

/** One command in flight. The objects are kept and used again, so that a command costs no allocation. */
export class PendingCommand extends KeptCommand {
  /** High half of the cookie: how often the object was used, so that an old cookie is not taken for a new one. */
  generation = 0;
  active = false;

  // What structured replies have told so far.
  /** The first error, as a Linux errno, or 0. */
  errno = 0;
  /** How many errors it told of. */
  errorChunks = 0;
  /** Where a read is put together whose answer does not come in one piece. */
  place: Buffer | undefined;
  readonly received = new RangeSet();
  extents: Extent[] | undefined;
  /** The same for whoever asked for all contexts, by their names. */
  statuses: Map<string, StatusExtent[]> | undefined;

  /** Of a FLUSH: see `Unflushed.mark`. */
  mark = 0;
  // Of StallWatch.
  /** The tick from which on it is waited for. */
  since = 0;
  /** How many bytes the connection has to have moved before it is the turn of this one. */
  due = 0;

  constructor(
    /** Low half of the cookie. */
    readonly index: number,
  ) {
    super();
  }
}

/** Told of what the server has answered, before whoever asked is. */
export interface AnswerWatch {
  /** A command has succeeded that is not a read. */
  succeeded(command: PendingCommand): void;
  /** The server has refused a FLUSH. */
  flushFailed(code: number): void;
}

export class InFlight {
  readonly #commands: PendingCommand[] = [];
  readonly #free: PendingCommand[] = [];
  readonly #watch: AnswerWatch | undefined;
  /** What a server that shuts down has refused, where somebody else may take it. */
  readonly #refused: KeptCommand[] | undefined;
  #payloadBytes = 0;

  /**
   * @param watch where somebody wants to know
   * @param handsOver a server that shuts down refuses what another one may still do: it is kept for `takeAll`
   */
  constructor(watch?: AnswerWatch, handsOver = false) {
    this.#watch = watch;
    this.#refused = handsOver ? [] : undefined;
  }

  /** How many bytes of data the commands in flight move, either way. */
  get payloadBytes(): number {
    return this.#payloadBytes;
  }

  /** How many commands are in flight. */
  get count(): number {
    return this.#commands.length - this.#free.length;
  }

  /** In no order. */
  *[Symbol.iterator](): Generator<PendingCommand, void> {
    for (const command of this.#commands) if (command.active) yield command;
  }

  /** A command that is in flight from now on. */
  add(type: CommandType, flags: number, offset: bigint, length: number): PendingCommand {
    const command = this.#next();
    command.type = type;
    command.flags = flags;
    command.offset = offset;
    command.length = length;
    command.lostAt = 0;
    command.isReplay = false;
    if (carriesData(type)) this.#payloadBytes += length;
    return command;
  }

  /** The same for a command that was kept. */
  addKept(kept: KeptCommand): PendingCommand {
    const command = this.#next();
    command.copyFrom(kept);
    if (carriesData(kept.type)) this.#payloadBytes += kept.length;
    return command;
  }

  #next(): PendingCommand {
    let command = this.#free.pop();
    if (command === undefined) {
      command = new PendingCommand(this.#commands.length);
      this.#commands.push(command);
    }
    command.generation = (command.generation + 1) >>> 0;
    command.active = true;
    command.errno = 0;
    command.errorChunks = 0;
    return command;
  }

  /** The command in flight with this cookie. */
  find(cookieHigh: number, cookieLow: number): PendingCommand | undefined {
    const command = this.#commands[cookieLow];
    return command?.active === true && command.generation === cookieHigh ? command : undefined;
  }

  /** Takes a command out. Do so before it is answered, since the answer may lead to a new one. */
  remove(command: PendingCommand): void {
    command.active = false;
    if (carriesData(command.type)) this.#payloadBytes -= command.length;
    command.reply = undefined;
    command.readReply = undefined;
    command.extentsReply = undefined;
    command.statusReply = undefined;
    command.bytes = undefined;
    command.place = undefined;
    command.extents = undefined;
    command.statuses = undefined;
    command.received.clear();
    this.#free.push(command);
  }

  /** The server has done what is not a read: takes it out and answers it. */
  succeed(command: PendingCommand, reply: Reply): void {
    this.#watch?.succeeded(command);
    this.remove(command);
    reply.done(0);
  }

  /** The server has answered with an error: takes the command out and passes that on. */
  refuse(command: PendingCommand, code: number): void {
    if (code === errno.ESHUTDOWN && this.#refused !== undefined) {
      this.#refused.push(this.#release(command));
      return;
    }
    if (command.type === Command.FLUSH) this.#watch?.flushFailed(code);
    this.fail(command, code);
  }

  /** Takes all out, with what a server that shuts down has refused, and leaves it to the caller to answer them. */
  takeAll(): KeptCommand[] {
    const taken = this.#refused?.splice(0) ?? [];
    for (const command of this.#commands) if (command.active) taken.push(this.#release(command));
    return taken;
  }

  #release(command: PendingCommand): KeptCommand {
    const kept = new KeptCommand();
    kept.copyFrom(command);
    this.remove(command);
    return kept;
  }

  /** Takes all out and answers each with the errno. */
  failAll(code: number): void {
    for (const command of this.takeAll()) command.fail(code);
  }

  /** Takes one out and answers it with the errno, which is positive. */
  fail(command: PendingCommand, code: number): void {
    const { reply, readReply, extentsReply, statusReply } = command;
    this.remove(command);
    reply?.done(code);
    readReply?.fail(code);
    extentsReply?.fail(code);
    statusReply?.fail(code);
  }
}

const carriesData = (type: CommandType): boolean => type === Command.READ || type === Command.WRITE;
