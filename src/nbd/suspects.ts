/**
 * Connections of a server that stalls. What it has of them it may still do once it goes on, and an NBD server
 * cannot be told not to: if they were hung up at once, it might do something old after something newer that came
 * over another connection. They are kept until the server shows that it lives, by answering all that they
 * asked, or by taking a new connection; in that case it gets a moment for what it has of the old ones.
 */

import type { NbdConnection } from './connection.js';
import type { KeptCommand } from './in-flight.js';

/** Milliseconds for a server that lives to do what it has. */
const GRACE = 1_000;
const LOOK_INTERVAL = 20;

export class Suspects {
  #connections: NbdConnection[];
  readonly #timer: NodeJS.Timeout;
  #settled: (() => void) | undefined;

  /** @param answered called when nothing is in flight any more, once; they are as good as ever then */
  constructor(connections: readonly NbdConnection[], answered: () => void) {
    this.#connections = [...connections];
    this.#timer = setInterval(() => {
      if (this.#connections.length === 0) this.#end();
      else if (this.#connections.every(({ usable, load }) => usable && load === 0)) {
        answered();
        this.#end();
      }
    }, LOOK_INTERVAL);
  }

  #end(): void {
    clearInterval(this.#timer);
    this.#settled?.();
  }

  /** One is lost. @returns whether it was one of them */
  remove(connection: NbdConnection): boolean {
    const at = this.#connections.indexOf(connection);
    if (at >= 0) this.#connections.splice(at, 1);
    return at >= 0;
  }

  has(connection: NbdConnection): boolean {
    return this.#connections.includes(connection);
  }

  /** The server lives: waits until all is answered, for a moment at the most. */
  async settle(): Promise<void> {
    if (this.#connections.length === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, GRACE);
      this.#settled = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** They are the caller's again. */
  take(): NbdConnection[] {
    clearInterval(this.#timer);
    return this.#connections.splice(0);
  }

  /** Hangs up. @returns what was not answered */
  giveUp(): KeptCommand[] {
    return this.take().flatMap((connection) => connection.giveUp());
  }
}
