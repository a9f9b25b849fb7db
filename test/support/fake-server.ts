/**
 * An NBD server in the process of the test, with extended headers or without them, and with simple
 * replies for whoever asks for no others: it serves a disk of any size, refuses what a test wants refused, and notes what it was asked. It answers in random pieces
 * and in any order where it is told to, and takes offence at requests that break the protocol.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { ByteReader, ByteWriter } from '../../src/bytes.js';
import {
  Command,
  CommandFlag,
  IHAVEOPT,
  Option,
  OptionReply,
  TransmissionFlag,
} from '../../src/nbd/constants.js';
import { Incoming } from './incoming.js';
import {
  data,
  errorChunk,
  extended,
  hole,
  none,
  simpleReply,
  status,
  statusExt,
} from './nbd-replies.js';
import { SparseDisk } from './sparse-disk.js';

export interface FakeServerOptions {
  readonly size: bigint;
  readonly extendedHeaders: boolean;
  /** Numbers below 1, by which it cuts and mixes its replies. */
  readonly random?: () => number;
  /** TransmissionFlag bits: flush, FUA, trim, write zeroes and multi-conn unless told. */
  readonly flags?: number;
  /** The same for connections with simple replies, if not what the protocol asks for: the others less DF. */
  readonly simpleFlags?: number;
}

/** In what form a connection has its replies; with extended headers the requests have them too. */
export type ReplyForm = 'simple' | 'structured' | 'extended';

export interface Asked {
  /** By the form of its replies. */
  readonly over: ReplyForm;
  readonly type: number;
  readonly flags: number;
  readonly offset: bigint;
  readonly length: bigint;
}

const CONTEXT_ID = 5;
const FLAGS = 0x16d;
const NOTHING = Buffer.alloc(0);
const MAX_PAYLOAD = 32n * 1024n * 1024n;
/** Without extended headers an extent tells of no more. */
const MAX_EXTENT = 0xfffff000n;

export class FakeServer {
  readonly disk = new SparseDisk();
  /** All that was asked, in order. */
  readonly asked: Asked[] = [];
  /** The error values, as they go over the wire, that commands of a type are answered with. */
  readonly refuses = new Map<number, number>();
  readonly #options: FakeServerOptions;
  readonly #folder: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #faults: unknown[] = [];
  /** Of each connection whose handshake is done, in order. */
  readonly forms: ReplyForm[] = [];

