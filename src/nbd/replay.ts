/** Sends again what was answered and not flushed, to a server that may have forgotten it. */

import { Ranges } from '../disk/ranges.js';
import type { NbdConnection } from './connection.js';
import { Command, CommandFlag } from './constants.js';
import { KeptCommand } from './in-flight.js';
import type { UnflushedEntry } from './unflushed.js';

/** How much is under way at once: enough to keep a server busy. */
const MOST_COMMANDS = 16;
const MOST_BYTES = 4 * 1024 * 1024;

/**
 * The commands that give a disk the content which the entries gave it. Of what was written several times
 * only the newest is sent, so that no two of them overlap: a server may then do them in any order, and
 * doing them twice does no harm.
 * @param newestFirst in the order of their answers, from the last to the first
 */
export function replayOf(newestFirst: readonly UnflushedEntry[]): KeptCommand[] {
  const newer = new Ranges();
  const commands: KeptCommand[] = [];
  for (const { type, flags, offset, length, bytes, start } of newestFirst) {
    const end = offset + BigInt(length);
    if ((flags & CommandFlag.FUA) === 0) {
      for (const gap of newer.gaps(offset, end)) {
        const command = new KeptCommand();
        command.type = type;
        command.flags = flags;
        command.offset = gap.start;
        command.length = Number(gap.end - gap.start);
        if (type === Command.WRITE) {
          command.bytes = bytes;
          command.start = start + Number(gap.start - offset);
        }
        command.isReplay = true;
        commands.push(command);
      }
    }
    newer.add(offset, end);
  }
  return commands;
}

export interface ReplayEnd {
  /** The connection was lost before all was answered. */
  readonly lost: boolean;
  /** What the server has refused to do again: how many bytes, and the first error, or 0. */
  readonly refusedBytes: number;
  readonly code: number;
}

/** One replay over one connection, which nothing else uses meanwhile. */
export class Replay {
  readonly ended: Promise<ReplayEnd>;
  readonly connection: NbdConnection;
  readonly #commands: readonly KeptCommand[];
  #next = 0;
  #underWay = 0;
  #underWayBytes = 0;
  #refusedBytes = 0;
  #code = 0;
  #isOver = false;
  #resolve: (end: ReplayEnd) => void = () => undefined;

  constructor(connection: NbdConnection, commands: readonly KeptCommand[]) {
    this.connection = connection;
    this.#commands = commands;
    this.ended = new Promise((resolve) => (this.#resolve = resolve));
  }

  start(): void {
    this.#go();
  }

  #go(): void {
    for (;;) {
      if (this.#isOver) return;
      const command = this.#commands[this.#next];
      if (command === undefined) {
        if (this.#underWay === 0) this.#end(false);
        return;
      }
      if (!this.connection.usable) return;
      if (this.#underWay >= MOST_COMMANDS || this.#underWayBytes >= MOST_BYTES) return;
      this.#next++;
      this.#send(command);
    }
  }

  #send(command: KeptCommand): void {
    const bytes = command.bytes === undefined ? 0 : command.length;
    command.reply = {
      done: (code) => {
        this.#underWay--;
        this.#underWayBytes -= bytes;
        // What a trim leaves is undefined anyway.
        if (code !== 0 && command.type !== Command.TRIM) {
          this.#refusedBytes += command.length;
          if (this.#code === 0) this.#code = code;
        }
        this.#go();
      },
    };
    this.#underWay++;
    this.#underWayBytes += bytes;
    this.connection.again(command);
  }

  /** The connection is lost. */
  lost(): void {
    this.#end(true);
  }

  /** Sends nothing more, not even what is queued. */
  abandon(): void {
    this.#end(true);
    // Not by a plain close, after which what has left us would still arrive.
    this.connection.giveUp();
  }

  #end(lost: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#resolve({ lost, refusedBytes: this.#refusedBytes, code: this.#code });
  }
}
