/** The server's end of a connection in its transmission phase, which does what a test tells it. */

import { Socket } from 'node:net';
import { errno } from '../../src/errno.js';
import { native } from '../../src/native.js';
import type { ExtentsReply, ReadReply, Reply } from '../../src/disk/disk.js';
import { Command } from '../../src/nbd/constants.js';
import type { NegotiatedExport } from '../../src/nbd/export.js';
import { FdTransport } from '../../src/transport/fd-transport.js';
import { data, extended, none, simpleReply } from './nbd-replies.js';

/** Milliseconds; only what hangs takes as long. */
const DEADLINE = 20_000;

const REQUEST_BYTES = 28;
const EXTENDED_REQUEST_BYTES = 32;
const PAYLOAD_LEN = 32;

/** What was agreed on, where a test does not care. */
export const AGREED: NegotiatedExport = {
  size: 1n << 40n,
  // Flush, FUA, trim, write zeroes.
  flags: 0x6d,
  limits: { minimum: 1, preferred: 4096, maximum: 32 * 1024 * 1024 },
  structuredReplies: false,
  extendedHeaders: false,
  allocationId: undefined,
};

export interface Request {
  /** All of its header. */
  readonly header: Buffer;
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly offset: bigint;
  readonly length: number;
  /** Of a write. */
  readonly payload: Buffer;
}

/** What a disk holds, by the offset. */
export function contentAt(offset: bigint, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let at = Number(offset % 251n);
  for (let i = 0; i < length; i++) {
    bytes[i] = at;
    at = at === 250 ? 0 : at + 1;
  }
  return bytes;
}

export class NbdPeer {
  readonly #socket: Socket;
  readonly #extended: boolean;
  readonly #headerBytes: number;
  readonly requests: Request[] = [];
  /** The client has hung up, or broken the connection. */
  ended = false;
  #received: Buffer[] = [];
  #count = 0;
  #needed: number;
  #taken = 0;
  #wake: () => void = () => undefined;

