/**
 * A byte stream to a peer, as the connections of the client and of the embedded server use it.
 * Receiving is by pull, straight into the place where the bytes are wanted; sending is by queueing
 * pieces that go out together, at the latest when the current turn of the event loop ends.
 */

import type { Owner } from '../buffer-pool.js';

export interface TransportEvents {
  /** There may be something to receive, or the end, or an error: call `receive` to learn which. */
  readable(): void;
  /** Sending failed; nothing more will go out. Called once at the most. @param errno positive */
  sendFailed(errno: number): void;
  /** All that was queued has left, after `queuedBytes` was over 0 at the end of a turn. */
  drained(): void;
}

export interface Transport {
  /** Starts the events; a later call hands the transport to another receiver of them. */
  open(events: TransportEvents): void;

  /**
   * Up to `length` bytes to `bytes` from `start` on.
   * @returns how many; 0 at the end of the stream; -EAGAIN when there is nothing now; or a negated errno
   */
  receive(bytes: Buffer, start: number, length: number): number;

  /** No `readable` until `resume`. */
  pause(): void;
  resume(): void;

  /** Queues `length` bytes of `bytes` from `start` on, which stay as they are until they have
   * left, or never will; then their owner is told. */
  send(bytes: Buffer, start: number, length: number, owner?: Owner): void;

  /** Sends what is queued as far as the peer takes it, without waiting for the end of the turn. */
  flush(): void;

  /** What is queued and has not left. */
  readonly queuedBytes: number;

  /** No event comes after it. What is queued and has not left never will. May be called twice. */
  close(): void;

  /**
   * The same in a hurry: nor will what has left and has not arrived, as far as the system lets us. A server
   * that is cut off must not get it when the network is back.
   */
  reset(): void;
}
