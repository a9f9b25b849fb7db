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
}

export class FakeTransport implements Transport {
  /** All that was sent. */
  sent: Buffer = Buffer.alloc(0);
  /** The most bytes that a receive asked for. */
  mostAsked = 0;
  closed = false;
  readonly queuedBytes = 0;
  readonly #pieces: Buffer[];
  readonly #ending: Ending;
  readonly #sendErrno: number | undefined;
  #events: TransportEvents | undefined;
  #paused = false;
  #told = false;
  /** The first piece can be received. */
  #arrived = false;

  constructor(script: Script) {
    this.#pieces = script.pieces.filter((piece) => piece.length > 0);
    this.#ending = script.ending ?? 'silence';
    this.#sendErrno = script.sendErrno;
  }

  /** What was not received. */
  get left(): Buffer {
    return Buffer.concat(this.#pieces);
  }

  open(events: TransportEvents): void {
    this.#events = events;
    this.#tell();
  }

  /** Says once, in a later turn, that there is something. */
  #tell(): void {
    if (this.#told || this.#paused || this.closed) return;
    if (this.#pieces.length === 0 && this.#ending === 'silence') return;
    this.#told = true;
    setImmediate(() => {
      this.#told = false;
      this.#arrived = true;
      if (!this.#paused && !this.closed) this.#events?.readable();
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
    if (code === undefined) {
      this.sent = Buffer.concat([this.sent, bytes.subarray(start, start + length)]);
    } else {
      setImmediate(() => this.#events?.sendFailed(code));
    }
    owner?.release();
  }

  flush(): void {
    // All has left.
  }

  close(): void {
    this.closed = true;
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