  /** @param extendedHeaders were agreed on */
  constructor(socket: Socket, extendedHeaders = false) {
    this.#socket = socket;
    this.#extended = extendedHeaders;
    this.#headerBytes = extendedHeaders ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
    this.#needed = this.#headerBytes;
    socket.on('data', (bytes: Buffer) => {
      this.#received.push(bytes);
      this.#count += bytes.length;
      if (this.#count >= this.#needed) this.#parse();
      this.#wake();
    });
    for (const event of ['end', 'error', 'close']) {
      socket.on(event, () => {
        this.ended = true;
        this.#wake();
      });
    }
  }

  #parse(): void {
    const all = Buffer.concat(this.#received);
    const headerBytes = this.#headerBytes;
    let at = 0;
    this.#needed = headerBytes;
    while (all.length - at >= headerBytes) {
      const header = all.subarray(at, at + headerBytes);
      const magic = this.#extended ? 0x21e41c71 : 0x25609513;
      if (header.readUInt32BE(0) !== magic) throw new Error('a request with a wrong magic');
      const flags = header.readUInt16BE(4);
      const type = header.readUInt16BE(6);
      const length = this.#extended ? Number(header.readBigUInt64BE(24)) : header.readUInt32BE(24);
      const hasPayload = this.#extended ? (flags & PAYLOAD_LEN) !== 0 : type === Command.WRITE;
      if (hasPayload !== (type === Command.WRITE)) throw new Error('a payload where none belongs');
      const end = at + headerBytes + (hasPayload ? length : 0);
      this.#needed = end - at;
      if (all.length < end) break;
      this.requests.push({
        header,
        flags,
        type,
        cookie: header.readBigUInt64BE(8),
        offset: header.readBigUInt64BE(16),
        length,
        payload: all.subarray(at + headerBytes, end),
      });
      at = end;
      this.#needed = headerBytes;
    }
    this.#received = [all.subarray(at)];
    this.#count = all.length - at;
  }

  /** What was received and is not a whole request. */
  get rest(): Buffer {
    return Buffer.concat(this.#received);
  }

  /** @throws Error after the deadline, or when the client has hung up and it is not so */
  async until(what: string, isSo: () => boolean): Promise<void> {
    const end = performance.now() + DEADLINE;
    const timer = setInterval(() => this.#wake(), 1_000);
    try {
      while (!isSo()) {
        if (performance.now() > end) throw new Error(`waited too long for ${what}`);
        if (this.ended) throw new Error(`the client hung up before ${what}`);
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      clearInterval(timer);
    }
  }

  /** The next requests that were not taken before. */
  async take(count: number): Promise<Request[]> {
    await this.until(`${count} requests`, () => this.requests.length >= this.#taken + count);
    const taken = this.requests.slice(this.#taken, this.#taken + count);
    this.#taken += count;
    return taken;
  }

  async next(): Promise<Request> {
    const [request] = await this.take(1);
    if (request === undefined) throw new Error('no request');
    return request;
  }

  /** Requests that were received and not taken. */
  get waiting(): number {
    return this.requests.length - this.#taken;
  }

  send(...messages: readonly Buffer[]): void {
    this.#socket.write(Buffer.concat(messages));
  }

  /** Answers requests as a server does that holds `contentAt`. */
  answer(requests: readonly Request[], structured = false): void {
    this.send(
      ...requests.map(({ type, cookie, offset, length }) => {
        if (this.#extended) {
          const chunk =
            type === Command.READ
              ? data(cookie, true, offset, contentAt(offset, length))
              : none(cookie);
          return extended(chunk, offset);
        }
        if (type !== Command.READ) return structured ? none(cookie) : simpleReply(cookie);
        const content = contentAt(offset, length);
        return structured ? data(cookie, true, offset, content) : simpleReply(cookie, 0, content);
      }),
    );
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Waits until the client has hung up. */
  gone(): Promise<void> {
    return this.until('the client to hang up', () => this.ended);
  }

  /** Sends no more, and waits until all of it has left. */
  async end(): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.end(resolve));
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** A connected pair of non-blocking sockets, both owned by the caller. */
export function socketPair(): [number, number] {
  const fds = new Int32Array(2);
  const result = native.socketpair(fds);
  if (result < 0) throw new Error(`socketpair: ${result}`);
  const [ours = -1, theirs = -1] = fds;
  native.setNonblocking(ours, true);
  native.setNonblocking(theirs, true);
  return [ours, theirs];
}

export function connectedPeer(extendedHeaders = false): { transport: FdTransport; peer: NbdPeer } {
  const [ours, theirs] = socketPair();
  return {
    transport: new FdTransport(ours),
    peer: new NbdPeer(new Socket({ fd: theirs }), extendedHeaders),
  };
}

/** What requests were answered, each by its name; more than one answer to one is an error. */
export class Answers {
  readonly #answers = new Map<string, string>();
  #left = 0;
  #wake: () => void = () => undefined;

  #ask(name: string): (text: string) => void {
    this.#left++;
    let answered = false;
    return (text) => {
      if (answered) throw new Error(`${name} is answered twice: ${text}`);
      answered = true;
      this.#answers.set(name, text);
      if (--this.#left === 0) this.#wake();
    };
  }

  /** How many are open. */
  get left(): number {
    return this.#left;
  }

  of(name: string): string | undefined {
    return this.#answers.get(name);
  }

  get all(): Record<string, string> {
    return Object.fromEntries(this.#answers);
  }

  reply(name: string, then: () => void = () => undefined): Reply {
    const answer = this.#ask(name);
    return {
      done: (code) => {
        answer(code === 0 ? 'done' : codeName(code));
        then();
      },
    };
  }

  /** Answered `right` where the data are those of the disk. */
  read(
    name: string,
    offset: bigint,
    length: number,
    then: () => void = () => undefined,
  ): ReadReply {
    const answer = this.#ask(name);
    return {
      data: (bytes, start) => {
        const right = bytes.subarray(start, start + length).equals(contentAt(offset, length));
        // Lent for the call only, with the room before it.
        bytes.fill(0xee, start - 32, start + length);
        answer(right ? 'right' : 'wrong');
        then();
      },
      fail: (code) => {
        answer(codeName(code));
        then();
      },
    };
  }

  extents(name: string): ExtentsReply {
    const answer = this.#ask(name);
    return {
      extents: (extents) =>
        answer(
          extents
            .map(
              ({ length, hole, zero }) => `${length}${hole ? ' hole' : ''}${zero ? ' zero' : ''}`,
            )
            .join(', '),
        ),
      fail: (code) => answer(codeName(code)),
    };
  }

  /** Waits until all are answered. @throws Error after the deadline */
  async settled(): Promise<Record<string, string>> {
    if (this.#left > 0) {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(
          () => reject(new Error(`${this.#left} requests are not answered`)),
          DEADLINE,
        );
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.all;
  }
}

function codeName(code: number): string {
  return Object.entries(errno).find(([, value]) => value === code)?.[0] ?? `error ${code}`;
}
