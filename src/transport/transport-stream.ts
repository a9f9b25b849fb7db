/** A transport as one of Node's streams, for what works on streams only. */

import { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { ErrnoError, errno } from '../errno.js';
import { FdTransport } from './fd-transport.js';
import type { Transport } from './transport.js';

const RECEIVE_BYTES = 64 * 1024;
/** How often one wake-up receives before others get their turn. */
const RECEIVES_PER_WAKE = 8;

/**
 * What is a socket becomes one of Node's own, whose bytes need not come by JavaScript on the way to and
 * from TLS: that would take half of the time. Node has none for vsock(7).
 * @param transport owned from now on, also when it fails; closed when the stream is
 */
export function streamOver(transport: Transport): Duplex {
  if (!(transport instanceof FdTransport)) return new TransportStream(transport);
  try {
    const socket = transport.handOver(
      (fd) => new Socket({ fd, readable: true, writable: true, allowHalfOpen: true }),
    );
    // There may be more to end than the socket, as the program at its other side.
    return socket.once('close', () => transport.close());
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_INVALID_FD_TYPE') {
      return new TransportStream(transport);
    }
    transport.close();
    throw error;
  }
}

class TransportStream extends Duplex {
  readonly #transport: Transport;
  /** Of the write that has not left yet. */
  #written: ((error?: Error | null) => void) | undefined;

  /** @param transport owned from now on, and closed when the stream is destroyed */
  constructor(transport: Transport) {
    super({ allowHalfOpen: true, readableHighWaterMark: 4 * RECEIVE_BYTES });
    this.#transport = transport;
    transport.open({
      readable: () => this.#receive(),
      sendFailed: (code) => {
        // The peer may have said something before it hung up.
        this.#receive();
        this.destroy(new ErrnoError(code, 'send'));
      },
      drained: () => {
        const written = this.#written;
        this.#written = undefined;
        written?.();
      },
    });
    transport.pause();
  }

  override _read(): void {
    this.#transport.resume();
  }

  #receive(): void {
    for (let i = 0; i < RECEIVES_PER_WAKE && !this.destroyed; i++) {
      // The reader keeps what it gets, so that each piece is a buffer of its own.
      const bytes = Buffer.allocUnsafe(RECEIVE_BYTES);
      const count = this.#transport.receive(bytes, 0, bytes.length);
      if (count === -errno.EAGAIN) return;
      if (count < 0) {
        this.destroy(new ErrnoError(-count, 'receive'));
        return;
      }
      if (count === 0) {
        this.#transport.pause();
        this.push(null);
        return;
      }
      if (!this.push(bytes.subarray(0, count))) {
        this.#transport.pause();
        return;
      }
    }
  }

  override _write(
    chunk: Buffer,
    _encoding: BufferEncoding,
    written: (error?: Error | null) => void,
  ): void {
    if (chunk.length === 0) {
      written();
      return;
    }
    this.#written = written;
    this.#transport.send(chunk, 0, chunk.length);
    this.#transport.flush();
  }

  /** The peer learns of the end when the stream is destroyed: TLS has an end of its own before that. */
  override _final(finished: (error?: Error | null) => void): void {
    finished();
  }

  override _destroy(error: Error | null, destroyed: (error?: Error | null) => void): void {
    this.#transport.close();
    const written = this.#written;
    this.#written = undefined;
    written?.(error ?? new ErrnoError(errno.EPIPE, 'send'));
    destroyed(error);
  }
}
