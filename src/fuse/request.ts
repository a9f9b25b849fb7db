/** One request of the kernel, which gets exactly one reply. */

import { errno } from '../errno.js';
import type { Owner } from '../buffer-pool.js';
import type { ReadReply, Reply } from '../disk/disk.js';
import { traceFuse } from '../trace.js';
import { IN_HEADER_BYTES, OUT_HEADER_BYTES, Opcode } from './constants.js';
import type { FuseProtocol } from './protocol.js';
import type { Slab } from './request-arena.js';
import type { FileNode } from './tree.js';
import { opcodeName } from './printing.js';

const INTERRUPTIBLE: ReadonlySet<number> = new Set([Opcode.READ, Opcode.LSEEK, Opcode.FSYNC]);

/** The reply carries less than that (fuse_dev_do_write() of the kernel). */
const MAX_CODE = 512;

/**
 * An error of a disk as the kernel can be told of it. For ENOSYS it would answer success to fsync(2) and close(2),
 * now and ever after; and for a number that it does not know whoever asked would wait for ever.
 */
function tellable(code: number): number {
  return code > 0 && code < MAX_CODE && code !== errno.ENOSYS ? code : errno.EIO;
}

/**
 * The objects are kept and used again. They are also the replies that the disk gets for reads and
 * writes, so that a request needs no other object.
 */
export class FuseRequest implements Reply, ReadReply {
  readonly #protocol: FuseProtocol;

  opcode = 0;
  /** `unique` in two halves: it is 64 bits and must stay exact. */
  uniqueLow = 0;
  uniqueHigh = 0;
  /** Which file or directory it is about. */
  nodeId = 0;
  /** The file, in those that are about one. */
  node!: FileNode;
  /** Of the user who asks. */
  uid = 0;
  /** Of the thread that asks; 0 for the kernel's own requests. */
  pid = 0;
  /** Of a READ: how many bytes the reply has. Of a WRITE: how many were written. */
  count = 0;
  /** See FuseProtocol.receivedAt. */
  begun = 0;
  /** The memory that it stands in: its body, after the header, is from `body` to `end`. */
  slab!: Slab;
  body = 0;
  end = 0;
  /** The slab is held until the reply. */
  holdsSlab = false;
  /** Who waits for the reply has a signal pending. */
  signalled = false;
  /** How often it was seen waiting. */
  looks = 0;

  state: 'free' | 'open' | 'answered' = 'free';
  /** It was answered EINTR: what the disk says later is for nobody. */
  #interrupted = false;

  constructor(protocol: FuseProtocol) {
    this.#protocol = protocol;
  }

  /** A new request is in the object. */
  begin(slab: Slab, start: number, length: number): void {
    const { view } = slab;
    this.slab = slab;
    this.opcode = view.getUint32(start + 4, true);
    this.begun = this.#protocol.receivedAt;
    this.uniqueLow = view.getUint32(start + 8, true);
    this.uniqueHigh = view.getUint32(start + 12, true);
    // Ours have 32 bits; what has more is none of ours.
    this.nodeId = view.getUint32(start + 20, true) === 0 ? view.getUint32(start + 16, true) : 0;
    this.uid = view.getUint32(start + 24, true);
    this.pid = view.getUint32(start + 32, true);
    this.body = start + IN_HEADER_BYTES;
    this.end = start + length;
    this.count = 0;
    this.holdsSlab = false;
    this.signalled = false;
    this.looks = 0;
    this.#interrupted = false;
    this.state = 'open';
  }

  get bodyBytes(): number {
    return this.end - this.body;
  }

  /** The data of a READ or a READDIR, `count` bytes behind room for the header. */
  data(bytes: Buffer, start: number, owner?: Owner): void {
    this.#data(bytes, start);
    owner?.release();
  }

