/**
 * A disk as a file: what a tool gets that treats the disk as an ordinary file of a fixed size. Nothing
 * here knows the FUSE protocol. The table in ARCHITECTURE.md, "The file we show", is what it implements.
 *
 * Errors are given back as positive Linux errnos, 0 for success.
 */

import { errno } from '../errno.js';
import { makeOperations } from '../observe/operations.js';
import type { Operations } from '../observe/operations.js';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  SEEK_DATA,
  SEEK_HOLE,
} from '../linux.js';
import { Allocation } from './allocation.js';
import { Cuts } from './cuts.js';
import { DURABLE, NOT_DURABLE } from './disk.js';
import type { Disk, Reply, ZeroOptions } from './disk.js';
import { FileAttributes } from './file-attributes.js';
import type { AttributeChange, Attributes } from './file-attributes.js';
import { FileCut } from './file-cut.js';
import { HoleFinder } from './hole-finder.js';
import type { SeekReply } from './hole-finder.js';
import { WriteTracker } from './write-tracker.js';

const PUNCH: ZeroOptions = { fua: false, noHole: false };
const KEEP_ALLOCATED: ZeroOptions = { fua: false, noHole: true };

export interface DiskFileOptions {
  /** Also where the disk itself could be written. */
  readonly readOnly: boolean;
  readonly uid: number;
  readonly gid: number;
  readonly permissions: number;
  /** Making a hole trims, where the disk can: what is read there afterwards is undefined. */
  readonly trim?: boolean;
  /** Others may change the disk as well. */
  readonly shared?: boolean;
  /** The disk is to give what it holds now, and nothing that was read before: see `ReadAheadDisk`. */
  readonly forgetReadAhead?: () => void;
  /** It is one of several files that show parts of the same disk, from a byte of it on. */
  readonly among?: { readonly cuts: Cuts; readonly start: bigint } | undefined;
  /** Told of the first write that the disk refuses: from the page cache nobody else may hear of it. */
  readonly writeFailed?: (offset: bigint, code: number) => void;
  /** Told of each range that was, or may have been, written. */
  readonly changed?: (offset: bigint, length: bigint) => void;
  /** What is flushed, trimmed and zeroed is counted there. */
  readonly operations?: Operations | undefined;
}

export class DiskFile {
  readonly disk: Disk;
  readonly size: bigint;
  readonly readOnly: boolean;
  /** A power of two from 512 on: what stat's st_blksize may be, whatever the server prefers. */
  readonly blockSize: number;
  /** The disk cannot flush, but make each write durable: then that is done, so that fsync is true. */
  readonly #writeThrough: boolean;
  readonly #trims: boolean;
  readonly #shared: boolean;
  readonly #forgetReadAhead: () => void;
  readonly #writeFailed: DiskFileOptions['writeFailed'];
  /** Of the first write that the disk refused, or 0. */
  writeError = 0;
  /** Off while a mount is being made: what it asks of itself is for nobody who wants to know the blocks. */
  counting = true;
  /** How many open handles may write. */
  #writers = 0;
  /**
   * The place that a handle was told last to be data, since somebody could write. The search for its end
   * that follows may not call the same place a hole when the writer has gone meanwhile.
   */
  readonly #calledData = new Map<bigint, bigint>();
  readonly #tracker: WriteTracker;
  readonly #allocation: Allocation;
  readonly #holes: HoleFinder;
  readonly #cut: FileCut;
  readonly #attributes: FileAttributes;
  readonly #operations: Operations;
  #cacheStale = false;

