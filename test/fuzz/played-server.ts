/** A server without a socket that does what is asked, or fails, lies and leaves, as it is told for each command. */

import { errno } from '../../src/errno.js';
import type { Owner } from '../../src/buffer-pool.js';
import { Command } from '../../src/nbd/constants.js';
import type { Transport, TransportEvents } from '../../src/transport/transport.js';
import { data, errorChunk, none, simpleReply, status } from '../support/nbd-replies.js';
import { CONTEXT } from '../support/reply-client.js';
import { mutate } from './mutation.js';
import type { Mutation } from './mutation.js';

/** What becomes of one command. */
export type Fate =
  | 'serve'
  /** Hangs up before it answers, or after it. */
  | 'leave'
  | 'serve and leave'
  /** Answers two times, or never. */
  | 'twice'
  | 'silence'
  /** Refuses it: an error of the protocol. */
  | number
  /** Answers with something else. */
  | readonly Mutation[];

/** Bytes of a request of the forms without extended headers. */
const HEADER = 28;

/** One connection. What is sent is taken at once; what is answered arrives in a later turn of the event loop. */
export class PlayedServer implements Transport {
  closed = false;
  readonly queuedBytes = 0;
  readonly #structured: boolean;
  readonly #nextFate: () => Fate;
  readonly #piece: number;
  #events: TransportEvents | undefined;
  #paused = false;
  #told = false;
  #received = Buffer.alloc(0);
  #answers = Buffer.alloc(0);
  #leaves = false;

  /**
   * @param nextFate of the command that comes now
   * @param piece how many bytes can be received at once
   */
  constructor(structured: boolean, nextFate: () => Fate, piece: number) {
    this.#structured = structured;
    this.#nextFate = nextFate;
    this.#piece = piece;
  }

  open(events: TransportEvents): void {
    this.#events = events;
    this.#tell();
  }

  #tell(): void {
    if (this.#told || this.#paused || this.closed) return;
    if (this.#answers.length === 0 && !this.#leaves) return;
    this.#told = true;
    setImmediate(() => {
      this.#told = false;
      if (this.#paused || this.closed) return;
      this.#events?.readable();
      this.#tell();
    });
  }

  receive(bytes: Buffer, start: number, length: number): number {
    if (this.closed) return -errno.EBADF;
    if (this.#answers.length === 0) return this.#leaves ? 0 : -errno.EAGAIN;
    const count = this.#answers.copy(bytes, start, 0, Math.min(length, this.#piece));
    this.#answers = this.#answers.subarray(count);
    return count;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#tell();
  }

  send(bytes: Buffer, start: number, length: number, owner?: Owner): void {
    if (!this.closed) {
      this.#received = Buffer.concat([this.#received, bytes.subarray(start, start + length)]);
    }
    owner?.release();
    this.#serve();
  }

  #serve(): void {
    while (!this.#leaves && this.#received.length >= HEADER) {
      const type = this.#received.readUInt16BE(6);
      const length = this.#received.readUInt32BE(24);
      const whole = HEADER + (type === Command.WRITE ? length : 0);
      if (this.#received.length < whole) return;
      if (type === Command.DISC) this.#leaves = true;
      else this.#answer(type, length);
      this.#received = this.#received.subarray(whole);
      this.#tell();
    }
  }

  #answer(type: number, length: number): void {
    const fate = this.#nextFate();
    const code = typeof fate === 'number' ? fate : 0;
    const answer = this.#reply(type, length, code);
    this.#leaves = fate === 'leave' || fate === 'serve and leave';
    if (fate === 'leave' || fate === 'silence') return;
    const said = typeof fate === 'object' ? mutate([answer], fate) : [answer];
    this.#answers = Buffer.concat([this.#answers, ...said, ...(fate === 'twice' ? [answer] : [])]);
  }

  #reply(type: number, length: number, code: number): Buffer {
    const cookie = this.#received.readBigUInt64BE(8);
    const offset = this.#received.readBigUInt64BE(16);
    const content = Buffer.alloc(type === Command.READ && code === 0 ? length : 0, 0x61);
    if (!this.#structured) return simpleReply(cookie, code, content);
    if (code !== 0) return errorChunk(cookie, true, code);
    if (type === Command.READ) return data(cookie, true, offset, content);
    return type === Command.BLOCK_STATUS
      ? status(cookie, true, CONTEXT, [[length, 0]])
      : none(cookie);
  }

  flush(): void {
    // What can leave does so by itself.
  }

  close(): void {
    this.closed = true;
  }

  reset(): void {
    this.close();
  }
}
