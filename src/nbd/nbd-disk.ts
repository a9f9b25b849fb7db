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
import { SMALL_READ_BYTES, zeroFlags } from './connection.js';
import type { StatusReply } from './block-status.js';
import { BASE_ALLOCATION, Command, CommandFlag, TransmissionFlag } from './constants.js';
import type { NegotiatedExport, Target } from './export.js';
import type { Transport } from '../transport/transport.js';
import { orDiscard } from './dial.js';
import { openExport, prepareTls } from './open.js';
import type { OpenOptions, OpenedExport } from './open.js';
import type { Open } from './reconnect.js';
import type { RecoveryOptions } from './recovery.js';
import { MAX_RANGE, ServerLink, formFor } from './server-link.js';
import type { LinkOptions } from './server-link.js';

export interface ConnectOptions {
  /** Milliseconds for each connection to be made and the handshake to be done. */
  readonly deadline: number;
  /** How many connections at the most; more than one only where the server advertises multi-conn. */
  readonly connections: number;
  /** Ends the attempt early. */
  readonly signal?: AbortSignal;
  /** Told in one line what is dangerous about the keys in use. */
  readonly warn?: ((line: string) => void) | undefined;
  /** Milliseconds for each command; a server that takes longer counts as lost. Without it there is no such limit. */
  readonly timeout?: number | undefined;
  /** What is done when the server is lost. Without it, all requests fail from then on. */
  readonly recovery?: RecoverySettings | undefined;
  /** Further meta contexts to be asked for, beside base:allocation: see `NbdDisk.status`. */
  readonly contexts?: readonly string[] | undefined;
}

export interface RecoverySettings extends Omit<RecoveryOptions, 'open'> {
  /**
   * Where the server is now, if that may be another place than before: called before each attempt.
   * @param failed how many attempts have failed since it was lost
   */
  readonly retarget?: ((failed: number) => Promise<Target>) | undefined;
}

/**
 * Milliseconds that the further connections may take before the disk is used without them. A server
 * may advertise multi-conn and take fewer clients than we would like, as qemu-nbd --shared=2 does: it
 * lets the others wait. Those that come about later join in.
 */
const JOIN_PATIENCE = 300;
/** How many further connections are made at a time. */
const MAX_JOINING = 4;

/** The most that one TRIM, WRITE_ZEROES or BLOCK_STATUS may span with extended headers: what a number can say. */
const MAX_EXTENDED_RANGE = 2 ** 53 - 65536;

/**
 * Connects to an export.
 * @throws HandshakeError with a message for the user
 */
export async function connectDisk(target: Target, options: ConnectOptions): Promise<NbdDisk> {
  // The first one tells whether there may be more: a server that takes one client only would keep
  // the others waiting, and qemu-nbd ends when its last client leaves, so that nothing may be probed.
  const encryption = await orDiscard(target.address, () => prepareTls(target, options));
  const { deadline, signal, contexts } = options;
  const opening = { deadline, signal, encryption, contexts };
  const { transport, negotiated } = await openExport(target, opening);
  const { timeout, recovery } = options;
  const openAgain: Open = async (ends, failed, structuredReplies) => {
    const now = await (recovery?.retarget?.(failed) ?? target);
    const signals = signal === undefined ? [ends] : [ends, signal];
    return openExport(now, { ...opening, structuredReplies, signal: AbortSignal.any(signals) });
  };
  const disk = new NbdDisk(negotiated, {
    timeout,
    recovery: recovery === undefined ? undefined : { ...recovery, open: openAgain },
  });
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
      await disk.join(await openExport(target, { ...opening, structuredReplies, signal }));
    } catch (error) {
      // One connection does the job as well, only slower.
      traceNbd('no further connection: %s', error);
    }
  };
  // Every other one has simple replies, which the first has not: some for small reads, some for holes.
  const forms = Array.from({ length: more }, (_, i) => first.structuredReplies && i % 2 === 1);
  await Promise.all(forms.map((structuredReplies) => limit(join, structuredReplies)));
}

export class NbdDisk implements Disk {
  readonly info: DiskInfo;
  /** `cache` does something. */
  readonly canCache: boolean;
  /** The meta contexts that `status` tells of, base:allocation among them. */
  readonly contexts: readonly string[];
  /** The most that one TRIM, WRITE_ZEROES or BLOCK_STATUS may span. */
  #maxRange: number;
  readonly #link: ServerLink;

  constructor(agreed: NegotiatedExport, options: LinkOptions = {}) {
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
    this.canCache = has(TransmissionFlag.SEND_CACHE);
    const allocation = this.info.canExtents ? [BASE_ALLOCATION] : [];
    this.contexts = [...allocation, ...(agreed.contexts?.keys() ?? [])];
    this.#maxRange = agreed.extendedHeaders ? MAX_EXTENDED_RANGE : MAX_RANGE;
    const { canFlush, readOnly } = this.info;
    this.#link = new ServerLink(agreed, canFlush && !readOnly, options);
  }

  /**
   * Called once when the server is gone for good, with the end of a sentence about it, and at once if it is
   * gone already. All requests fail with EIO then.
   */
  set onLost(told: ((reason: string) => void) | undefined) {
    this.#link.onLost = told;
  }

  /** Called whenever the server is lost and waited for. */
  set onDown(told: (() => void) | undefined) {
    this.#link.onDown = told;
  }

