/**
 * One client in its transmission phase: requests are put to the disk as long as there is room for
 * what they hold, and answered in the order in which the disk does.
 */

import type { BufferPool, Owner } from '../buffer-pool.js';
import { HEADROOM } from '../disk/disk.js';
import type { Disk, Extent } from '../disk/disk.js';
import { errno, errnoText } from '../errno.js';
import { Command } from '../nbd/constants.js';
import { ProtocolError } from '../nbd/errors.js';
import { commandName } from '../nbd/printing.js';
import { traceServer } from '../trace.js';
import type { Transport } from '../transport/transport.js';
import { ClientMemory } from './client-memory.js';
import type { Agreed } from './export.js';
import { Intake } from './intake.js';
import { takeFrom } from './memory.js';
import { ReplySender } from './replies.js';
import { Request } from './request.js';
import type { Answering } from './request.js';
import { NO_MEMORY, refusalOf } from './rules.js';
import type { Refusal } from './rules.js';
import { SharedMemory } from './shared-memory.js';
import type { Holder } from './shared-memory.js';

/** How often one wake-up receives before others get their turn. */
const RECEIVES_PER_WAKE = 16;
/** Requests that the disk may have at once. */
const MAX_IN_FLIGHT = 128;
/**
 * So many bytes of replies leave without waiting for the end of the turn, and while that many cannot
 * leave, no request is started: data that is read long before the socket takes it falls out of the
 * processor's cache, and takes memory that would do for many requests, one after the other.
 */
const MAX_QUEUED_BYTES = 512 * 1024;
/**
 * No request is started while payloads and queued replies hold this much. What the last one started
 * holds comes on top, so that the longest request is always possible. For what all clients hold together
 * see shared-memory.ts.
 */
const MAX_HELD_BYTES = 32 * 1024 * 1024;
/** Nor while disks hold this much of what was received, where short payloads stay. */
const MAX_INBOX_BYTES = 2 * 1024 * 1024;

export class Connection implements Answering, Holder {
  readonly #transport: Transport;
  readonly #disk: Disk;
  readonly #agreed: Agreed;
  readonly #pool: BufferPool;
  readonly #memory: ClientMemory;
  readonly #intake: Intake;
  readonly #replies: ReplySender;
  readonly #free: Request[] = [];
  readonly #over: () => void;
  /** Resolves when the transport is closed and the disk has answered all requests. Never rejects. */
  readonly closed: Promise<void>;

  #state: 'open' | 'ending' | 'closed' = 'open';
  #inFlight = 0;
  #receivedBytes = 0;
  /** Whether nothing is received until there is room for a request again. */
  #stalled = false;
  #resuming = false;

  /**
   * @param transport owned from now on; its peer has just finished the handshake
   * @param shared with all clients of the server
   */
  constructor(
    transport: Transport,
    disk: Disk,
    agreed: Agreed,
    pool: BufferPool,
    shared = new SharedMemory(),
  ) {
    this.#transport = transport;
    this.#disk = disk;
    this.#agreed = agreed;
    this.#pool = pool;
    this.#memory = new ClientMemory(shared, this);
    this.#intake = new Intake(pool);
    this.#replies = new ReplySender(transport, agreed.structuredReplies);
    let over = (): void => undefined;
    this.closed = new Promise((resolve) => (over = resolve));
    this.#over = over;
    transport.open({
      readable: () => this.#readable(),
      sendFailed: (code) => this.#abort(`cannot send: ${errnoText(code)}`),
      drained: () => {
        this.#relieved();
        this.#endIfIdle();
      },
    });
    transport.resume();
  }

  /** Payloads and queued replies that are in memory for this client, in bytes. */
  get heldBytes(): number {
    return this.#memory.heldBytes + this.#intake.heldBytes;
  }

