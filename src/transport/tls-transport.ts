/** A transport that encrypts what goes over another one (TLS, by Node's own implementation). */

import type { Duplex } from 'node:stream';
import { connect } from 'node:tls';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import { errno } from '../errno.js';
import type { Owner } from '../buffer-pool.js';
import { native } from '../native.js';
import { DeadlineError } from './dialogue.js';
import { streamOver } from './transport-stream.js';
import type { Transport, TransportEvents } from './transport.js';

/**
 * What is not longer is copied: it leaves together with its neighbours, as one write that costs as much
 * as one of theirs would, and can still leave when its owner is gone. More than that fills a record of
 * TLS by itself (RFC 8446, section 5.1).
 */
const GATHERED_BYTES = 16 * 1024;
/** Room for what is gathered between two turns; more is taken where it is needed. */
const GATHERING_BYTES = 4 * GATHERED_BYTES;
/** What is decrypted ahead of who receives it; the peer has to wait then. */
const HELD_BYTES = 256 * 1024;
/** Milliseconds for the last bytes and the goodbye of TLS after `close`. */
const GOODBYE_DEADLINE = 1_000;

/**
 * Shakes hands as a client, over a transport where both sides have agreed to.
 * @param transport owned from now on, also when it fails
 * @param deadline milliseconds for the handshake
 * @param signal ends it early
 * @throws DeadlineError; the signal's reason; what Node has to say of a handshake that failed
 */
export async function startTls(
  transport: Transport,
  options: ConnectionOptions,
  deadline: number,
  signal?: AbortSignal,
): Promise<TlsTransport> {
  const stream = streamOver(transport);
  return new Promise((resolve, reject) => {
    const socket = connectOver(stream, options);
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

/** @throws TypeError for options that Node does not take; the stream is destroyed then */
function connectOver(stream: Duplex, options: ConnectionOptions): TLSSocket {
  try {
    return connect({ ...options, socket: stream });
  } catch (error) {
    stream.destroy();
    throw error;
  }
}

/** What Node's sockets have inside, as long as they are open. */
interface WithHandle {
  readonly _handle: { readonly fd?: number } | null;
}

export class TlsTransport implements Transport {
  readonly #socket: TLSSocket;
  readonly #stream: Duplex;
  #events: TransportEvents | undefined;
  /** What was decrypted and not received yet, the first of it without #taken bytes. */
  readonly #pieces: Buffer[] = [];
  #taken = 0;
  #heldBytes = 0;
  #reading = true;
  #scheduled = false;
  #closed = false;
  #ended = false;
  /** The receiver has heard of the end, or of the failure. */
  #toldEnd = false;
  #flushScheduled = false;
  #queuedBytes = 0;
  // What is gathered stands in #gathering from #gatheredStart to #gatheredEnd; what is before that was
  // written and may not have left.
  #gathering = Buffer.alloc(0);
  #gatheredStart = 0;
  #gatheredEnd = 0;
  /** How many pieces that are not ours have not left. */
  #borrowed = 0;
  /** What ended it, if it was not its peer's goodbye. */
  failure: Error | undefined;

  /** @param socket whose handshake is done */
  constructor(socket: TLSSocket, stream: Duplex) {
    this.#socket = socket;
    this.#stream = stream;
    const keep = (piece: Buffer): void => {
      this.#pieces.push(piece);
      this.#heldBytes += piece.length;
      if (this.#heldBytes >= HELD_BYTES) socket.pause();
      this.#schedule();
    };
    const broken = (error: Error): void => {
      this.failure ??= error;
      // What was decrypted before it, and waits because nobody had room.
      const rest = socket.read() as Buffer | null;
      if (rest !== null) keep(rest);
      this.#schedule();
    };
    socket.on('data', keep);
    // It comes behind all that was decrypted.
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
    return this.#heldBytes > 0 || (over && !this.#toldEnd);
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
    for (let piece = this.#pieces[0]; piece !== undefined && filled < length;) {
      const count = piece.copy(bytes, start + filled, this.#taken, this.#taken + length - filled);
      filled += count;
      this.#taken += count;
      if (this.#taken < piece.length) break;
      this.#taken = 0;
      this.#pieces.shift();
      piece = this.#pieces[0];
    }
    this.#heldBytes -= filled;
    if (this.#heldBytes < HELD_BYTES && this.#socket.isPaused()) this.#socket.resume();
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
    const gathered = length <= GATHERED_BYTES;
    if (gathered) {
      this.#gather(bytes, start, length);
    } else {
      this.#writeGathered();
      this.#borrowed++;
      this.#write(bytes.subarray(start, start + length), () => {
        this.#borrowed--;
        owner?.release();
      });
    }
    this.#queuedBytes += length;
    if (gathered) owner?.release();
    if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      queueMicrotask(() => {
        this.#flushScheduled = false;
        this.flush();
      });
    }
  }

  #gather(bytes: Buffer, start: number, length: number): void {
    if (this.#queuedBytes === 0) this.#gatheredStart = this.#gatheredEnd = 0;
    if (this.#gatheredEnd + length > this.#gathering.length) {
      this.#writeGathered();
      // The old one is kept by what was written of it.
      this.#gathering = Buffer.allocUnsafeSlow(GATHERING_BYTES);
      this.#gatheredStart = this.#gatheredEnd = 0;
    }
    bytes.copy(this.#gathering, this.#gatheredEnd, start, start + length);
    this.#gatheredEnd += length;
  }

  #writeGathered(): void {
    if (this.#gatheredStart === this.#gatheredEnd) return;
    const piece = this.#gathering.subarray(this.#gatheredStart, this.#gatheredEnd);
    this.#gatheredStart = this.#gatheredEnd;
    this.#write(piece, () => undefined);
  }

  /** @param left called when the piece has left, or never will */
  #write(piece: Buffer, left: () => void): void {
    this.#socket.write(piece, () => {
      this.#queuedBytes -= piece.length;
      left();
      if (this.#queuedBytes === 0 && !this.#closed) this.#events?.drained();
    });
  }

  flush(): void {
    this.#writeGathered();
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

  reset(): void {
    if (this.#closed) return;
    this.#closed = true;
    // Node has resetAndDestroy for it, which a socket under TLS does not survive (20.19).
    const { fd = -1 } = (this.#stream as Partial<WithHandle>)._handle ?? {};
    if (fd >= 0) native.resetOnClose(fd);
    this.#destroy();
  }

  #destroy(): void {
    this.#socket.destroy();
    this.#stream.destroy();
  }
}
