/** The connections to one export, and which of them gets a request. */

import type { NbdConnection } from './connection.js';

/**
 * In what form the answer to a request had better come, or has to. A simple reply is cheaper: nbdkit
 * needs two system calls for one to READ, and three for one in chunks. Only chunks tell of holes.
 */
export type ReplyForm = 'rather simple' | 'rather structured' | 'structured';

/** What a connection was agreed to answer with. */
export type OwnForm = 'simple' | 'structured';

/** Connections that are as good as each other. */
class Group {
  readonly all: NbdConnection[] = [];
  /** The one that gets the next request, unless it is full. */
  #current: NbdConnection | undefined;

  /**
   * One connection takes what comes until it is full, then the one with the least to do is next. So
   * what comes together leaves together, and still all of them are used.
   */
  pick(): NbdConnection | undefined {
    if (this.#current?.full === false && this.#current.usable) return this.#current;
    let best: NbdConnection | undefined;
    for (const connection of this.all) {
      if (!connection.usable) continue;
      if (best === undefined || connection.load < best.load) best = connection;
    }
    this.#current = best;
    return best;
  }

  remove(connection: NbdConnection): void {
    const at = this.all.indexOf(connection);
    if (at >= 0) this.all.splice(at, 1);
    this.#current = undefined;
  }
}

export class ConnectionPool {
  readonly #any = new Group();
  readonly #simple = new Group();
  readonly #structured = new Group();

  add(connection: NbdConnection): void {
    this.#any.all.push(connection);
    (connection.structured ? this.#structured : this.#simple).all.push(connection);
  }

  remove(connection: NbdConnection): void {
    for (const group of [this.#any, this.#simple, this.#structured]) group.remove(connection);
  }

  /** Empties it. */
  takeAll(): NbdConnection[] {
    const taken = [...this.all];
    for (const connection of taken) this.remove(connection);
    return taken;
  }

  /** How many of one form there are. */
  count(form: OwnForm): number {
    return (form === 'simple' ? this.#simple : this.#structured).all.length;
  }

  get all(): readonly NbdConnection[] {
    return this.#any.all;
  }

  /**
   * What had rather one form takes the other as well when the connections with that form are full:
   * one that waits costs more than a system call, or a hole that is sent.
   * @returns undefined if there is none that takes it now
   */
  pick(form: ReplyForm): NbdConnection | undefined {
    if (form === 'structured') {
      // Those that are there may all be about to go, and the others can never do it.
      return (this.#structured.all.length > 0 ? this.#structured : this.#simple).pick();
    }
    const best = (form === 'rather simple' ? this.#simple : this.#structured).pick();
    return best?.full === false ? best : this.#any.pick();
  }
}
