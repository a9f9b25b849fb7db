/** The client's end of a connection: raw bytes, with deadlines. */

import { Socket } from 'node:net';
import { native } from '../../src/native.js';
import { FdTransport } from '../../src/transport/fd-transport.js';

/** Milliseconds; only what hangs takes as long. */
const DEADLINE = 10_000;

export interface ServerReply {
  /** Undefined for a simple reply. */
  readonly chunk: number | undefined;
  readonly error: number;
  readonly cookie: bigint;
  /** Of a chunk: all of it. Of a simple reply: what was asked for. */
  readonly data: Buffer;
}

export class Peer {
  readonly #socket: Socket;
  #received: Buffer[] = [];
  #count = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes: Buffer) => {
      this.#received.push(bytes);
      this.#count += bytes.length;
      this.#wake?.();
    });
    const end = (): void => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on('end', end);
    socket.on('close', end);
    socket.on('error', end);
  }

  send(...messages: Buffer[]): void {
    this.#socket.write(Buffer.concat(messages));
  }

  /** What was received and not yet taken, in bytes. */
  get waiting(): number {
    return this.#count;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  async #until(condition: () => boolean, what: string): Promise<void> {
    const timer = setTimeout(() => {
      this.#late = true;
      this.#wake?.();
    }, DEADLINE);
    while (!condition()) {
      if (this.#late) throw new Error(`waited too long for ${what}`);
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    clearTimeout(timer);
  }
  #late = false;

  /** @throws Error if the server hangs up before */
  async receive(length: number): Promise<Buffer> {
    await this.#until(() => this.#count >= length || this.#ended, `${length} bytes`);
    if (this.#count < length) throw new Error(`the server hung up; ${this.#count} bytes are there`);
    const all = Buffer.concat(this.#received);
    this.#received = [all.subarray(length)];
    this.#count -= length;
    return all.subarray(0, length);
  }

  /** The next reply. @param length of the data that a simple reply brings */
  async reply(length = 0): Promise<ServerReply> {
    const head = await this.receive(16);
    const cookie = head.readBigUInt64BE(8);
    const magic = head.readUInt32BE(0);
    if (magic === 0x67446698) {
      const error = head.readUInt32BE(4);
      const data = await this.receive(error === 0 ? length : 0);
      return { chunk: undefined, error, cookie, data };
    }
    if (magic !== 0x668e33ef) throw new Error(`a reply with the magic ${magic.toString(16)}`);
    if (head.readUInt16BE(4) !== 1) throw new Error('a chunk that is not the last one');
    const chunk = head.readUInt16BE(6);
    const data = await this.receive((await this.receive(4)).readUInt32BE());
    return { chunk, error: (chunk & 0x8000) === 0 ? 0 : data.readUInt32BE(), cookie, data };
  }

  /** Waits until the server has hung up. @returns what it had sent before */
  async rest(): Promise<Buffer> {
    await this.#until(() => this.#ended, 'the end');
    return this.receive(this.#count);
  }

  /** Sends no more, but goes on receiving. */
  end(): void {
    this.#socket.end();
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** Two ends of a connection: one as the server has it, one to play the client. */
export function connectedPair(): { transport: FdTransport; peer: Peer } {
  const fds = new Int32Array(2);
  const result = native.socketpair(fds);
  if (result < 0) throw new Error(`socketpair: ${result}`);
  const [ours = -1, theirs = -1] = fds;
  native.setNonblocking(ours, true);
  native.setNonblocking(theirs, true);
  return { transport: new FdTransport(ours), peer: new Peer(new Socket({ fd: theirs })) };
}
