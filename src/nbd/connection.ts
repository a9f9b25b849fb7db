/**
 * One connection in its transmission phase: commands go out together, replies are answered out of the
 * buffer in which they arrive, and when the connection is lost every command gets EIO, once, or is handed
 * over to whoever can send it again.
 */

import { errno, errnoText } from '../errno.js';
import { HEADROOM } from '../disk/disk.js';
import type { ExtentsReply, ReadReply, Reply, WriteOptions, ZeroOptions } from '../disk/disk.js';
import { viewOf } from '../bytes.js';
import { traceNbd } from '../trace.js';
import type { Transport } from '../transport/transport.js';
import type { StatusReply } from './block-status.js';
import { Command, CommandFlag, TransmissionFlag } from './constants.js';
import type { CommandType } from './constants.js';
import { ProtocolError } from './errors.js';
import type { NegotiatedExport } from './export.js';
import { InFlight } from './in-flight.js';
import type { KeptCommand, PendingCommand } from './in-flight.js';
import { commandName } from './printing.js';
import { ReplyParser } from './reply-parser.js';
import { putRequest, requestBytes } from './request.js';
import { StallWatch } from './stall-watch.js';
import type { Unflushed } from './unflushed.js';

/**
 * How much is received at once where no large reply is under way: enough for many small replies in
 * one call, and little enough to stay in the processor's cache.
 */
const RECEIVE_BYTES = 128 * 1024;
/** What is received beyond the end of a large reply: the headers of the next ones, but little data. */
const LOOK_AHEAD_BYTES = 4096;
/** How often one wake-up receives before others get their turn. */
const RECEIVES_PER_WAKE = 16;
/** Room for so many requests without a payload between two turns; more is taken where it is needed. */
const REQUESTS_STAGED = 512;

/** From when on a connection is full. qemu-nbd and nbdkit work on 16 commands of one at a time. */
const FULL_COMMANDS = 8;
const FULL_BYTES = 512 * 1024;

/**
 * Up to here a read is small: it had better come in a simple reply, or else in one piece. A server has
 * to send up to 64 KiB in one piece when it is asked to (doc/proto.md, NBD_EOVERFLOW).
 */
export const SMALL_READ_BYTES = 32 * 1024;

/** Milliseconds for a server that shuts down to answer what it has. */
const LEAVE_DEADLINE = 5_000;

/**
 * Told of a server that is gone.
 * @param reason a sentence's end that tells what it did: "closed the connection"
 * @param leaving it did so in good order: what is in flight may still be answered. Where commands are handed
 *   over, a second call follows when that is over
 * @param unanswered what is to be sent again or failed, where commands are handed over
 */
export type Lost = (reason: string, leaving: boolean, unanswered: readonly KeptCommand[]) => void;

export interface ConnectionOptions {
  /** Milliseconds after which a command that is not answered counts as the loss of the connection. */
  readonly timeout?: number | undefined;
  /** Told of what is answered and flushed. */
  readonly unflushed?: Unflushed | undefined;
  /**
   * Called when a command is not answered in time, in the place of `lost`: the connection goes on.
   * @param reason as of `Lost`
   */
  readonly stalled?: ((reason: string) => void) | undefined;
  /** What is not answered when the connection is lost is handed over to `lost`, and does not fail. */
  readonly handsOver?: boolean | undefined;
}

export class NbdConnection {
  /** Whether replies come in chunks. Only then can it be asked for extents, and holes are not sent. */
  readonly structured: boolean;
  readonly #transport: Transport;
  readonly #canForbidFragments: boolean;
  readonly #extended: boolean;
  /** Of each header. */
  readonly #requestBytes: number;
  readonly #inFlight: InFlight;
  readonly #parser: ReplyParser;
  readonly #lost: Lost;
  readonly #unflushed: Unflushed | undefined;
  readonly #handsOver: boolean;
  readonly #stallWatch: StallWatch | undefined;
  #received = 0;
  /** All that was given to the transport. */
  #sent = 0;
  /** Why the connection is of no more use, or undefined while it is. */
  #dead: string | undefined;
  #whenIdle: (() => void) | undefined;
  #closing: Promise<void> | undefined;
  /** The server refuses whatever is new, and may still answer what it has. */
  #leaving = false;

