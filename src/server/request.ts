/** One request, from its arrival until its reply has left. */

import type { Owner, PooledBuffer } from '../buffer-pool.js';
import { DURABLE, NOT_DURABLE } from '../disk/disk.js';
import type { Disk, Extent, ExtentsReply, ReadReply, Reply, WriteOptions } from '../disk/disk.js';
import { Command, CommandFlag } from '../nbd/constants.js';
import type { Segment } from './inbox.js';
import type { Lease } from './shared-memory.js';

/** Who sends the answer. Each request calls exactly one of the first four. */
export interface Answering {
  succeeded(request: Request): void;
  gave(request: Request, bytes: Buffer, start: number, owner: Owner | undefined): void;
  told(request: Request, extents: readonly Extent[]): void;
  failed(request: Request, code: number): void;
  /** The reply to a read has left, or never will. */
  left(request: Request): void;
}

/** The objects are kept and used again, so that a request costs no allocation. */
export class Request implements ReadReply, Reply, ExtentsReply, Owner {
  type = 0;
  flags = 0;
  // The cookie, as it came.
  cookieHigh = 0;
  cookieLow = 0;
  offset = 0n;
  length = 0;
  /** What counts for it against the limit of its connection, in bytes. */
  heldBytes = 0;
  /** Where that is not of the client's own share. */
  lease: Lease | undefined;
  /** Where the payload of a write stands that has a place of its own. */
  place: PooledBuffer | undefined;
  /** Where that of a shorter one does. */
  segment: Segment | undefined;
  /** Whose memory the data of a read is sent from. */
  lender: Owner | undefined;
  #asked = false;
  /** A flush is to follow, as the disk knows no FUA. */
  #flushAfter = false;
  readonly #disk: Disk;
  readonly #owner: Answering;

  constructor(disk: Disk, owner: Answering) {
    this.#disk = disk;
    this.#owner = owner;
  }

  /** Whether the disk has not answered yet. */
  get asked(): boolean {
    return this.#asked;
  }

  /** Puts the request to the disk. @param bytes the payload of a write, from `start` on */
  ask(bytes?: Buffer, start = 0): void {
    const { offset, length, flags } = this;
    const fua = (flags & CommandFlag.FUA) !== 0;
    const { canFua } = this.#disk.info;
    const options: WriteOptions = fua && canFua ? DURABLE : NOT_DURABLE;
    this.#asked = true;
    this.#flushAfter = fua && !canFua;
    switch (this.type) {
      case Command.READ:
        this.#disk.read(offset, length, this);
        break;
      case Command.WRITE:
        if (bytes === undefined) throw new Error('a write without a payload');
        this.#disk.write(offset, bytes, start, length, options, this);
        break;
      case Command.FLUSH:
        this.#flushAfter = false;
        this.#disk.flush(this);
        break;
      case Command.TRIM:
        this.#disk.trim(offset, BigInt(length), options, this);
        break;
      case Command.WRITE_ZEROES: {
        const noHole = (flags & CommandFlag.NO_HOLE) !== 0;
        this.#disk.zero(offset, BigInt(length), { ...options, noHole }, this);
        break;
      }
      case Command.BLOCK_STATUS:
        this.#disk.extents(offset, BigInt(length), this);
        break;
      default:
        throw new Error(`command ${this.type} should have been refused`);
    }
  }

  /** A disk that answers twice could answer somebody else's request: that is a bug, and must show. */
  #answered(): void {
    if (!this.#asked) throw new Error('a disk answered a request that it was not asked');
    this.#asked = false;
  }

  data(bytes: Buffer, start: number, owner?: Owner): void {
    this.#answered();
    this.#owner.gave(this, bytes, start, owner);
  }

  done(code: number): void {
    if (code === 0 && this.#flushAfter) {
      this.#flushAfter = false;
      this.#disk.flush(this);
      return;
    }
    this.#answered();
    if (code === 0) this.#owner.succeeded(this);
    else this.#owner.failed(this, code);
  }

  extents(extents: readonly Extent[]): void {
    this.#answered();
    this.#owner.told(this, extents);
  }

  fail(code: number): void {
    this.#answered();
    this.#owner.failed(this, code);
  }

  release(): void {
    this.#owner.left(this);
  }
}