  private constructor(options: FakeServerOptions, folder: string) {
    this.#options = options;
    this.#folder = folder;
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      // A client that hangs up early is found by reading.
      socket.on('error', () => undefined);
      this.#serve(socket).catch((fault: unknown) => {
        this.#faults.push(fault);
        socket.destroy();
      });
    });
  }

  static async start(options: FakeServerOptions): Promise<FakeServer> {
    const server = new FakeServer(options, await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-')));
    server.#server.listen(server.socketPath);
    await once(server.#server, 'listening');
    return server;
  }

  get socketPath(): string {
    return join(this.#folder, 's');
  }

  get uri(): string {
    return `nbd+unix:///?socket=${this.socketPath}`;
  }

  /** What it was asked of one type. */
  ofType(type: number): Asked[] {
    return this.asked.filter((one) => one.type === type);
  }

  /** Hangs up on everybody. @throws what a client did that it may not */
  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
    await rm(this.#folder, { recursive: true });
    if (this.#faults.length > 0) throw this.#faults[0];
  }

  async #serve(socket: Socket): Promise<void> {
    const incoming = new Incoming(socket);
    const over = await this.#handshake(socket, incoming);
    if (over === undefined) return;
    this.forms.push(over);
    const extendedHeaders = over === 'extended';
    for (;;) {
      const header = await incoming.take(extendedHeaders ? 32 : 28);
      if (header === undefined) return;
      const reader = new ByteReader(header, 'big');
      assert.equal(reader.u32(), extendedHeaders ? 0x21e41c71 : 0x25609513, 'magic');
      const flags = reader.u16();
      const type = reader.u16();
      const cookie = reader.u64();
      const offset = reader.u64();
      const length = extendedHeaders ? reader.u64() : BigInt(reader.u32());
      const one: Asked = { over, type, flags, offset, length };
      this.asked.push(one);
      if (type === Command.DISC) {
        socket.end();
        return;
      }
      this.#check(one);
      const payload = await incoming.take(type === Command.WRITE ? Number(length) : 0);
      if (payload === undefined) return;
      // What it does is done now; only the telling of it may take its time.
      void this.#tell(socket, this.#answer(one, cookie, payload));
    }
  }

  /** @returns undefined where the client left without an export */
  async #handshake(socket: Socket, incoming: Incoming): Promise<ReplyForm | undefined> {
    const { size, extendedHeaders, flags = FLAGS } = this.#options;
    const { simpleFlags = flags & ~TransmissionFlag.SEND_DF } = this.#options;
    socket.write(new ByteWriter('big').u64(0x4e42444d41474943n).u64(IHAVEOPT).u16(3).finish());
    if ((await incoming.take(4)) === undefined) return undefined;
    let agreed: ReplyForm = 'simple';
    for (;;) {
      const header = await incoming.take(16);
      if (header === undefined) return undefined;
      assert.equal(header.readBigUInt64BE(0), IHAVEOPT);
      const option = header.readUInt32BE(8);
      const reply = (type: number, content: Buffer = NOTHING): void => {
        const start = new ByteWriter('big').u64(0x3e889045565a9n).u32(option).u32(type);
        socket.write(start.u32(content.length).bytes(content).finish());
      };
      if ((await incoming.take(header.readUInt32BE(12))) === undefined) return undefined;
      switch (option) {
        case Option.EXTENDED_HEADERS:
        case Option.STRUCTURED_REPLY:
          if (option === Option.EXTENDED_HEADERS && !extendedHeaders) {
            reply(OptionReply.ERR_UNSUP);
            break;
          }
          agreed = option === Option.EXTENDED_HEADERS ? 'extended' : 'structured';
          reply(OptionReply.ACK);
          break;
        case Option.SET_META_CONTEXT: {
          assert.notEqual(agreed, 'simple', 'extents are told in chunks only');
          const name = Buffer.from('base:allocation');
          reply(
            OptionReply.META_CONTEXT,
            new ByteWriter('big').u32(CONTEXT_ID).bytes(name).finish(),
          );
          reply(OptionReply.ACK);
          break;
        }
        case Option.GO: {
          const info = new ByteWriter('big').u16(0).u64(size);
          reply(OptionReply.INFO, info.u16(agreed === 'simple' ? simpleFlags : flags).finish());
          reply(OptionReply.ACK);
          return agreed;
        }
        case Option.ABORT:
          reply(OptionReply.ACK);
          socket.end();
          return undefined;
        default:
          reply(OptionReply.ERR_UNSUP);
      }
    }
  }

  /** @throws AssertionError for what a client may not ask */
  #check({ over, type, flags, offset, length }: Asked): void {
    const hasPayload = (flags & CommandFlag.PAYLOAD_LEN) !== 0;
    assert.equal(hasPayload, over === 'extended' && type === Command.WRITE, 'PAYLOAD_LEN');
    if (type === Command.FLUSH) {
      assert.deepEqual([offset, length], [0n, 0n]);
      return;
    }
    assert.ok(length > 0n && offset + length <= this.#options.size, 'a range of the disk');
    if ((flags & CommandFlag.DF) !== 0) {
      assert.equal(type, Command.READ, 'DF');
      assert.notEqual(over, 'simple', 'DF');
      assert.ok(((this.#options.flags ?? FLAGS) & TransmissionFlag.SEND_DF) !== 0, 'DF');
    }
    if (type === Command.READ || type === Command.WRITE) assert.ok(length <= MAX_PAYLOAD);
  }

  /** Does what is asked. @returns the chunks of the reply */
  #answer(one: Asked, cookie: bigint, payload: Buffer): Buffer[] {
    const { over, type, offset, length } = one;
    const form = (compact: Buffer): Buffer =>
      over === 'extended' ? extended(compact, offset) : compact;
    const refusal = this.refuses.get(type);
    if (refusal !== undefined) {
      if (over === 'simple') return [simpleReply(cookie, refusal)];
      return [form(errorChunk(cookie, true, refusal, 'refused by the test'))];
    }
    switch (type) {
      case Command.READ:
        return this.#read(one, cookie).map(form);
      case Command.WRITE:
        this.disk.write(offset, payload);
        break;
      case Command.TRIM:
      case Command.WRITE_ZEROES:
        this.disk.zero(offset, length);
        break;
      case Command.BLOCK_STATUS:
        return [this.#status(one, cookie)];
      default:
        assert.equal(type, Command.FLUSH, 'a command of the protocol');
    }
    return [over === 'simple' ? simpleReply(cookie) : form(none(cookie))];
  }

  #read({ over, flags, offset, length }: Asked, cookie: bigint): Buffer[] {
    const stretches = this.disk.read(offset, Number(length));
    const { random } = this.#options;
    const inOne = over === 'simple' || (flags & CommandFlag.DF) !== 0;
    if (inOne || random === undefined || random() < 0.3) {
      const all = stretches.map((one) => one.data ?? Buffer.alloc(Number(one.length)));
      const content = Buffer.concat(all);
      if (over === 'simple') return [simpleReply(cookie, 0, content)];
      return [data(cookie, true, offset, content)];
    }
    const chunks = stretches
      .map((one) => [random(), one] as const)
      .toSorted(([a], [b]) => a - b)
      .map(([, one]) =>
        one.data === undefined
          ? hole(cookie, false, one.offset, Number(one.length))
          : data(cookie, false, one.offset, one.data),
      );
    return [...chunks, none(cookie)];
  }

  #status({ over, offset, length }: Asked, cookie: bigint): Buffer {
    assert.notEqual(over, 'simple', 'extents are told in chunks only');
    const found = this.disk.extents(offset, length).map((one) => {
      return [one.length, one.hole ? 3 : 0] as const;
    });
    if (over === 'extended') return statusExt(cookie, offset, CONTEXT_ID, found);
    const short = found.slice(0, 1).map(([count, state]) => {
      return [Number(count < MAX_EXTENT ? count : MAX_EXTENT), state] as const;
    });
    return status(cookie, true, CONTEXT_ID, short);
  }

  async #tell(socket: Socket, chunks: readonly Buffer[]): Promise<void> {
    const { random } = this.#options;
    for (const each of chunks) {
      if (random !== undefined) for (let i = random() * 4; i > 1; i--) await turn();
      if (socket.destroyed) return;
      socket.write(each);
    }
  }
}
