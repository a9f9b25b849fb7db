/** A client's socket, whose input can be ended from our side. */

import { FdTransport } from '../transport/fd-transport.js';
import type { TransportEvents } from '../transport/transport.js';

export class SocketTransport extends FdTransport {
  #events: TransportEvents | undefined;
  #ended = false;

  override open(events: TransportEvents): void {
    this.#events = events;
    super.open(events);
  }

  override receive(bytes: Buffer, start: number, length: number): number {
    return this.#ended ? 0 : super.receive(bytes, start, length);
  }

  /** From now on it is as if the client had closed its side: whoever receives is told so at once. */
  endInput(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#events?.readable();
  }
}
