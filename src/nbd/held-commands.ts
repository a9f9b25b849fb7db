/**
 * The commands that cannot be sent now: for the server that is away, or for room among what is not flushed, which a
 * flush of ours makes.
 */

import { errnoText } from '../errno.js';
import type { Reply } from '../disk/disk.js';
import { traceNbd } from '../trace.js';
import { Command } from './constants.js';
import { KeptCommand } from './in-flight.js';
import { Unflushed } from './unflushed.js';

export interface HeldCommandsHandlers {
  /** Sends a command, where there is a connection that takes it. @returns whether there is */
  readonly send: (command: KeptCommand) => boolean;
  /** The server is away: nothing is sent. */
  readonly isDown: () => boolean;
  /** Nothing is sent any more. */
  readonly isStopped: () => boolean;
}

export class HeldCommands {
  /** What was answered and no flush has covered. */
  readonly unflushed: Unflushed;
  readonly #handlers: HeldCommandsHandlers;
  /** In the order of their arrival. */
  #commands: KeptCommand[] = [];
  /** Of a flush of ours that failed: whoever flushes next is told, or 0. */
  #flushError = 0;
  #flushing = false;
  readonly #flushReply: Reply = {
    done: (code) => {
      this.#flushing = false;
      if (code !== 0) this.#flushFailed(code);
      // It may have covered none of what fills it: another one that was sent later was answered earlier.
      else if (this.count > 0) this.makeRoom();
    },
  };

  /** @param unflushedLimit bytes; with more, what changes the disk waits */
  constructor(unflushedLimit: number, handlers: HeldCommandsHandlers) {
    this.#handlers = handlers;
    this.unflushed = new Unflushed(unflushedLimit, {
      flushWanted: () => this.makeRoom(),
      covered: () => this.#covered(),
      flushFailed: () => undefined,
    });
  }

  get count(): number {
    return this.#commands.length;
  }

  add(command: KeptCommand): void {
    this.#commands.push(command);
    this.makeRoom();
  }

  /** Those that came before all that is held. */
  addFirst(commands: readonly KeptCommand[]): void {
    this.#commands = [...commands, ...this.#commands];
  }

  /** Sends those that may go, in their order. */
  send(): void {
    const held = this.#take();
    for (const command of held) {
      if (!this.#mayGo(command) || !this.#handlers.send(command)) this.#commands.push(command);
    }
    // What waits for room has a flush under way that makes it.
    if (this.count > 0) this.makeRoom();
  }

  /** @param code what all of them get, an errno */
  fail(code: number): void {
    for (const command of this.#take()) command.fail(code);
  }

  /** Flushes in the background, unless that is under way, or nothing can be sent. */
  makeRoom(): void {
    if (this.#flushing || this.#handlers.isDown() || this.#handlers.isStopped()) return;
    const flush = new KeptCommand();
    flush.type = Command.FLUSH;
    flush.reply = this.#flushReply;
    this.#flushing = true;
    if (!this.#handlers.send(flush)) this.#flushing = false;
  }

  /** @returns the errno of a flush of ours that failed, which nobody was told of, or 0 */
  takeFlushError(): number {
    const code = this.#flushError;
    this.#flushError = 0;
    return code;
  }

  #take(): KeptCommand[] {
    const held = this.#commands;
    this.#commands = [];
    return held;
  }

  #covered(): void {
    if (!this.#handlers.isDown() && this.count > 0) this.send();
  }

  #flushFailed(code: number): void {
    if (this.#handlers.isStopped()) return;
    traceNbd('a flush in the background failed: %s', errnoText(code));
    // A server may tell of it once only, also one that stalls and goes on.
    this.#flushError = code;
    // Nothing else makes room for them.
    if (!this.#handlers.isDown()) this.fail(code);
  }

  #mayGo({ type }: KeptCommand): boolean {
    return !this.unflushed.full || !changes(type);
  }
}

const changes = (type: KeptCommand['type']): boolean =>
  type === Command.WRITE || type === Command.WRITE_ZEROES || type === Command.TRIM;
