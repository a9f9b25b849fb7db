/**
 * Takes the requests of a client apart (doc/proto.md, "Request message"). A short payload stays where
 * it arrived; a long one is received straight to a place of its own.
 */

import type { BufferPool } from '../buffer-pool.js';
import { HEADROOM } from '../disk/disk.js';
import { errno } from '../errno.js';
import { Command, REQUEST_BYTES, REQUEST_MAGIC } from '../nbd/constants.js';
import { ProtocolError } from '../nbd/errors.js';
import type { Transport } from '../transport/transport.js';
import { Inbox } from './inbox.js';
import type { Segment } from './inbox.js';
import { takeFrom } from './memory.js';
import type { Request } from './request.js';

/** The longest payload that stays where it arrived among other requests. */
const IN_PLACE_BYTES = 32 * 1024;
/**
 * What is received behind a long payload: some headers, but little of the next long payload, which
 * would have to be copied to its place.
 */
const LOOK_AHEAD_BYTES = 4096;
/** A write this long is no mistake but an attack: its payload is not worth skipping. */
const MAX_SKIPPED_BYTES = 64 * 1024 * 1024;

export class Intake {
  readonly #pool: BufferPool;
  readonly #inbox: Inbox;
  /** The write whose payload is being received to its place, and how much of that has come. */
  #receiving: Request | undefined;
  #filled = 0;
  /** How much of the payload of a refused write is still to come. */
  #skipping = 0;
  #behindLong = false;
  /** Whether the last `receive` got all that there was room for. */
  more = false;

  constructor(pool: BufferPool) {
    this.#pool = pool;
    this.#inbox = new Inbox(pool);
  }

  /** What was received and disks still hold, apart from payloads in places of their own; in bytes. */
  get heldBytes(): number {
    return this.#inbox.retiredBytes;
  }

  /** Whether the end of the stream here would be in the middle of a request. */
  get within(): boolean {
    return this.#inbox.have > 0 || this.#receiving !== undefined || this.#skipping > 0;
  }

  /** Receives once. @returns as Transport.receive; -ENOMEM where there is no memory to receive to */
  receive(transport: Transport): number {
    const place = this.#receiving?.place;
    let room: number;
    let count: number;
    if (this.#receiving !== undefined && place !== undefined) {
      room = this.#receiving.length - this.#filled;
      count = transport.receive(place.bytes, HEADROOM + this.#filled, room);
      if (count > 0) this.#filled += count;
    } else {
      const inbox = this.#inbox;
      if (!inbox.makeRoom()) return -errno.ENOMEM;
      ({ room } = inbox);
      if (this.#behindLong) room = Math.min(room, LOOK_AHEAD_BYTES);
      this.#behindLong = false;
      count = transport.receive(inbox.bytes, inbox.end, room);
      if (count > 0) inbox.end += count;
    }
    this.more = count === room;
    return count;
  }

  /** The write whose payload has come to its place as a whole, once; its place is `place`. */
  completed(): Request | undefined {
    const request = this.#receiving;
    if (request === undefined || this.#filled < request.length) return undefined;
    this.#receiving = undefined;
    this.#behindLong = true;
    return request;
  }

  /**
   * Whether a request is there to be taken, with all of its payload where that is short.
   * @throws ProtocolError
   */
  ready(): boolean {
    if (this.#receiving !== undefined) return false;
    const inbox = this.#inbox;
    if (this.#skipping > 0) {
      this.#skipping -= inbox.skip(this.#skipping);
      if (this.#skipping > 0) return false;
    }
    inbox.wanted = REQUEST_BYTES;
    if (inbox.have < REQUEST_BYTES) return false;
    const { view, start } = inbox;
    const magic = view.getUint32(start);
    if (magic !== REQUEST_MAGIC) {
      throw new ProtocolError(`sent a request with the wrong magic 0x${magic.toString(16)}`);
    }
    const length = view.getUint32(start + 24);
    if (view.getUint16(start + 6) === Command.WRITE && length <= IN_PLACE_BYTES) {
      inbox.wanted = REQUEST_BYTES + length;
    }
    return inbox.have >= inbox.wanted;
  }

  /**
   * How much memory the request that is ready needs beside the inbox, in bytes.
   * @param most what is longer is refused, and needs none
   */
  nextHolds(most: number): number {
    const { view, start } = this.#inbox;
    const type = view.getUint16(start + 6);
    const length = view.getUint32(start + 24);
    if (length > most || (type !== Command.READ && type !== Command.WRITE)) return 0;
    return type === Command.READ || !this.#staysInPlace(length) ? length : 0;
  }

  /** Whether a payload of the request at `start` can stay where it arrives. */
  #staysInPlace(length: number): boolean {
    return length <= IN_PLACE_BYTES && this.#inbox.canLend(REQUEST_BYTES);
  }

  /** Takes the request that is ready, without its payload, which is to be dealt with at once. */
  take(request: Request): void {
    const { view, start } = this.#inbox;
    request.flags = view.getUint16(start + 4);
    request.type = view.getUint16(start + 6);
    request.cookieHigh = view.getUint32(start + 8);
    request.cookieLow = view.getUint32(start + 12);
    request.offset = view.getBigUint64(start + 16);
    request.length = view.getUint32(start + 24);
    this.#inbox.start += REQUEST_BYTES;
  }

  /** Leaves out the payload of the request taken last. @throws ProtocolError if that is endless */
  skipPayload(request: Request): void {
    if (request.length > MAX_SKIPPED_BYTES) {
      throw new ProtocolError(`sent a write of ${request.length} bytes`);
    }
    this.#skipping = request.length;
  }

  /**
   * Lends the payload of the write taken last where it stands, from the `start` of before this call.
   * @returns undefined where it has to have a place of its own
   */
  lendPayload(request: Request): Segment | undefined {
    const { length } = request;
    return length <= IN_PLACE_BYTES && this.#inbox.canLend() ? this.#inbox.lend(length) : undefined;
  }

  /** Where the payload of the write taken last begins. */
  get start(): number {
    return this.#inbox.start;
  }

  /** @returns false if there is no memory for it; see `completed` otherwise */
  receivePayload(request: Request): boolean {
    const place = takeFrom(this.#pool, HEADROOM + request.length);
    if (place === undefined) return false;
    request.place = place;
    this.#receiving = request;
    this.#filled = this.#inbox.moveTo(place.bytes, HEADROOM, request.length);
    return true;
  }

  giveBack(segment: Segment): void {
    this.#inbox.giveBack(segment);
  }

  /** Nothing is received any more. @returns the request whose payload was not complete */
  close(): Request | undefined {
    const request = this.#receiving;
    this.#receiving = undefined;
    this.#inbox.close();
    return request;
  }
}
