/** What a socket receives, taken piece by piece by a server that is written as a dialogue. */

import type { Socket } from 'node:net';

export class Incoming {
  readonly #socket: Socket;
  #over = false;
  #wake: () => void = () => undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('readable', () => this.#wake());
    for (const event of ['end', 'error', 'close']) {
      socket.on(event, () => {
        this.#over = true;
        this.#wake();
      });
    }
  }

  /** Exactly so many bytes, or undefined when the peer has hung up before. */
  async take(count: number): Promise<Buffer | undefined> {
    if (count === 0) return Buffer.alloc(0);
    for (;;) {
      const bytes = this.#socket.read(count) as Buffer | null;
      if (bytes?.length === count) return bytes;
      // At the end a read gives what is left.
      if (bytes !== null || this.#over) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}
