/** The commands that were sent and are not answered yet, by their cookies. */

import type { Extent, ExtentsReply, ReadReply, Reply } from '../disk/disk.js';
import type { CommandType } from './constants.js';
import { Command } from './constants.js';
import { RangeSet } from './range-set.js';

/** One command. The objects are kept and used again, so that a command costs no allocation. */
export class PendingCommand {
  /** High half of the cookie: how often the object was used, so that an old cookie is not taken for a new one. */
  generation = 0;
  active = false;
  type: CommandType = Command.READ;
  offset = 0n;
  /** In bytes. */
  length = 0;
  /** Exactly one of the three, by the type. */
  reply: Reply | undefined;
  readReply: ReadReply | undefined;
  extentsReply: ExtentsReply | undefined;

  // What structured replies have told so far.
  /** The first error, as a Linux errno, or 0. */
  errno = 0;
  /** Where a read is put together whose answer does not come in one piece. */
  place: Buffer | undefined;
  readonly received = new RangeSet();
  extents: Extent[] | undefined;

  constructor(
    /** Low half of the cookie. */
    readonly index: number,
  ) {}
}

export class InFlight {
  readonly #commands: PendingCommand[] = [];
  readonly #free: PendingCommand[] = [];
  #payloadBytes = 0;

  /** How many bytes of data the commands in flight move, either way. */
  get payloadBytes(): number {
    return this.#payloadBytes;
  }

  /** How many commands are in flight. */
  get count(): number {
    return this.#commands.length - this.#free.length;
  }

  /** A command that is in flight from now on. */
  add(type: CommandType, offset: bigint, length: number): PendingCommand {
    let command = this.#free.pop();
    if (command === undefined) {
      command = new PendingCommand(this.#commands.length);
      this.#commands.push(command);
    }
    command.generation = (command.generation + 1) >>> 0;
    command.active = true;
    command.type = type;
    command.offset = offset;
    command.length = length;
    command.errno = 0;
    if (carriesData(type)) this.#payloadBytes += length;
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
    command.place = undefined;
    command.extents = undefined;
    command.received.clear();
    this.#free.push(command);
  }

  /** Takes all out and answers each with the errno. */
  failAll(code: number): void {
    for (const command of [...this.#commands]) {
      if (command.active) this.fail(command, code);
    }
  }

  /** Takes one out and answers it with the errno, which is positive. */
  fail(command: PendingCommand, code: number): void {
    const { reply, readReply, extentsReply } = command;
    this.remove(command);
    reply?.done(code);
    readReply?.fail(code);
    extentsReply?.fail(code);
  }
}

const carriesData = (type: CommandType): boolean => type === Command.READ || type === Command.WRITE;