  /** Called whenever it is back after that. */
  set onUp(told: (() => void) | undefined) {
    this.#link.onUp = told;
  }

  /** The server is lost, and waited for. */
  get isDown(): boolean {
    return this.#link.isDown;
  }

  /**
   * @param transport whose peer has just finished a handshake
   * @param agreed in that handshake, for the same export
   */
  addConnection(transport: Transport, agreed: NegotiatedExport): void {
    this.#link.add(transport, agreed);
  }

  /** Adds a further connection once it is clear that it leads to the same; otherwise closes it. */
  join(opened: OpenedExport): Promise<void> {
    return this.#link.join(opened);
  }

  /** Given when no further connection is wanted. */
  get full(): AbortSignal {
    return this.#link.full;
  }

  /** Goes on with the connections that there are: none is made any more, not even to a server that was lost. */
  joinNoMore(): void {
    this.#link.joinNoMore();
  }

  /** How often the server was lost and connected to again. */
  get reconnects(): number {
    return this.#link.reconnects;
  }

  /** Bytes that were written and that no flush has covered, as far as they are kept to be sent again. */
  get unflushedBytes(): number {
    return this.#link.unflushedBytes;
  }

  /** What is wrong, as the end of a sentence about the server; undefined where nothing is. */
  get trouble(): string | undefined {
    return this.#link.trouble;
  }

  /** How many connections are in use. */
  get connections(): number {
    return this.#link.connections;
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    const connection = this.#link.pick(
      length <= SMALL_READ_BYTES ? 'rather simple' : 'rather structured',
    );
    if (connection !== undefined) connection.read(offset, length, reply);
    else this.#link.later({ type: Command.READ, offset, length, readReply: reply });
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    const connection = this.#link.pickForChange('rather simple');
    if (connection !== undefined) {
      connection.write(offset, bytes, start, length, options, reply);
    } else {
      const flags = options.fua ? CommandFlag.FUA : 0;
      this.#link.later({ type: Command.WRITE, flags, offset, length, bytes, start, reply });
    }
  }

  flush(reply: Reply): void {
    if (!this.info.canFlush && !this.#link.isOver) {
      reply.done(0);
      return;
    }
    const answered = this.#link.flushReply(reply);
    const connection = this.#link.pick('rather simple');
    if (connection !== undefined) connection.flush(answered);
    else this.#link.later({ type: Command.FLUSH, reply: answered });
  }

  trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    const type = Command.TRIM;
    const flags = options.fua ? CommandFlag.FUA : 0;
    this.#eachRange(offset, length, reply, (at, count, partReply) => {
      const connection = this.#link.pickForChange(formFor(count));
      if (connection !== undefined) connection.trim(at, count, options, partReply);
      else this.#link.later({ type, flags, offset: at, length: count, reply: partReply });
    });
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    const type = Command.WRITE_ZEROES;
    const flags = zeroFlags(options);
    this.#eachRange(offset, length, reply, (at, count, partReply) => {
      const connection = this.#link.pickForChange(formFor(count));
      if (connection !== undefined) connection.zero(at, count, options, partReply);
      else this.#link.later({ type, flags, offset: at, length: count, reply: partReply });
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
    const asked = length > BigInt(this.#maxRange) ? this.#maxRange : Number(length);
    if (asked <= MAX_RANGE) {
      this.#askExtents(offset, asked, reply);
      return;
    }
    this.#askExtents(offset, asked, {
      extents: (found) => reply.extents(found),
      fail: (code) => {
        if (this.#shortens(asked, code)) this.extents(offset, length, reply);
        else reply.fail(code);
      },
    });
  }

  /**
   * Asks what the meta contexts say that were agreed on; there have to be some.
   * @param length at most 4 GiB less 64 KiB
   */
  status(offset: bigint, length: number, reply: StatusReply): void {
    const connection = this.#link.pick('structured');
    if (connection !== undefined) connection.status(offset, length, reply);
    else this.#link.later({ type: Command.BLOCK_STATUS, offset, length, statusReply: reply });
  }

  /** Asks the server to have a range at hand. It has to be able to: see `canCache`. */
  cache(offset: bigint, length: bigint, reply: Reply): void {
    // A server may have the bounds of a read for it, as qemu-nbd has.
    eachPart(offset, length, this.info.limits.maximum, reply, (at, count, partReply) => {
      const connection = this.#link.pick('rather simple');
      if (connection !== undefined) connection.cache(at, count, partReply);
      else this.#link.later({ type: Command.CACHE, offset: at, length: count, reply: partReply });
    });
  }

  #askExtents(offset: bigint, length: number, reply: ExtentsReply): void {
    const connection = this.#link.pick('structured');
    if (connection !== undefined) connection.extents(offset, length, reply);
    else this.#link.later({ type: Command.BLOCK_STATUS, offset, length, extentsReply: reply });
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
    this.#link.abort();
  }

  /**
   * From now on a server that is lost is not waited for any longer than that, beside what one command may take.
   * @param milliseconds in all
   */
  hurry(milliseconds: number): void {
    this.#link.hurry(milliseconds);
  }

  /** It is waited for as long as before, since the end that was wanted does not come. */
  hurryNoMore(): void {
    this.#link.hurryNoMore();
  }

  close(): Promise<void> {
    return this.#link.close();
  }
}
