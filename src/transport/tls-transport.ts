/** A transport that encrypts what goes over another one (TLS, by Node's own implementation). */

import { connect } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import { errno } from '../errno.js';
import type { Owner } from '../buffer-pool.js';
import { DeadlineError } from './dialogue.js';
import { TransportStream } from './transport-stream.js';
import type { Transport, TransportEvents } from './transport.js';

/** What is not longer is copied, so that it can still leave when its owner is gone. */
const COPIED_BYTES = 4096;
/** Milliseconds for the last bytes and the goodbye of TLS after `close`. */
const GOODBYE_DEADLINE = 1_000;

/**
 * Shakes hands as a client, over a transport where both sides have agreed to.
 * @param transport owned from now on, also when it fails
 * @param deadline milliseconds for the handshake
 * @param signal ends it early
 * @throws DeadlineError; the signal's reason; what Node has to say of a handshake that failed
 */
export function startTls(
  transport: Transport,
  options: ConnectionOptions,
  deadline: number,
  signal?: AbortSignal,
): Promise<TlsTransport> {
  return new Promise((resolve, reject) => {
    const stream = new TransportStream(transport);
    const socket = connect({ ...options, socket: stream });
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
      socket.removeListener('error', fail);
      socket.removeListener('close', closed);
      settle();
    };
    const fail = (error: unknown): void => {
      end(() => {
        // What comes after the first error is of no interest.
        socket.on('error', () => undefined).destroy();
        stream.on('error', () => undefined).destroy();
        reject(error instanceof Error ? error : new Error(String(error)));
      });
    };
    const closed = (): void => fail(new Error('the peer hung up'));
    const timer = setTimeout(() => fail(new DeadlineError(deadline)), deadline);
    const aborted = (): void => fail(signal?.reason);
    if (signal?.aborted === true) {
      aborted();
      return;
    }
    signal?.addEventListener('abort', aborted);
    socket.once('error', fail);
    socket.once('close', closed);
    socket.once('secureConnect', () => end(() => resolve(new TlsTransport(socket, stream))));
  });
}

export class TlsTransport implements Transport {
  readonly #socket: TLSSocket;
  readonly #stream: TransportStream;
  #events: TransportEvents | undefined;
  #reading = true;
  #scheduled = false;
  #closed = false;
  #ended = false;
  /** The receiver has heard of the end, or of the failure. */
  #toldEnd = false;
  #flushScheduled = false;
  #corked = false;
  #queuedBytes = 0;
  /** How many pieces that are not ours have not left. */
  #borrowed = 0;
  /** What ended it, if it was not its peer's goodbye. */
  failure: Error | undefined;

  /** @param socket whose handshake is done */
  constructor(socket: TLSSocket, stream: TransportStream) {
    this.#socket = socket;
    this.#stream = stream;
    const broken = (error: Error): void => {
      this.failure ??= error;
      this.#schedule();
    };
    socket.on('readable', () => this.#schedule());
    socket.on('end', () => {
      this.#ended = true;
      this.#schedule();
    });
    socket.on('error', broken);
    stream.on('error', broken);
    socket.on('close', () => {
      this.#ended = true;
      this.#schedule();
    });
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  open(events: TransportEvents): void {
    this.#events = events;
    this.#schedule();
  }

  pause(): void {
    this.#reading = false;
  }

  resume(): void {
    this.#reading = true;
    this.#schedule();
  }

  get #hasNews(): boolean {
    const over = this.#ended || this.failure !== undefined;
    return this.#socket.readableLength > 0 || (over && !this.#toldEnd);
  }

  /** Tells in a turn of its own that there is something to receive, as long as there is. */
  #schedule(): void {
    if (this.#scheduled || !this.#reading || this.#closed || !this.#hasNews) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (!this.#reading || this.#closed) return;
      this.#events?.readable();
      // Who got less than there was room for does not look for more: neither for bytes, nor for an end
      // that came right behind them.
      this.#schedule();
    });
  }

  receive(bytes: Buffer, start: number, length: number): number {
    if (this.#closed) return -errno.EBADF;
    if (length === 0) return 0;
    let filled = 0;
    while (filled < length) {
      const have = this.#socket.readableLength;
      if (have === 0) break;
      const piece = this.#socket.read(Math.min(have, length - filled)) as Buffer | null;
      if (piece === null) break;
      piece.copy(bytes, start + filled);
      filled += piece.length;
    }
    // It takes a read of nothing to learn of the end, and to ask for more.
    if (this.#socket.readableLength === 0) this.#socket.read(0);
    if (filled > 0) return filled;
    if (this.failure === undefined && !this.#ended) return -errno.EAGAIN;
    this.#toldEnd = true;
    return this.failure === undefined ? 0 : -errno.EIO;
  }

  send(bytes: Buffer, start: number, length: number, owner?: Owner): void {
    if (this.#closed || this.failure !== undefined || length === 0) {
      owner?.release();
      return;
    }
    const piece = bytes.subarray(start, start + length);
    const small = length <= COPIED_BYTES;
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
    }
    this.#queuedBytes += length;
    if (!small) this.#borrowed++;
    this.#socket.write(small ? Buffer.from(piece) : piece, () => {
      if (!small) this.#borrowed--;
      this.#queuedBytes -= length;
      owner?.release();
      if (this.#queuedBytes === 0 && !this.#closed) this.#events?.drained();
    });
    if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      queueMicrotask(() => {
        this.#flushScheduled = false;
        this.flush();
      });
    }
  }

  flush(): void {
    if (!this.#corked) return;
    this.#corked = false;
    this.#socket.uncork();
  }

  close(): void {
    if (this.#closed) return;
    this.flush();
    this.#closed = true;
    // What somebody else's memory holds may change from now on: better nothing than that.
    if (this.#borrowed > 0 || this.failure !== undefined) {
      this.#destroy();
      return;
    }
    const timer = setTimeout(() => this.#destroy(), GOODBYE_DEADLINE);
    this.#socket.end(() => {
      clearTimeout(timer);
      this.#destroy();
    });
  }

  #destroy(): void {
    this.#socket.destroy();
    this.#stream.destroy();
  }
}
