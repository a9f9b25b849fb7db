/**
 * The FUSE protocol of a mount of one file: request bytes in, reply bytes out. It has no descriptor,
 * so that a test can be the kernel.
 */

import { errno } from '../errno.js';
import { viewOf } from '../bytes.js';
import type { DiskFile } from '../disk/disk-file.js';
import { traceFuse } from '../trace.js';
import { IN_HEADER_BYTES, Notify, OUT_HEADER_BYTES, ROOT_ID } from './constants.js';
import { Handles } from './handles.js';
import { mustBeOwner } from './owner-only.js';
import { opcodeRow } from './opcodes.js';
import { opcodeName } from './printing.js';
import { FuseRequest } from './request.js';
import type { RequestArena, Slab } from './request-arena.js';

export interface ProtocolOptions {
  /** Wishes the kernel's page cache to be written back, and not through. */
  readonly writeback: boolean;
  /** OpenFlag bits of every open. */
  readonly openFlags: number;
  /** Nobody but this user and root may come in. */
  readonly denyOthers?: number | undefined;
}

/** What the protocol asks of whoever holds /dev/fuse. */
export interface KernelChannel {
  /** Sends one whole message. @returns 0 or more, or a negated errno */
  send(bytes: Buffer, start: number, length: number): number;
  /** The kernel's INIT was answered. */
  started(agreed: { readonly writeback: boolean }): void;
  /**
   * Something was written past the end of the file, so that the kernel thinks the file longer than it
   * is. Resolves when that is mended, or cannot be; never rejects.
   */
  overrun(): Promise<void>;
}

/** Milliseconds that a READ may still take after a signal. */
export const INTERRUPT_PATIENCE = 5000;

/** The largest reply that is not the data of a READ. */
const LARGEST_BODY = 104;

export class FuseProtocol {
  readonly file: DiskFile;
  readonly options: ProtocolOptions;
  readonly handles = new Handles();
  /** Where replies are put together that are not data; free again when `send` returns. */
  readonly out: { readonly bytes: Buffer; readonly view: DataView };

  /** Resolves when the kernel knows the true size again after a write past the end. */
  mended: Promise<void> = Promise.resolve();

  readonly #channel: KernelChannel;
  readonly #arena: RequestArena;
  readonly #requests: FuseRequest[] = [];
  readonly #free: FuseRequest[] = [];
  #whenIdle: (() => void) | undefined;

  constructor(
    file: DiskFile,
    options: ProtocolOptions,
    arena: RequestArena,
    channel: KernelChannel,
  ) {
    this.file = file;
    this.options = options;
    this.#arena = arena;
    this.#channel = channel;
    const bytes = Buffer.alloc(OUT_HEADER_BYTES + LARGEST_BODY);
    this.out = { bytes, view: viewOf(bytes) };
  }

  /** How many requests are not answered yet. */
  get open(): number {
    return this.#requests.length - this.#free.length;
  }

  /** Takes one request of the kernel, `length` bytes of the slab from its `used` on. */
  handle(slab: Slab, length: number): void {
    const start = slab.used;
    if (length < IN_HEADER_BYTES || slab.view.getUint32(start, true) !== length) {
      // Not a request, so that there is nothing to reply to. The kernel never does it.
      traceFuse('rx message of %d bytes that is no request', length);
      return;
    }
    let request = this.#free.pop();
    if (request === undefined) {
      request = new FuseRequest(this);
      this.#requests.push(request);
    }
    request.begin(slab, start, length);
    const row = opcodeRow(request.opcode);
    if (traceFuse.enabled) {
      const { uniqueLow, opcode, bodyBytes } = request;
      traceFuse('rx %d %s %d bytes', uniqueLow, opcodeName(opcode), bodyBytes);
    }
    if (request.bodyBytes < row.bodyBytes) {
      request.fail(errno.EINVAL);
      return;
    }
    const { denyOthers } = this.options;
    if (denyOthers !== undefined) {
      const uid = slab.view.getUint32(start + 24, true);
      if (mustBeOwner(request.opcode) && uid !== denyOthers && uid !== 0) {
        request.fail(errno.EACCES);
        return;
      }
    }
    try {
      row.run(this, request);
    } catch (error) {
      // Whatever goes wrong here, the kernel gets its reply: a process waits for it.
      if (request.state === 'open') request.fail(errno.EIO);
      throw error;
    }
  }

