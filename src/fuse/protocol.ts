/**
 * The FUSE protocol of a mount: request bytes in, reply bytes out. It has no descriptor, so that a test
 * can be the kernel.
 */

import { errno } from '../errno.js';
import type { Owner } from '../buffer-pool.js';
import { viewOf } from '../bytes.js';
import { makeOperations } from '../observe/operations.js';
import type { Operations } from '../observe/operations.js';
import { traceFuse } from '../trace.js';
import { IN_HEADER_BYTES, Notify, OUT_HEADER_BYTES } from './constants.js';
import { fateOf } from './fate.js';
import type { Fate } from './fate.js';
import { Handles } from './handles.js';
import { Interrupts } from './interrupts.js';
import { Listings } from './listings.js';
import { mustBeOwner } from './owner-only.js';
import { opcodeRow } from './opcodes.js';
import type { About } from './opcodes.js';
import { opcodeName } from './printing.js';
import { FuseRequest } from './request.js';
import type { RequestArena, Slab } from './request-arena.js';
import type { FileNode, Tree } from './tree.js';

export interface ProtocolOptions {
  /** Wishes the kernel's page cache to be written back, and not through. */
  readonly writeback: boolean;
  /** OpenFlag bits of every open. */
  readonly openFlags: number;
  /** For statfs(2): of the disk, in bytes. */
  readonly size: bigint;
  readonly blockSize: number;
  /** Nobody but this user and root may come in. */
  readonly denyOthers?: number | undefined;
  /** What becomes of a thread; from /proc, if not said. */
  readonly fateOf?: ((pid: number) => Fate) | undefined;
  /** What is read and written is counted there. */
  readonly operations?: Operations | undefined;
}

/** What the protocol asks of whoever holds /dev/fuse. */
export interface KernelChannel {
  /** Sends one whole message. @returns 0 or more, or a negated errno */
  send(bytes: Buffer, start: number, length: number): number;
  /** The kernel's INIT was answered. */
  started(agreed: { readonly writeback: boolean }): void;
  /**
   * Something was written past the end of a file, so that the kernel thinks the file longer than it
   * is. Resolves when that is mended, or cannot be; never rejects.
   */
  overrun(node: FileNode): Promise<void>;
  /**
   * What was written to a file is on the disk, and others that show the same may have to follow before
   * that is answered. Undefined where there is nothing to wait for; never rejects.
   */
  synced(): Promise<unknown> | undefined;
}

/** The largest reply that is not the data of a READ or a READDIR. */
const LARGEST_BODY = 128;

export class FuseProtocol {
  readonly tree: Tree;
  readonly options: ProtocolOptions;
  readonly operations: Operations;
  readonly handles = new Handles();
  readonly listings = new Listings();
  /** Who waits for a reply may be killed meanwhile. */
  readonly interrupts: Interrupts;
  /** Where replies are put together that are not data; free again when `send` returns. */
  readonly out: { readonly bytes: Buffer; readonly view: DataView };

  /** Files of which the kernel does not know the true size, after a write past the end, until it is told. */
  readonly #mending = new Map<FileNode, Promise<void>>();
  readonly #channel: KernelChannel;
  readonly #arena: RequestArena;
  readonly #requests: FuseRequest[] = [];
  readonly #free: FuseRequest[] = [];
  /** One element: how many requests are not answered yet. An array, as others look at it from without. */
  readonly inFlight = new Int32Array(1);
  /**
   * Since when those requests are there that are handled next, in milliseconds of performance.now(). Those that
   * are read together were there together, and the time is asked for once.
   */
  receivedAt = 0;
  /** How many requests have been answered. */
  answered = 0;
  #whenIdle: (() => void) | undefined;

  constructor(tree: Tree, options: ProtocolOptions, arena: RequestArena, channel: KernelChannel) {
    this.tree = tree;
    this.options = options;
    this.operations = options.operations ?? makeOperations();
    this.#arena = arena;
    this.#channel = channel;
    this.interrupts = new Interrupts(this.#requests, options.fateOf ?? fateOf);
    const bytes = Buffer.alloc(OUT_HEADER_BYTES + LARGEST_BODY);
    this.out = { bytes, view: viewOf(bytes) };
  }

  /** How many requests are not answered yet. */
  get open(): number {
    return this.inFlight[0] ?? 0;
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
    this.inFlight[0] = this.open + 1;
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
    const code = this.#denies(request) ? errno.EACCES : this.#aim(request, row.about);
    if (code !== 0) {
      request.fail(code);
      return;
    }
    try {
      row.run(this, request);
      if (request.interruptible) this.interrupts.watch();
    } catch (error) {
      // Whatever goes wrong here, the kernel gets its reply: a process waits for it.
      if (request.state === 'open') request.fail(errno.EIO);
      throw error;
    }
  }

  #denies(request: FuseRequest): boolean {
    const { denyOthers } = this.options;
    const { uid } = request;
    return denyOthers !== undefined && uid !== denyOthers && uid !== 0 && mustBeOwner(request);
  }