  #data(bytes: Buffer, start: number): void {
    if (this.#late()) return;
    const at = start - OUT_HEADER_BYTES;
    const total = OUT_HEADER_BYTES + this.count;
    bytes.writeUInt32LE(total, at);
    bytes.writeInt32LE(0, at + 4);
    bytes.writeUInt32LE(this.uniqueLow, at + 8);
    bytes.writeUInt32LE(this.uniqueHigh, at + 12);
    if (this.opcode === Opcode.READ) {
      this.#protocol.operations.read.succeeded(this.count, this.begun);
    }
    this.#send(bytes, at, total, 0);
  }

  /** An error, as a positive errno. */
  fail(code: number): void {
    if (this.#late()) return;
    this.#failed();
    this.#reply(tellable(code), 0);
  }

  /** It is of a kind that we do not know: the kernel remembers that for the life of the mount, and asks no more. */
  unknown(): void {
    this.#reply(errno.ENOSYS, 0);
  }

  #failed(): void {
    const { operations } = this.#protocol;
    if (this.opcode === Opcode.READ) operations.read.errors++;
    else if (this.opcode === Opcode.WRITE) operations.write.errors++;
  }

  /** The data of a WRITE stay as they are until they are released. */
  keep(): Owner | undefined {
    return this.holdsSlab ? this.#protocol.lend(this) : undefined;
  }

  /** Success without a body, but for WRITE whose body tells how many bytes were written; or an error. */
  done(code: number): void {
    if (this.#late()) return;
    if (code !== 0 || this.opcode !== Opcode.WRITE) {
      if (code !== 0) this.#failed();
      this.#reply(code === 0 ? 0 : tellable(code), 0);
      return;
    }
    const { out, operations } = this.#protocol;
    operations.write.succeeded(this.count, this.begun);
    out.view.setUint32(OUT_HEADER_BYTES, this.count, true);
    out.view.setUint32(OUT_HEADER_BYTES + 4, 0, true);
    this.#reply(0, 8);
  }

  /** Success with a body of `bodyBytes`, which was put into the protocol's `out` behind the header. */
  reply(bodyBytes: number): void {
    if (this.#late()) return;
    this.#reply(0, bodyBytes);
  }

  /** A request that wants no reply is over. */
  noReply(): void {
    this.#finish();
  }

  get isRead(): boolean {
    return this.opcode === Opcode.READ;
  }

  /** Whether it can be given up. What changes the disk cannot: it would still do so later, over what is newer. */
  get interruptible(): boolean {
    return this.state === 'open' && !this.#interrupted && INTERRUPTIBLE.has(this.opcode);
  }

  /** Who waits gets EINTR and is free to go; what the disk says later is dropped. */
  interrupt(): void {
    if (!this.interruptible) return;
    this.#interrupted = true;
    const { out } = this.#protocol;
    this.#putHeader(out.view, OUT_HEADER_BYTES, errno.EINTR);
    this.#protocol.send(out.bytes, 0, OUT_HEADER_BYTES);
  }

  /** Whether nobody waits for the reply any more; a second reply is a bug of ours. */
  #late(): boolean {
    if (this.state !== 'open') {
      throw new Error(`${opcodeName(this.opcode)} was answered twice`);
    }
    if (!this.#interrupted) return false;
    this.#finish();
    return true;
  }

  #putHeader(view: DataView, total: number, code: number): void {
    view.setUint32(0, total, true);
    view.setInt32(4, -code, true);
    view.setUint32(8, this.uniqueLow, true);
    view.setUint32(12, this.uniqueHigh, true);
  }

  #reply(code: number, bodyBytes: number): void {
    const { out } = this.#protocol;
    const total = OUT_HEADER_BYTES + bodyBytes;
    this.#putHeader(out.view, total, code);
    this.#send(out.bytes, 0, total, code);
  }

  #send(bytes: Buffer, start: number, length: number, code: number): void {
    if (traceFuse.enabled) {
      const { uniqueLow, opcode } = this;
      traceFuse('tx %d %s error=%d length=%d', uniqueLow, opcodeName(opcode), code, length);
    }
    // Over before the reply goes out: the kernel may have its next request ready at once.
    this.#finish();
    this.#protocol.send(bytes, start, length);
  }

  #finish(): void {
    this.state = 'answered';
    this.#protocol.finished(this);
  }
}
