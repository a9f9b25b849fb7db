/** A transport without a socket: what the peer says is a script, what is sent is kept. */

import { errno } from '../../src/errno.js';
import type { Owner } from '../../src/buffer-pool.js';
import type { Transport, TransportEvents } from '../../src/transport/transport.js';

/** After the last piece: the end of the stream, silence for ever, or a positive errno. */
export type Ending = 'end' | 'silence' | number;

export interface Script {
  /**
   * What arrives, piece by piece: nothing of a piece can be received before the one before it is
   * used up and a turn of the event loop is over.
   */
  readonly pieces: readonly Buffer[];
  /** `silence` unless told. */
  readonly ending?: Ending;
  /** Every send fails with it, positive. */
  readonly sendErrno?: number;
  /** How much of what is sent the peer takes in a turn, in bytes; all unless told. */
  readonly takes?: number;
}

interface Sending {
  readonly bytes: Buffer;
  start: number;
  length: number;
  readonly owner: Owner | undefined;
}

export class FakeTransport implements Transport {
  /** The most bytes that a receive asked for. */
  mostAsked = 0;
  /** The most bytes that were queued. */
  mostQueued = 0;
  closed = false;
  readonly #sent: Buffer[] = [];
  readonly #pieces: Buffer[];
  readonly #ending: Ending;
  readonly #sendErrno: number | undefined;
  readonly #takes: number | undefined;
  readonly #queue: Sending[] = [];
  #queuedBytes = 0;
  #leaving = false;
  #events: TransportEvents | undefined;
  #paused = false;
  #told = false;
  /** The first piece can be received. */
  #arrived = false;

  constructor(script: Script) {
    this.#pieces = script.pieces.filter((piece) => piece.length > 0);
    this.#ending = script.ending ?? 'silence';
    this.#sendErrno = script.sendErrno;
    this.#takes = script.takes;
  }

  /** All that the peer has taken. */
  get sent(): Buffer {
    return Buffer.concat(this.#sent);
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** What was not received. */
  get left(): Buffer {
    return Buffer.concat(this.#pieces);
  }

  open(events: TransportEvents): void {
    this.#events = events;
    this.#tell();
  }

  /** Says in a later turn that there is something, and again as long as there is. */
  #tell(): void {
    if (this.#told || this.#paused || this.closed) return;
    if (this.#pieces.length === 0 && this.#ending === 'silence') return;
    this.#told = true;
    setImmediate(() => {
      this.#told = false;
      this.#arrived = true;
      if (this.#paused || this.closed) return;
      this.#events?.readable();
      this.#tell();
    });
  }

  receive(bytes: Buffer, start: number, length: number): number {
    this.mostAsked = Math.max(this.mostAsked, length);
    if (this.closed) return -errno.EBADF;
    const [piece] = this.#pieces;
    if (!this.#arrived || (piece === undefined && this.#ending === 'silence')) {
      this.#tell();
      return -errno.EAGAIN;
    }
    if (piece === undefined) return this.#ending === 'end' ? 0 : -Number(this.#ending);
    const count = piece.copy(bytes, start, 0, length);
    if (count < piece.length) {
      this.#pieces[0] = piece.subarray(count);
    } else {
      this.#pieces.shift();
      this.#arrived = false;
    }
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
    const code = this.#sendErrno;
    if (this.closed || code !== undefined) {
      if (code !== undefined) setImmediate(() => this.#events?.sendFailed(code));
      owner?.release();
    } else if (this.#takes === undefined) {
      this.#sent.push(Buffer.from(bytes.subarray(start, start + length)));
      owner?.release();
    } else {
      this.#queue.push({ bytes, start, length, owner });
      this.#queuedBytes += length;
      this.mostQueued = Math.max(this.mostQueued, this.#queuedBytes);
      this.#leaveSoon(this.#takes);
    }
  }

  #leaveSoon(most: number): void {
    if (this.#leaving || most === 0) return;
    this.#leaving = true;
    setImmediate(() => {
      this.#leaving = false;
      if (this.closed) return;
      this.#leave(most);
      if (this.#queue.length > 0) this.#leaveSoon(most);
      else this.#events?.drained();
    });
  }

  /** The peer takes up to `most` bytes of the queue. */
  #leave(most: number): void {
    for (let one = this.#queue[0]; one !== undefined && most > 0; one = this.#queue[0]) {
      const count = Math.min(one.length, most);
      this.#sent.push(Buffer.from(one.bytes.subarray(one.start, one.start + count)));
      one.start += count;
      one.length -= count;
      most -= count;
      this.#queuedBytes -= count;
      if (one.length > 0) return;
      this.#queue.shift();
      one.owner?.release();
    }
  }

  flush(): void {
    // What can leave does so by itself.
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const { owner } of this.#queue.splice(0)) owner?.release();
    this.#queuedBytes = 0;
  }

  reset(): void {
    this.close();
  }
}

/**
 * Bytes as commented hex: blanks separate, `#` starts a comment up to the end of the line, and
 * `'text'` stands for its ASCII characters.
 */
export function hex(text: string): Buffer {
  const parts = text.replace(/#.*$/gm, '').match(/'[^']*'|[^\s']+/g) ?? [];
  return Buffer.concat(
    parts.map((part) => {
      if (part.startsWith("'")) return Buffer.from(part.slice(1, -1), 'latin1');
      if (!/^([0-9a-f]{2})+$/i.test(part)) throw new Error(`not hexadecimal: ${part}`);
      return Buffer.from(part, 'hex');
    }),
  );
}