  /** Keeps the memory of a request until it is answered. */
  hold(request: FuseRequest): void {
    request.holdsSlab = true;
    this.#arena.hold(request.slab, request.end - request.slab.used);
  }

  /** For FuseRequest: it has been answered. */
  finished(request: FuseRequest): void {
    if (request.holdsSlab) this.#arena.release(request.slab);
    request.state = 'free';
    this.#free.push(request);
    if (this.#whenIdle !== undefined && this.open === 0) this.#whenIdle();
  }

  /** Calls back once when all requests are answered. */
  whenIdle(idle: () => void): void {
    if (this.open === 0) idle();
    else this.#whenIdle = idle;
  }

  send(bytes: Buffer, start: number, length: number): number {
    return this.#channel.send(bytes, start, length);
  }

  started(agreed: { readonly writeback: boolean }): void {
    this.#channel.started(agreed);
  }

  /**
   * Somebody who waits for a reply got a signal. Most signals are to be handled when the reply is there:
   * a disk does not fail a read with EINTR. But who waits for long is likely being killed.
   */
  interrupt(uniqueLow: number, uniqueHigh: number): void {
    setTimeout(() => this.#giveUp(uniqueLow, uniqueHigh), INTERRUPT_PATIENCE).unref();
  }

  #giveUp(uniqueLow: number, uniqueHigh: number): void {
    for (const request of this.#requests) {
      if (
        request.state === 'open' &&
        request.uniqueLow >>> 0 === uniqueLow >>> 0 &&
        request.uniqueHigh === uniqueHigh
      ) {
        request.interrupt();
      }
    }
  }

  /**
   * The kernel wrote dirty pages back that lie past the end. It lengthened the file by itself when
   * they were written, which no reply of ours can prevent. Each writer's next write is to fail, and
   * the kernel is to learn the true size.
   */
  overrun(): void {
    this.handles.markOverrun();
    // Each write first looks whether the attributes are still valid, and asks us if not.
    this.#notifyInvalidAttributes();
    this.mended = this.#channel.overrun();
  }

  /** FUSE_NOTIFY_INVAL_INODE with a negative offset: the attributes only, no page. */
  #notifyInvalidAttributes(): void {
    const { view, bytes } = this.out;
    const length = OUT_HEADER_BYTES + 24;
    this.#putNotify(Notify.INVAL_INODE, length);
    view.setBigUint64(OUT_HEADER_BYTES, ROOT_ID, true);
    view.setBigInt64(OUT_HEADER_BYTES + 8, -1n, true);
    view.setBigInt64(OUT_HEADER_BYTES + 16, 0n, true);
    this.send(bytes, 0, length);
  }

  /**
   * FUSE_NOTIFY_STORE: puts data into the page cache. With writeback the kernel takes the size of a
   * file that is a mountpoint from nowhere; storing the end of the file makes it as long as it is.
   * @returns 0 or more, or a negated errno
   */
  notifyStore(offset: bigint, data: Buffer): number {
    const headerBytes = OUT_HEADER_BYTES + 24;
    const message = Buffer.alloc(headerBytes + data.length);
    const view = viewOf(message);
    view.setUint32(0, message.length, true);
    view.setInt32(4, Notify.STORE, true);
    view.setBigUint64(OUT_HEADER_BYTES, ROOT_ID, true);
    view.setBigUint64(OUT_HEADER_BYTES + 8, offset, true);
    view.setUint32(OUT_HEADER_BYTES + 16, data.length, true);
    data.copy(message, headerBytes);
    return this.send(message, 0, message.length);
  }

  #putNotify(code: number, length: number): void {
    const { view } = this.out;
    view.setUint32(0, length, true);
    view.setInt32(4, code, true);
    view.setBigUint64(8, 0n, true);
  }
}