  // What was received and not yet parsed stands in #bytes from #start to #end. The first HEADROOM
  // bytes stay free for a reader that puts its own header before the first payload.
  #bytes = Buffer.allocUnsafeSlow(HEADROOM + RECEIVE_BYTES + LOOK_AHEAD_BYTES);
  #view = viewOf(this.#bytes);
  #start = HEADROOM;
  #end = HEADROOM;

  // Requests that carry no payload are made here, one behind the other, so that they leave as one piece.
  #staging: Buffer;
  #staged = 0;

  /**
   * @param transport owned from now on; its peer has just finished the handshake
   * @param lost called once if the connection ends before `close`
   */
  constructor(
    transport: Transport,
    agreed: NegotiatedExport,
    lost: Lost,
    { timeout, unflushed, stalled, handsOver = false }: ConnectionOptions = {},
  ) {
    this.structured = agreed.structuredReplies;
    this.#transport = transport;
    this.#canForbidFragments = this.structured && (agreed.flags & TransmissionFlag.SEND_DF) !== 0;
    this.#unflushed = unflushed;
    this.#handsOver = handsOver;
    this.#inFlight = new InFlight(unflushed, handsOver);
    if (timeout !== undefined) {
      const moved = (): number => this.#received + this.#sent - transport.queuedBytes;
      this.#stallWatch = new StallWatch(this.#inFlight, timeout, moved, () => {
        const reason = `did not answer within ${timeout / 1000} s`;
        if (stalled === undefined) this.#die(reason);
        else stalled(reason);
      });
    }
    this.#extended = agreed.extendedHeaders;
    this.#requestBytes = requestBytes(this.#extended);
    this.#staging = Buffer.allocUnsafeSlow(REQUESTS_STAGED * this.#requestBytes);
    this.#parser = new ReplyParser(this.#inFlight, agreed);
    this.#lost = lost;
    transport.open({
      readable: () => this.#receive(),
      sendFailed: (code) => this.#sendFailed(code),
      drained: () => undefined,
    });
    transport.resume();
  }

  /** How many commands are in flight. */
  get load(): number {
    return this.#inFlight.count;
  }

  /**
   * Whether it has so much to do that another one had better take what comes next. Up to here one is
   * cheaper than several: what leaves together costs one call and wakes the server once, and so do
   * the replies.
   */
  get full(): boolean {
    return this.#inFlight.count >= FULL_COMMANDS || this.#inFlight.payloadBytes >= FULL_BYTES;
  }

  get alive(): boolean {
    return this.#dead === undefined;
  }

  /** Whether it still takes commands. */
  get usable(): boolean {
    return this.#dead === undefined && !this.#leaving;
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    if (!this.usable) {
      reply.fail(errno.EIO);
      return;
    }
    const command = this.#inFlight.add(Command.READ, this.#readFlags(length), offset, length);
    command.readReply = reply;
    this.#sendRequest(command);
  }

  #readFlags(length: number): number {
    // So that qemu-nbd does not ask its image for holes first, which takes longer than to send a few zeroes.
    return this.#canForbidFragments && length <= SMALL_READ_BYTES ? CommandFlag.DF : 0;
  }

  /** As `Disk.write`; the request is put into the headroom before the payload. */
  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    if (!this.usable) {
      reply.done(errno.EIO);
      return;
    }
    const flags = options.fua ? CommandFlag.FUA : 0;
    const command = this.#inFlight.add(Command.WRITE, flags, offset, length);
    command.reply = reply;
    command.bytes = bytes;
    command.start = start;
    const at = start - this.#requestBytes;
    this.#putRequest(bytes, at, command);
    this.#send(bytes, at, this.#requestBytes + length);
    this.#watch(command);
  }

  flush(reply: Reply): void {
    this.#command(Command.FLUSH, 0n, 0, 0, reply);
  }

  /** @param length at most 2^32 - 1, or 2^53 - 1 with extended headers */
  trim(offset: bigint, length: number, options: WriteOptions, reply: Reply): void {
    this.#command(Command.TRIM, offset, length, options.fua ? CommandFlag.FUA : 0, reply);
  }

  /** @param length at most 2^32 - 1, or 2^53 - 1 with extended headers */
  zero(offset: bigint, length: number, options: ZeroOptions, reply: Reply): void {
    this.#command(Command.WRITE_ZEROES, offset, length, zeroFlags(options), reply);
  }

  /** Asks the server to have a range at hand, which changes nothing. @param length as of `trim` */
  cache(offset: bigint, length: number, reply: Reply): void {
    this.#command(Command.CACHE, offset, length, 0, reply);
  }

  /** Asks for base:allocation. @param length as of `trim` */
  extents(offset: bigint, length: number, reply: ExtentsReply): void {
    if (!this.usable) {
      reply.fail(errno.EIO);
      return;
    }
    const command = this.#inFlight.add(Command.BLOCK_STATUS, 0, offset, length);
    command.extentsReply = reply;
    this.#sendRequest(command);
  }

  /** Asks for all meta contexts that were agreed on. @param length as of `trim` */
  status(offset: bigint, length: number, reply: StatusReply): void {
    if (!this.usable) {
      reply.fail(errno.EIO);
      return;
    }
    const command = this.#inFlight.add(Command.BLOCK_STATUS, 0, offset, length);
    command.statusReply = reply;
    this.#sendRequest(command);
  }

  /** Sends what was to be sent by another connection, or was and is not answered. It has to be usable. */
  again(kept: KeptCommand): void {
    const command = this.#inFlight.addKept(kept);
    // Connections may differ in that.
    if (kept.type === Command.READ) command.flags = this.#readFlags(kept.length);
    // The payload stays as it is: what stands before it may be somebody's.
    this.#sendRequest(command);
    if (kept.bytes !== undefined) this.#send(kept.bytes, kept.start, kept.length);
  }

  #command(type: CommandType, offset: bigint, length: number, flags: number, reply: Reply): void {
    if (!this.usable) {
      reply.done(errno.EIO);
      return;
    }
    const command = this.#inFlight.add(type, flags, offset, length);
    command.reply = reply;
    this.#sendRequest(command);
  }

  #sendRequest(command: PendingCommand): void {
    if (command.type === Command.FLUSH && this.#unflushed !== undefined) {
      command.mark = this.#unflushed.mark();
    }
    const at = this.#stage();
    this.#putRequest(this.#staging, at, command);
    this.#send(this.#staging, at, this.#requestBytes);
    this.#watch(command);
  }

  #send(bytes: Buffer, start: number, length: number): void {
    this.#sent += length;
    this.#transport.send(bytes, start, length);
  }

  #watch(command: PendingCommand): void {
    const due = this.#received + this.#sent + this.#inFlight.payloadBytes;
    this.#stallWatch?.started(command, due);
  }

  #putRequest(bytes: Buffer, at: number, command: PendingCommand): void {
    const { type, flags, generation, index, offset, length } = command;
    if (traceNbd.enabled) {
      const from = offset.toString();
      traceNbd('tx %s offset=%s length=%d flags=%d', commandName(type), from, length, flags);
    }
    putRequest(bytes, at, this.#extended, flags, type, generation, index, offset, length);
  }

  /** A place for one request. What is still queued to be sent is not disturbed. */
  #stage(): number {
    if (this.#transport.queuedBytes === 0) this.#staged = 0;
    if (this.#staged + this.#requestBytes > this.#staging.length) {
      // The queue keeps the old one until it is sent.
      this.#staging = Buffer.allocUnsafeSlow(this.#staging.length);
      this.#staged = 0;
    }
    const at = this.#staged;
    this.#staged += this.#requestBytes;
    return at;
  }

  #receive(): void {
    for (let i = 0; i < RECEIVES_PER_WAKE && this.#dead === undefined; i++) {
      const room = this.#makeRoom();
      const count = this.#transport.receive(this.#bytes, this.#end, room);
      if (count === -errno.EAGAIN) return;
      if (count === 0) {
        this.#die('closed the connection');
        return;
      }
      if (count < 0) {
        this.#die(`broke the connection: ${errnoText(-count)}`);
        return;
      }
      this.#received += count;
      this.#end += count;
      this.#parse();
      if (count < room) return;
    }
  }

  /** Makes room for what is to be received next, and tells how much. */
  #makeRoom(): number {
    const { wanted } = this.#parser;
    const have = this.#end - this.#start;
    const room = Math.max(wanted - have + LOOK_AHEAD_BYTES, have === 0 ? RECEIVE_BYTES : 0);
    if (this.#end + room > this.#bytes.length) {
      const capacity = HEADROOM + have + room;
      const target = capacity > this.#bytes.length ? Buffer.allocUnsafeSlow(capacity) : this.#bytes;
      this.#bytes.copy(target, HEADROOM, this.#start, this.#end);
      if (target !== this.#bytes) this.#view = viewOf(target);
      this.#bytes = target;
      this.#start = HEADROOM;
      this.#end = HEADROOM + have;
    }
    return room;
  }

  #parse(): void {
    try {
      this.#start = this.#parser.parse(this.#bytes, this.#view, this.#start, this.#end);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#die(`broke the NBD protocol: it ${error.message}`);
      return;
    }
    if (this.#start === this.#end) this.#start = this.#end = HEADROOM;
    if (this.#parser.shuttingDown) this.#leave();
    if (this.#inFlight.count === 0) this.#whenIdle?.();
  }

  #sendFailed(code: number): void {
    // The server may have said something before it hung up.
    this.#receive();
    this.#die(`broke the connection: ${errnoText(code)}`);
  }

  #die(reason: string): void {
    if (this.#dead !== undefined) return;
    traceNbd('connection lost: the server %s', reason);
    const unanswered = this.#shut(reason, this.#handsOver);
    if (!this.#leaving || this.#handsOver) this.#lost(reason, false, unanswered);
  }

  /**
   * The server would refuse all that follows, and has to be told goodbye (doc/proto.md, NBD_ESHUTDOWN
   * and "Terminating the transmission phase"), but not before it has answered what it has.
   */
  #leave(): void {
    if (this.#leaving || this.#dead !== undefined) return;
    this.#leaving = true;
    traceNbd('the server is shutting down');
    void this.close(LEAVE_DEADLINE);
    this.#lost('is shutting down', true, []);
  }

  /** @returns what was not answered, unless it has failed here */
  #shut(reason: string, handsOver: boolean): KeptCommand[] {
    this.#dead = reason;
    this.#stallWatch?.stop();
    // What will be sent again must not arrive later than that.
    if (handsOver && this.#inFlight.count > 0) this.#transport.reset();
    else this.#transport.close();
    const unanswered = handsOver ? this.#inFlight.takeAll() : [];
    this.#inFlight.failAll(errno.EIO);
    this.#whenIdle?.();
    return unanswered;
  }

  /** Closes at once; what is in flight gets EIO. */
  abort(): void {
    if (this.#dead === undefined) this.#shut('was given up', false);
  }

  /** Closes at once. @returns what was not answered */
  giveUp(): KeptCommand[] {
    return this.#dead === undefined ? this.#shut('was given up', true) : [];
  }

  /**
   * Waits for what is in flight, sends DISC and closes. A second call waits for the first one.
   * @param deadline milliseconds for all of it; what is not answered by then gets EIO
   */
  close(deadline: number): Promise<void> {
    this.#closing ??= this.#close(deadline);
    return this.#closing;
  }

  async #close(deadline: number): Promise<void> {
    if (this.#dead !== undefined) return;
    if (this.#inFlight.count > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadline);
        this.#whenIdle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    if (!this.alive) return;
    // From here on it is no loss when the server hangs up first.
    this.#dead = 'was disconnected';
    const command = this.#inFlight.add(Command.DISC, 0, 0n, 0);
    this.#sendRequest(command);
    this.#inFlight.remove(command);
    this.#transport.flush();
    if (this.#leaving && this.#handsOver) {
      this.#lost('shut down', false, this.#shut('was disconnected', true));
    } else {
      this.#shut('was disconnected', false);
    }
  }
}

/** CommandFlag bits of a WRITE_ZEROES. */
export const zeroFlags = ({ fua, noHole }: ZeroOptions): number =>
  (fua ? CommandFlag.FUA : 0) | (noHole ? CommandFlag.NO_HOLE : 0);