  /** Finds what a request is about. @returns 0, or the errno where it is not of that kind */
  #aim(request: FuseRequest, about: About): number {
    if (about === 'any') return 0;
    const { nodeId } = request;
    const node = this.tree.file(nodeId);
    if (about === 'directory') {
      if (this.tree.isDirectoryId(nodeId)) return 0;
      return node === undefined ? errno.ESTALE : errno.ENOTDIR;
    }
    if (node === undefined) return this.tree.isDirectoryId(nodeId) ? errno.EISDIR : errno.ESTALE;
    request.node = node;
    return 0;
  }

  /** Keeps the memory of a request until it is answered. */
  hold(request: FuseRequest): void {
    request.holdsSlab = true;
    this.#arena.hold(request.slab, request.end - request.slab.used);
  }

  /** For FuseRequest: its memory, which is held, is kept beyond its answer. */
  lend({ slab }: FuseRequest): Owner | undefined {
    return this.#arena.lend(slab);
  }

  /** For FuseRequest: it has been answered. */
  finished(request: FuseRequest): void {
    this.answered++;
    if (request.holdsSlab) this.#arena.release(request.slab);
    request.state = 'free';
    this.#free.push(request);
    this.inFlight[0] = this.open - 1;
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

  synced(): Promise<unknown> | undefined {
    return this.#channel.synced();
  }

  started(agreed: { readonly writeback: boolean }): void {
    this.#channel.started(agreed);
  }

  /**
   * The kernel wrote dirty pages back that lie past the end. It lengthened the file by itself when
   * they were written, which no reply of ours can prevent. Each writer's next write is to fail, and
   * the kernel is to learn the true size.
   */
  overrun(node: FileNode): void {
    this.handles.markOverrun(node);
    // Each write first looks whether the attributes are still valid, and asks us if not.
    this.#notifyInvalidAttributes(node);
    const mended = this.#channel.overrun(node).then(() => {
      if (this.#mending.get(node) === mended) this.#mending.delete(node);
    });
    this.#mending.set(node, mended);
  }

  /**
   * Resolves when the kernel knows the true size of a file again. Undefined if it does. Who waits for it must
   * not hold the kernel's lock of the file, which the truncate(2) needs that mends it.
   */
  mended(node: FileNode): Promise<void> | undefined {
    return this.#mending.get(node);
  }

  /** FUSE_NOTIFY_INVAL_INODE with a negative offset: the attributes only, no page. */
  #notifyInvalidAttributes(node: FileNode): void {
    const { view, bytes } = this.out;
    const length = OUT_HEADER_BYTES + 24;
    this.#putNotify(Notify.INVAL_INODE, length);
    view.setBigUint64(OUT_HEADER_BYTES, BigInt(node.id), true);
    view.setBigInt64(OUT_HEADER_BYTES + 8, -1n, true);
    view.setBigInt64(OUT_HEADER_BYTES + 16, 0n, true);
    this.send(bytes, 0, length);
  }

  /**
   * FUSE_NOTIFY_INVAL_INODE of a range: takes it out of the page cache. The kernel writes back what is
   * dirty there and waits for what is being read, all of which asks us: it is not to be sent from here.
   */
  invalidation(node: FileNode, offset: bigint, length: bigint): Buffer {
    const message = Buffer.alloc(OUT_HEADER_BYTES + 24);
    const view = viewOf(message);
    view.setUint32(0, message.length, true);
    view.setInt32(4, Notify.INVAL_INODE, true);
    view.setBigUint64(OUT_HEADER_BYTES, BigInt(node.id), true);
    view.setBigInt64(OUT_HEADER_BYTES + 8, offset, true);
    view.setBigInt64(OUT_HEADER_BYTES + 16, length, true);
    return message;
  }

  /**
   * FUSE_NOTIFY_STORE: puts data into the page cache of a file. With writeback the kernel takes the size of a
   * file that is a mountpoint from nowhere; storing the end of the file makes it as long as it is.
   * @returns 0 or more, or a negated errno
   */
  notifyStore(node: FileNode, offset: bigint, data: Buffer): number {
    const headerBytes = OUT_HEADER_BYTES + 24;
    const message = Buffer.alloc(headerBytes + data.length);
    const view = viewOf(message);
    view.setUint32(0, message.length, true);
    view.setInt32(4, Notify.STORE, true);
    view.setBigUint64(OUT_HEADER_BYTES, BigInt(node.id), true);
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