  /** Starts no further request; closes when those in flight are answered and the answers have left. */
  shutdown(): void {
    if (this.#state !== 'open') return;
    this.#state = 'ending';
    this.#memory.leave();
    this.#transport.pause();
    this.#endIfIdle();
  }

  /** Closes at once. The disk may still be busy: see `closed`. */
  abort(): void {
    this.#abort('given up');
  }

  get movedBytes(): number {
    return this.#receivedBytes + this.#replies.queuedBytes - this.#transport.queuedBytes;
  }

  memoryFree(): void {
    this.#relieved();
  }

  evict(): void {
    this.#abort('the client keeps memory that others wait for');
  }

  #readable(): void {
    for (let i = 0; i < RECEIVES_PER_WAKE; i++) {
      if (this.#stalled || this.#state !== 'open') return;
      const count = this.#intake.receive(this.#transport);
      if (count === -errno.EAGAIN) return;
      if (count === 0) {
        traceServer('client left %s', this.#intake.within ? 'within a request' : 'without DISC');
        this.shutdown();
        return;
      }
      if (count < 0) {
        this.#abort(`cannot receive: ${errnoText(-count)}`);
        return;
      }
      this.#receivedBytes += count;
      this.#takeRequests();
      if (!this.#intake.more) return;
    }
  }

  /** Starts what has arrived as a whole, as far as there is room. */
  #takeRequests(): void {
    try {
      while (this.#state === 'open') {
        const write = this.#intake.completed();
        if (write !== undefined) {
          this.#memory.withDisk(write);
          this.#start(write, write.place?.bytes, HEADROOM);
          continue;
        }
        if (!this.#intake.ready()) return;
        if (!this.#hasRoom()) {
          this.#stalled = true;
          this.#transport.pause();
          return;
        }
        this.#takeOne();
        if (this.#transport.queuedBytes >= MAX_QUEUED_BYTES) this.#transport.flush();
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#abort(`the client broke the NBD protocol: it ${error.message}`);
    }
  }

  #takeOne(): void {
    const request = this.#free.pop() ?? new Request(this.#disk, this);
    this.#intake.take(request);
    const { type, flags, offset, length } = request;
    if (traceServer.enabled) {
      const what = `${commandName(type)} offset=${offset.toString()} length=${length}`;
      traceServer('rx %s flags=%d', what, flags);
    }
    if (type === Command.DISC) {
      this.shutdown();
      return;
    }
    const refusal = refusalOf(this.#disk.info, this.#agreed, type, flags, offset, length);
    if (refusal !== undefined) this.#refuse(request, refusal);
    else if (type === Command.WRITE) this.#takeWrite(request);
    else this.#start(request);
  }

  #takeWrite(request: Request): void {
    const { start } = this.#intake;
    const segment = this.#intake.lendPayload(request);
    if (segment !== undefined) {
      request.segment = segment;
      this.#start(request, segment.memory.bytes, start);
      if (request.asked) segment.heldEnd = start + request.length;
    } else if (this.#intake.receivePayload(request)) {
      this.#memory.hold(request, request.length);
      this.#memory.withClient(request);
    } else {
      this.#refuse(request, NO_MEMORY);
    }
  }

  #start(request: Request, bytes?: Buffer, start?: number): void {
    this.#inFlight++;
    if (request.type === Command.READ) this.#memory.hold(request, request.length);
    try {
      request.ask(bytes, start);
    } catch (error) {
      // A bug of the disk must not take the other clients along.
      traceServer('%s threw: %O', commandName(request.type), error);
      if (request.asked) request.fail(errno.EIO);
    }
  }

  /** Answers without asking the disk. */
  #refuse(request: Request, refusal: Refusal): void {
    this.#error(request, refusal.code, refusal.message);
    // It may have been its turn for memory that this request no longer needs, and others wait behind it.
    this.#memory.leave();
    if (request.type === Command.WRITE) this.#intake.skipPayload(request);
    this.#release(request);
  }

  succeeded(request: Request): void {
    this.#replies.success(request);
    this.#release(request);
    this.#answered();
  }

  gave(request: Request, bytes: Buffer, start: number, owner: Owner | undefined): void {
    this.#memory.withClient(request);
    if (owner !== undefined) {
      request.lender = owner;
      this.#replies.data(request, bytes, start);
    } else {
      this.#sendCopy(request, bytes, start);
    }
    this.#answered();
  }

  /** What is only lent cannot wait for the socket. */
  #sendCopy(request: Request, bytes: Buffer, start: number): void {
    const copy = takeFrom(this.#pool, HEADROOM + request.length);
    if (copy === undefined) {
      this.#error(request, NO_MEMORY.code, NO_MEMORY.message);
      this.#release(request);
      return;
    }
    bytes.copy(copy.bytes, HEADROOM, start, start + request.length);
    request.lender = copy;
    this.#replies.data(request, copy.bytes, HEADROOM);
  }

  told(request: Request, extents: readonly Extent[]): void {
    this.#replies.extents(request, extents);
    this.#release(request);
    this.#answered();
  }

  failed(request: Request, code: number): void {
    this.#error(request, code, errnoText(code));
    this.#release(request);
    this.#answered();
  }

  left(request: Request): void {
    this.#release(request);
    this.#relieved();
  }

  #error(request: Request, code: number, message: string): void {
    if (traceServer.enabled) traceServer('tx %s: %s', commandName(request.type), message);
    this.#replies.error(request, code, message);
  }

  #answered(): void {
    this.#inFlight--;
    this.#relieved();
    this.#endIfIdle();
    if (this.#state === 'closed' && this.#inFlight === 0) this.#over();
  }

  #release(request: Request): void {
    const { place, lender, segment } = request;
    this.#memory.release(request);
    request.place = undefined;
    request.lender = undefined;
    request.segment = undefined;
    place?.release();
    lender?.release();
    if (segment !== undefined) this.#intake.giveBack(segment);
    this.#free.push(request);
  }

  /** Whether the request that is ready can be started. */
  #hasRoom(): boolean {
    const busy =
      this.#inFlight >= MAX_IN_FLIGHT ||
      this.heldBytes >= MAX_HELD_BYTES ||
      this.#intake.heldBytes >= MAX_INBOX_BYTES ||
      this.#transport.queuedBytes >= MAX_QUEUED_BYTES;
    if (!busy) return this.#memory.ask(this.#intake.nextHolds(this.#disk.info.limits.maximum));
    // Whoever waits behind it for memory is not to wait for its own affairs.
    this.#memory.leave();
    return false;
  }

  /** Something was let go of: goes on where there is room again, once the caller is done. */
  #relieved(): void {
    if (this.#state !== 'open' || !this.#stalled || this.#resuming || !this.#hasRoom()) return;
    this.#resuming = true;
    queueMicrotask(() => {
      this.#resuming = false;
      if (this.#state !== 'open') return;
      this.#stalled = false;
      // May stall again at once; whether there is more to receive, the transport tells.
      this.#transport.resume();
      this.#takeRequests();
    });
  }

  #endIfIdle(): void {
    if (this.#state !== 'ending' || this.#inFlight > 0) return;
    // It tells `drained` when all has left, and so comes back here.
    this.#transport.flush();
    if (this.#transport.queuedBytes === 0) this.#close();
  }

  #abort(reason: string): void {
    if (this.#state === 'closed') return;
    traceServer('connection ended: %s', reason);
    this.#close();
  }

  #close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#memory.leave();
    this.#transport.close();
    const unfinished = this.#intake.close();
    if (unfinished !== undefined) this.#release(unfinished);
    if (this.#inFlight === 0) this.#over();
  }
}
