/**
 * An NBD server in the process of the test whose disk has a volatile cache: what was written and not flushed
 * may be gone when it crashes, as after a power cut. It crashes, hangs up and stalls where a test tells it.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { ByteWriter } from '../../src/bytes.js';
import { Command, CommandFlag } from '../../src/nbd/constants.js';
import type { Target } from '../../src/nbd/export.js';
import { Incoming } from './incoming.js';

/** What survives a crash, or does not, as one. */
export const BLOCK = 512;

/** Has flags, and can flush, FUA, trim, write zeroes; several connections. */
export const ALL_FLAGS = 0x16d;

export interface ServerRequest {
  readonly type: number;
  readonly flags: number;
  readonly cookie: bigint;
  readonly offset: number;
  readonly length: number;
  readonly payload: Buffer;
}

/** What is done about a request: `ignore` does it and never answers, `hold` answers when `answerHeld` is called. */
export type Fate =
  'serve' | 'crash before' | 'crash after' | 'cut before' | 'cut after' | 'ignore' | 'hold';

export interface ForgetfulOptions {
  readonly size: number;
  readonly flags?: number;
  /** Numbers below 1, by which it mixes its answers and forgets; without it, it answers in order and forgets all. */
  readonly random?: () => number;
}

export class ForgetfulServer {
  /** What a crash leaves. */
  stable: Buffer;
  /** What is read. */
  current: Buffer;
  flags: number;
  /** Decides about each request as it comes. */
  fateOf: (request: ServerRequest) => Fate = () => 'serve';
  /** The errno, as on the wire, that a request is refused with, or 0. */
  refuses: (request: ServerRequest) => number = () => 0;
  /** All that was asked. */
  readonly asked: ServerRequest[] = [];
  crashes = 0;
  /** New connections are hung up. */
  isDown = false;
  /** Nothing is read or answered. */
  #stalled: Promise<void> | undefined;
  #goOn: () => void = () => undefined;
  readonly #random: (() => number) | undefined;
  readonly #folder: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #faults: unknown[] = [];
  readonly #held: (() => void)[] = [];

  private constructor({ size, flags = ALL_FLAGS, random }: ForgetfulOptions, folder: string) {
    this.stable = Buffer.alloc(size);
    this.current = Buffer.alloc(size);
    this.flags = flags;
    this.#random = random;
    this.#folder = folder;
    this.#server = createServer((socket) => {
      socket.on('error', () => undefined);
      if (this.isDown) {
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      this.#serve(socket).catch((fault: unknown) => {
        this.#faults.push(fault);
        socket.destroy();
      });
    });
  }

  static async start(options: ForgetfulOptions): Promise<ForgetfulServer> {
    const folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
    const server = new ForgetfulServer(options, folder);
    server.#server.listen(server.socketPath);
    await once(server.#server, 'listening');
    return server;
  }

  get socketPath(): string {
    return join(this.#folder, 's');
  }

  get target(): Target {
    return { address: { kind: 'unix', path: this.socketPath }, exportName: '' };
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /** Loses what was not flushed, but for some of it, and all connections. */
  crash(): void {
    this.crashes++;
    for (let at = 0; at < this.stable.length; at += BLOCK) {
      // What was written may have reached the disk without a flush.
      if (this.#random !== undefined && this.#random() < 0.5) {
        this.current.copy(this.stable, at, at, at + BLOCK);
      }
    }
    this.current = Buffer.from(this.stable);
    this.hangUp();
  }

  /** Drops all connections, and what came over them and was not done. */
  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  stall(): void {
    this.#stalled ??= new Promise((resolve) => (this.#goOn = resolve));
  }

  goOn(): void {
    this.#stalled = undefined;
    this.#goOn();
  }

  answerHeld(): void {
    for (const answer of this.#held.splice(0)) answer();
  }

  /** @throws what went wrong in it */
  async stop(): Promise<void> {
    this.goOn();
    this.hangUp();
    this.#server.close();
    await once(this.#server, 'close');
    await rm(this.#folder, { recursive: true });
    if (this.#faults.length > 0) throw this.#faults[0];
  }

  async #serve(socket: Socket): Promise<void> {
    // The greeting of old, which asks for no answer.
    const greeting = new ByteWriter('big')
      .u64(0x4e42444d41474943n)
      .u64(0x0000420281861253n)
      .u64(BigInt(this.stable.length));
    await this.#stalled;
    socket.write(greeting.u32(this.flags).bytes(Buffer.alloc(124)).finish());
    const incoming = new Incoming(socket);
    for (;;) {
      const header = await incoming.take(28);
      if (header === undefined) return;
      assert.equal(header.readUInt32BE(0), 0x25609513);
      const length = header.readUInt32BE(24);
      const type = header.readUInt16BE(6);
      const payload = await incoming.take(type === Command.WRITE ? length : 0);
      if (payload === undefined) return;
      await this.#stalled;
      if (socket.destroyed) return;
      const request: ServerRequest = {
        type,
        flags: header.readUInt16BE(4),
        cookie: header.readBigUInt64BE(8),
        offset: Number(header.readBigUInt64BE(16)),
        length,
        payload,
      };
      this.asked.push(request);
      if (type === Command.DISC) {
        socket.end();
        return;
      }
      assert.ok(request.offset + length <= this.stable.length, 'it is on the disk');
      const answering = this.#handle(socket, request);
      if (this.#random === undefined) await answering;
    }
  }

  async #handle(socket: Socket, request: ServerRequest): Promise<void> {
    await this.#dawdle();
    // What a connection that is gone has asked is not done.
    if (isGone(socket)) return;
    const fate = this.fateOf(request);
    if (fate === 'crash before') this.crash();
    if (fate === 'cut before') socket.destroy();
    if (isGone(socket)) return;
    const refusal = this.refuses(request);
    const data = refusal === 0 ? this.#do(request) : undefined;
    await this.#dawdle();
    if (fate === 'crash after') this.crash();
    if (fate === 'cut after') socket.destroy();
    if (isGone(socket) || fate === 'ignore') return;
    const reply = new ByteWriter('big').u32(0x67446698).u32(refusal).u64(request.cookie);
    const bytes = data === undefined ? reply.finish() : reply.bytes(data).finish();
    if (fate === 'hold') this.#held.push(() => socket.write(bytes));
    else socket.write(bytes);
  }

  async #dawdle(): Promise<void> {
    const random = this.#random;
    if (random !== undefined) for (let i = random() * 4; i > 1; i--) await turn();
  }

  #do({ type, flags, offset, length, payload }: ServerRequest): Buffer | undefined {
    switch (type) {
      case Command.READ:
        return Buffer.from(this.current.subarray(offset, offset + length));
      case Command.WRITE:
        payload.copy(this.current, offset);
        break;
      case Command.TRIM:
      case Command.WRITE_ZEROES:
        this.current.fill(0, offset, offset + length);
        break;
      default:
        assert.equal(type, Command.FLUSH);
        this.current.copy(this.stable);
    }
    if ((flags & CommandFlag.FUA) !== 0) {
      this.current.copy(this.stable, offset, offset, offset + length);
    }
    return undefined;
  }
}

/** Asked anew each time. */
const isGone = (socket: Socket): boolean => socket.destroyed;
