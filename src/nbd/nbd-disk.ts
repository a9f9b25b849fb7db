/** An NBD export as a Disk, over one connection or, where the server allows it, several. */

import pLimit from 'p-limit';
import { errno } from '../errno.js';
import type {
  Disk,
  DiskInfo,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from '../disk/disk.js';
import { within } from '../deadline.js';
import { eachPart } from '../disk/parts.js';
import type { StartPart } from '../disk/parts.js';
import { traceNbd } from '../trace.js';
import { NbdConnection, SMALL_READ_BYTES } from './connection.js';
import { ConnectionPool } from './connection-pool.js';
import type { ReplyForm } from './connection-pool.js';
import { TransmissionFlag } from './constants.js';
import { sameExport, withoutChunks } from './export.js';
import type { NegotiatedExport, Target } from './export.js';
import type { Transport } from '../transport/transport.js';
import { openExport, orDiscard, prepareTls } from './open.js';
import type { OpenOptions } from './open.js';

export interface ConnectOptions {
  /** Milliseconds for each connection to be made and the handshake to be done. */
  readonly deadline: number;
  /** How many connections at the most; more than one only where the server advertises multi-conn. */
  readonly connections: number;
  /** Ends the attempt early. */
  readonly signal?: AbortSignal;
  /** Told in one line what is dangerous about the keys in use. */
  readonly warn?: ((line: string) => void) | undefined;
}

/**
 * Milliseconds that the further connections may take before the disk is used without them. A server
 * may advertise multi-conn and take fewer clients than we would like, as qemu-nbd --shared=2 does: it
 * lets the others wait. Those that come about later join in.
 */
const JOIN_PATIENCE = 300;
/** Milliseconds for what is in flight when the disk is closed. */
const CLOSE_DEADLINE = 10_000;

/** How many further connections are made at a time. */
const MAX_JOINING = 4;

/**
 * The most that one TRIM, WRITE_ZEROES or BLOCK_STATUS may span, kept aligned to any block: what a
 * length of 32 bits can say, and with extended headers what a number can.
 */
const MAX_RANGE = 0x1_0000_0000 - 65536;
const MAX_EXTENDED_RANGE = 2 ** 53 - 65536;

/**
 * Connects to an export.
 * @throws HandshakeError with a message for the user
 */
export async function connectDisk(target: Target, options: ConnectOptions): Promise<NbdDisk> {
  // The first one tells whether there may be more: a server that takes one client only would keep
  // the others waiting, and qemu-nbd ends when its last client leaves, so that nothing may be probed.
  const encryption = await orDiscard(target.address, () => prepareTls(target, options));
  const { deadline, signal } = options;
  const opening = { deadline, signal, encryption };
  const { transport, negotiated } = await openExport(target, opening);
  const disk = new NbdDisk(negotiated);
  disk.addConnection(transport, negotiated);
  // A socket is one connection, and was taken over by it.
  if (disk.info.canMultiConn && target.address.kind !== 'socket') {
    const more = options.connections - 1;
    await within(joinMore(disk, negotiated, target, opening, more), JOIN_PATIENCE);
  }
  return disk;
}

/** Adds further connections to a disk that has one, until it is closed or lost. Never rejects. */
async function joinMore(
  disk: NbdDisk,
  first: NegotiatedExport,
  target: Target,
  opening: OpenOptions,
  more: number,
): Promise<void> {
  const signals = opening.signal === undefined ? [disk.full] : [disk.full, opening.signal];
  const limit = pLimit(MAX_JOINING);
  const join = async (structuredReplies: boolean): Promise<void> => {
    try {
      const signal = AbortSignal.any(signals);
      const { transport, negotiated } = await openExport(target, {
        ...opening,
        structuredReplies,
        signal,
      });
      const same = structuredReplies
        ? sameExport(negotiated, first)
        : sameExport(withoutChunks(negotiated), withoutChunks(first));
      if (same) disk.addConnection(transport, negotiated);
      else transport.close();
    } catch (error) {
      // One connection does the job as well, only slower.
      traceNbd('no further connection: %s', error);
    }
  };
  // Every other one has simple replies, which the first has not: some for small reads, some for holes.
  const forms = Array.from({ length: more }, (_, i) => first.structuredReplies && i % 2 === 1);
  await Promise.all(forms.map((structuredReplies) => limit(join, structuredReplies)));
}

/** A range that only extended headers can say goes where these were agreed on. */
const formFor = (length: number): ReplyForm =>
  length > MAX_RANGE ? 'structured' : 'rather simple';

export class NbdDisk implements Disk {
  readonly info: DiskInfo;
  /** The most that one TRIM, WRITE_ZEROES or BLOCK_STATUS may span. */
  #maxRange: number;
  readonly #connections = new ConnectionPool();
  #closed: Promise<void> | undefined;
  readonly #full = new AbortController();
  /** Why the server is gone, as the end of a sentence about it. */
  #lost: string | undefined;
  #onLost: ((reason: string) => void) | undefined;

  constructor(agreed: NegotiatedExport) {
    const has = (flag: number): boolean => (agreed.flags & flag) !== 0;
    this.info = {
      size: agreed.size,
      readOnly: has(TransmissionFlag.READ_ONLY),
      canFlush: has(TransmissionFlag.SEND_FLUSH),
      canFua: has(TransmissionFlag.SEND_FUA),
      canTrim: has(TransmissionFlag.SEND_TRIM),
      canZero: has(TransmissionFlag.SEND_WRITE_ZEROES),
      canExtents: agreed.allocationId !== undefined,
      canMultiConn: has(TransmissionFlag.CAN_MULTI_CONN),
      rotational: has(TransmissionFlag.ROTATIONAL),
      limits: agreed.limits,
    };
    this.#maxRange = agreed.extendedHeaders ? MAX_EXTENDED_RANGE : MAX_RANGE;
  }

  /**
   * Called once when the server is gone, with the end of a sentence about it, and at once if it is
   * gone already. All requests fail with EIO then.
   */
  set onLost(told: ((reason: string) => void) | undefined) {
    this.#onLost = told;
    if (this.#lost !== undefined) told?.(this.#lost);
  }

  /**
   * @param transport whose peer has just finished a handshake
   * @param agreed in that handshake, for the same export
   */
  addConnection(transport: Transport, agreed: NegotiatedExport): void {
    if (this.#full.signal.aborted) {
      transport.close();
      return;
    }
    this.#connections.add(
      new NbdConnection(transport, agreed, (...told) => this.#connectionLost(...told)),
    );
  }

  /** Given when no further connection is wanted. */
  get full(): AbortSignal {
    return this.#full.signal;
  }

  /** Goes on with the connections that there are. */
  joinNoMore(): void {
    this.#full.abort();
  }

  /** How many connections are in use. */
  get connections(): number {
    return this.#connections.all.length;
  }

  #connectionLost(reason: string, leaving: boolean): void {
    // What was written over a lost connection and not flushed may be gone, so that going on with the
    // others would promise too much.
    if (this.#lost !== undefined) return;
    this.#lost = reason;
    this.joinNoMore();
    for (const connection of this.#connections.all) {
      // What a server that shuts down in good order has accepted it may still answer.
      if (leaving) void connection.close(CLOSE_DEADLINE);
      else connection.abort();
    }
    this.#onLost?.(reason);
  }

  #pick(form: ReplyForm = 'rather simple'): NbdConnection | undefined {
    if (this.#lost !== undefined || this.#closed !== undefined) return undefined;
    return this.#connections.pick(form);
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    const connection = this.#pick(
      length <= SMALL_READ_BYTES ? 'rather simple' : 'rather structured',
    );
    if (connection === undefined) reply.fail(errno.EIO);
    else connection.read(offset, length, reply);
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    const connection = this.#pick();
    if (connection === undefined) reply.done(errno.EIO);
    else connection.write(offset, bytes, start, length, options, reply);
  }

  flush(reply: Reply): void {
    const connection = this.#pick();
    if (connection === undefined) reply.done(errno.EIO);
    else if (!this.info.canFlush) reply.done(0);
    else connection.flush(reply);
  }

  trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    this.#eachRange(offset, length, reply, (partOffset, partLength, partReply) => {
      const connection = this.#pick(formFor(partLength));
      if (connection === undefined) partReply.done(errno.EIO);
      else connection.trim(partOffset, partLength, options, partReply);
    });
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    this.#eachRange(offset, length, reply, (partOffset, partLength, partReply) => {
      const connection = this.#pick(formFor(partLength));
      if (connection === undefined) partReply.done(errno.EIO);
      else connection.zero(partOffset, partLength, options, partReply);
    });
  }

  /**
   * Does a range in parts that a request can say. A server may find one too long that only extended
   * headers can say (doc/proto.md, "Block size constraints"): from then on all are as without them.
   */
  #eachRange(offset: bigint, length: bigint, reply: Reply, start: StartPart): void {
    if (this.#maxRange === MAX_RANGE || length <= BigInt(MAX_RANGE)) {
      eachPart(offset, length, MAX_RANGE, reply, start);
      return;
    }
    eachPart(offset, length, this.#maxRange, reply, (partOffset, partLength, partReply) => {
      start(partOffset, partLength, {
        done: (code) => {
          if (this.#shortens(partLength, code)) {
            eachPart(partOffset, BigInt(partLength), MAX_RANGE, partReply, start);
          } else {
            partReply.done(code);
          }
        },
      });
    });
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    if (!this.info.canExtents) {
      reply.extents([{ length, hole: false, zero: false }]);
      return;
    }
    const connection = this.#pick('structured');
    const asked = length > BigInt(this.#maxRange) ? this.#maxRange : Number(length);
    if (connection === undefined) reply.fail(errno.EIO);
    else if (asked <= MAX_RANGE) connection.extents(offset, asked, reply);
    else {
      connection.extents(offset, asked, {
        extents: (found) => reply.extents(found),
        fail: (code) => {
          if (this.#shortens(asked, code)) this.extents(offset, length, reply);
          else reply.fail(code);
        },
      });
    }
  }

  /** Whether a range was refused for its length, which may be that of an earlier one. */
  #shortens(length: number, code: number): boolean {
    if (length <= MAX_RANGE || (code !== errno.EOVERFLOW && code !== errno.EINVAL)) return false;
    traceNbd('the server refuses a range of %d bytes', length);
    this.#maxRange = MAX_RANGE;
    return true;
  }

  /** Drops the connections at once; what is in flight gets EIO. `onLost` is not called. */
  abort(): void {
    for (const connection of this.#connections.all) connection.abort();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.joinNoMore();
    await Promise.all(this.#connections.all.map((connection) => connection.close(CLOSE_DEADLINE)));
  }
}