  constructor(disk: Disk, options: DiskFileOptions) {
    this.disk = disk;
    this.size = disk.info.size;
    this.readOnly = options.readOnly || disk.info.readOnly;
    this.#writeThrough = disk.info.canFua && !disk.info.canFlush;
    this.#trims = options.trim === true && disk.info.canTrim;
    this.#shared = options.shared === true;
    this.#forgetReadAhead = options.forgetReadAhead ?? (() => undefined);
    this.#writeFailed = options.writeFailed;
    this.#operations = options.operations ?? makeOperations();
    this.#tracker = new WriteTracker((code, offset) => {
      if (this.writeError !== 0) return;
      this.writeError = code;
      this.#writeFailed?.(offset, code);
    }, options.changed);
    this.#allocation = new Allocation(disk, () => this.#tracker.underWay);
    this.#holes = new HoleFinder(disk);
    this.blockSize = Math.min(Math.max(disk.info.limits.preferred, 4096), 1024 * 1024);
    const { uid, gid, permissions } = options;
    const mode = this.readOnly ? permissions & ~0o222 : permissions;
    this.#attributes = new FileAttributes({ uid, gid, permissions: mode });
    this.#cut = new FileCut({
      cuts: options.among?.cuts ?? new Cuts(),
      start: options.among?.start ?? 0n,
      size: this.size,
      zero: (offset, length, reply) => this.#zeroDisk(offset, length, PUNCH, reply),
      filled: () => {
        this.#allocation.changed();
        // Not before: who opens the file while gaps are zeroed may still read what was there.
        this.#cacheStale = true;
      },
    });
  }

  /**
   * As `attributes`, when it is known how much is allocated, or after a moment in which that did not
   * become known.
   */
  whenCounted(reply: (attributes: Attributes) => void): void {
    if (this.counting) this.#allocation.refresh(() => reply(this.attributes()));
    else reply(this.attributes());
  }

  /** At once, with what is known by now. */
  attributes(): Attributes {
    const blocks = (this.#allocation.bytes + 511n) / 512n;
    // Never 0 where there are bytes: tar -S would take them for one hole, without looking.
    const told = blocks > 0n || this.size === 0n ? blocks : 1n;
    return this.#attributes.with(this.size, told, this.blockSize);
  }

  /**
   * Attributes live as long as the mount. The size never changes: cutting the file to nothing, as
   * O_TRUNC does, or to the size it has, succeeds, as it does for a block device. What it means for the
   * content is told by `truncated` and `extendedTo`.
   */
  change(change: AttributeChange): number {
    if (change.size !== undefined && change.size !== 0n && change.size !== this.size) {
      return errno.EINVAL;
    }
    this.#attributes.change(change);
    return 0;
  }

  dropSetId(): void {
    this.#attributes.dropSetId();
  }

  open(forWriting: boolean): number {
    if (forWriting && this.readOnly) return errno.EROFS;
    if (forWriting) this.#writers++;
    if (this.#shared) this.#othersChanged();
    this.readsAnew();
    return 0;
  }

  /** What is read from now on is to show what others wrote before, if there are any. */
  readsAnew(): void {
    if (this.#shared) this.#forgetReadAhead();
  }

  /** The disk was changed by another way than this file. */
  changedBehind(): void {
    this.#attributes.written();
    this.#cacheStale = true;
    this.#othersChanged();
  }

  #othersChanged(): void {
    this.#holes.forget();
    this.#allocation.changed();
  }

  /** The disk is asked nothing more by the file itself. */
  stop(): void {
    this.#allocation.stop();
  }

  /** Whether the disk was changed behind the page cache since it was last asked. */
  takeCacheStale(): boolean {
    const stale = this.#cacheStale;
    this.#cacheStale = false;
    return stale;
  }

  /** The file was cut to nothing by whoever has this handle: see truncation.ts. */
  truncated(owner: bigint): void {
    if (!this.readOnly) this.#cut.begin(owner);
  }

  /** Whoever cut the file has made it this long again. */
  extendedTo(owner: bigint, size: bigint): void {
    this.#cut.extendedTo(owner, size);
  }

  /**
   * A handle is closed or synced: as `sync`, but first what its holder skipped since it cut the file is
   * zeroed.
   */
  syncHandle(owner: bigint, reply: Reply): void {
    this.#cut.fill(owner, {
      done: (code) => {
        if (code === 0) this.sync(reply);
        else reply.done(code);
      },
    });
  }

  /** The handle is gone for good. */
  releaseHandle(owner: bigint, forWriting: boolean, reply: Reply): void {
    this.#calledData.delete(owner);
    if (forWriting) this.#writers--;
    this.syncHandle(owner, {
      done: (code) => {
        this.#cut.endOf(owner);
        // What a search was told while something was still being written need not hold any more.
        if (forWriting) this.#holes.forget();
        reply.done(code);
      },
    });
  }

  /** access(2): the kernel has checked the rest. */
  access(forWriting: boolean): number {
    return forWriting && this.readOnly ? errno.EROFS : 0;
  }

  /** How many of `length` bytes at `offset` there are; 0 at the end and past it. */
  readable(offset: bigint, length: number): number {
    const left = this.size - offset;
    if (left <= 0n) return 0;
    return left < BigInt(length) ? Number(left) : length;
  }

  /**
   * How many of `length` bytes at `offset` can be written: short at the end, as on a block device.
   * None there is ENOSPC.
   */
  writable(offset: bigint, length: number): number {
    return this.readOnly ? 0 : this.readable(offset, length);
  }

  /**
   * Writes within the disk.
   * @param durable answered only when it is durable, as O_SYNC and O_DSYNC promise
   */
  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    durable: boolean,
    reply: Reply,
  ): void {
    const count = BigInt(length);
    const waiting = this.#cut.waitingFor(offset, count);
    if (waiting !== undefined) {
      waiting.push(() => this.write(offset, bytes, start, length, durable, reply));
      return;
    }
    this.#noteChange();
    this.#allocation.written(count);
    this.#cut.covered(offset, count);
    const { disk } = this;
    const tracker = this.#tracker;
    if (!durable && !this.#writeThrough) {
      disk.write(offset, bytes, start, length, NOT_DURABLE, tracker.tracked(reply, offset, count));
    } else if (disk.info.canFua) {
      disk.write(
        offset,
        bytes,
        start,
        length,
        DURABLE,
        tracker.tracked(reply, offset, count, true),
      );
    } else {
      const written = tracker.tracked(this.#thenFlush(reply), offset, count);
      disk.write(offset, bytes, start, length, NOT_DURABLE, written);
    }
  }

  #noteChange(): void {
    this.#attributes.written();
    this.#holes.forget();
    this.#allocation.changed();
  }

  #options(options: ZeroOptions): ZeroOptions {
    return this.#writeThrough ? { ...options, fua: true } : options;
  }

  #thenFlush(reply: Reply): Reply {
    return {
      done: (code) => {
        if (code === 0) this.sync(reply);
        else reply.done(code);
      },
    };
  }

  /** fsync, fdatasync and close: answered after the disk's flush, if anything was written since the last. */
  sync(reply: Reply): void {
    const mark = this.#tracker.mark();
    if (mark === undefined) {
      reply.done(0);
      return;
    }
    const begun = performance.now();
    this.disk.flush({
      done: (code) => {
        this.#operations.flush.answered(code, 0, begun);
        if (code === 0) this.#tracker.flushed(mark);
        reply.done(code);
      },
    });
  }

  /**
   * fallocate(2) for a disk: making a hole and zeroing, which both make a range read as zeroes. It
   * does not trim unless that was asked for, since what a trimmed range reads is undefined, and mkfs
   * relies on zeroes.
   */
  allocate(mode: number, offset: bigint, length: bigint, reply: Reply): void {
    const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
    const what = mode & ~FALLOC_FL_KEEP_SIZE;
    if (this.readOnly) {
      reply.done(errno.EROFS);
      return;
    }
    if (what !== FALLOC_FL_PUNCH_HOLE && what !== FALLOC_FL_ZERO_RANGE) {
      reply.done(errno.EOPNOTSUPP);
      return;
    }
    const past = offset + length > this.size;
    if (past && !keepSize) {
      reply.done(errno.ENOSPC);
      return;
    }
    const count = past ? this.size - offset : length;
    if (count <= 0n) {
      reply.done(0);
      return;
    }
    const waiting = this.#cut.waitingFor(offset, count);
    if (waiting !== undefined) {
      waiting.push(() => this.allocate(mode, offset, length, reply));
      return;
    }
    this.#noteChange();
    if (what === FALLOC_FL_ZERO_RANGE) {
      this.#allocation.written(count);
      this.#zero(offset, count, KEEP_ALLOCATED, reply);
    } else if (this.#trims) {
      this.#trim(offset, count, reply);
    } else {
      this.#zero(offset, count, PUNCH, reply);
    }
  }

  #zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    this.#cut.covered(offset, length);
    this.#zeroDisk(offset, length, options, reply);
  }

  #zeroDisk(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    const tracked = this.#tracker.tracked(reply, offset, length);
    this.disk.zero(offset, length, this.#options(options), this.#counted('zero', length, tracked));
  }

  #counted(what: 'trim' | 'zero', length: bigint, reply: Reply): Reply {
    const begun = performance.now();
    return {
      done: (code) => {
        this.#operations[what].answered(code, Number(length), begun);
        reply.done(code);
      },
    };
  }

  /**
   * What is trimmed does not count as covered: whoever has cut the file relies on zeroes there, and gets
   * them when it closes the file.
   */
  #trim(offset: bigint, length: bigint, reply: Reply): void {
    const tracked = this.#tracker.tracked(reply, offset, length);
    const trimmed = this.#counted('trim', length, tracked);
    const tried: Reply = {
      done: (code) => {
        // A server may be able to trim some ranges and not others.
        if (code !== errno.EOPNOTSUPP) trimmed.done(code);
        else {
          const zeroed = this.#counted('zero', length, tracked);
          this.disk.zero(offset, length, this.#options(PUNCH), zeroed);
        }
      },
    };
    this.disk.trim(offset, length, this.#writeThrough ? DURABLE : NOT_DURABLE, tried);
  }

  /**
   * lseek(2) with SEEK_DATA or SEEK_HOLE. While somebody may write all is data: the kernel does not
   * write its dirty pages back before it asks, so that the disk may not know of data yet.
   * @param owner the handle of who asks
   */
  seek(offset: bigint, whence: number, owner: bigint, reply: SeekReply): void {
    const calledData = this.#calledData.get(owner);
    this.#calledData.delete(owner);
    if (offset >= this.size) {
      reply(errno.ENXIO, 0n);
    } else if (!this.disk.info.canExtents || this.#writers > 0) {
      if (whence === SEEK_DATA) this.#calledData.set(owner, offset);
      reply(0, whence === SEEK_DATA ? offset : this.size);
    } else if (whence === SEEK_HOLE && calledData === offset) {
      reply(0, this.size);
    } else {
      this.#holes.find(offset, whence === SEEK_HOLE, reply);
    }
  }
}
