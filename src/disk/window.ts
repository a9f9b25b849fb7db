/**
 * A range of a disk as a disk of its own: a partition, or what the user has chosen. No request that is
 * made to it reaches a byte outside of the range.
 */

import { errno } from '../errno.js';
import type {
  Disk,
  DiskInfo,
  Extent,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from './disk.js';

/** A range of a disk. */
export interface Window {
  /** Where it begins, in bytes. */
  readonly offset: bigint;
  /** In bytes. */
  readonly size: bigint;
}

/** There is no such range of the disk. The message is a line for the user. */
export class WindowError extends Error {
  /** Tells the kind of error. */
  override readonly name = 'WindowError';
}

/**
 * The range that was asked for, checked.
 * @param asked in bytes; without an offset from the start, without a size up to the end
 * @throws WindowError where the disk has no such range
 */
export function windowOf(
  info: Pick<DiskInfo, 'size'>,
  asked: { readonly offset?: bigint | undefined; readonly size?: bigint | undefined },
): Window {
  const disk = info.size;
  const { offset = 0n } = asked;
  if (offset < 0n) throw new WindowError(`offset ${offset.toString()} is before the disk`);
  if (asked.size !== undefined && asked.size <= 0n) {
    throw new WindowError(`size ${asked.size.toString()} leaves nothing to show; give 1 or more`);
  }
  if (offset >= disk) {
    throw new WindowError(
      `offset ${offset.toString()} is not on the disk, which has ${disk.toString()} bytes`,
    );
  }
  const left = disk - offset;
  const { size = left } = asked;
  if (size > left && offset === 0n) {
    throw new WindowError(
      `size ${size.toString()} is more than the disk has, which is ${disk.toString()} bytes`,
    );
  }
  if (size > left) {
    throw new WindowError(
      `offset ${offset.toString()} and size ${size.toString()} reach past the end of the disk: there it has ${left.toString()} bytes`,
    );
  }
  return { offset, size };
}

/**
 * Several windows may share a disk, also where they overlap, and the disk itself may be used beside them.
 * It stays its owner's: closing a window does not close it.
 *
 * @param disk one that takes any offset and length, as `fitDisk` makes. All windows of a disk must be of
 *   the same fitted one: two of them may meet within a block, and only one lock keeps what is read,
 *   changed and written back for the one from undoing what was written to the other.
 * @throws RangeError if the disk takes only whole blocks, or the range is not on it (see `windowOf`)
 */
export function windowDisk(disk: Disk, offset: bigint, size: bigint): Disk {
  if (disk.info.limits.minimum !== 1) throw new RangeError('a window needs a fitted disk');
  if (offset < 0n || size < 0n || offset + size > disk.info.size) {
    throw new RangeError('a window must be on the disk');
  }
  return new WindowDisk(disk, offset, size);
}

class WindowDisk implements Disk {
  readonly info: DiskInfo;
  readonly #disk: Disk;
  readonly #offset: bigint;
  readonly #size: bigint;

  constructor(disk: Disk, offset: bigint, size: bigint) {
    this.#disk = disk;
    this.#offset = offset;
    this.#size = size;
    this.info = { ...disk.info, size };
  }

  #has(offset: bigint, length: bigint): boolean {
    return offset >= 0n && length >= 0n && offset + length <= this.#size;
  }

  // What is refused gets the errno that doc/proto.md has for it, "Error values".

  read(offset: bigint, length: number, reply: ReadReply): void {
    if (this.#has(offset, BigInt(length))) this.#disk.read(this.#offset + offset, length, reply);
    else reply.fail(errno.EINVAL);
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    if (this.#has(offset, BigInt(length))) {
      this.#disk.write(this.#offset + offset, bytes, start, length, options, reply);
    } else {
      reply.done(errno.ENOSPC);
    }
  }

  /** Of the whole disk: there is no other. */
  flush(reply: Reply): void {
    this.#disk.flush(reply);
  }

  trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    if (this.#has(offset, length)) this.#disk.trim(this.#offset + offset, length, options, reply);
    else reply.done(errno.EINVAL);
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    if (this.#has(offset, length)) this.#disk.zero(this.#offset + offset, length, options, reply);
    else reply.done(errno.ENOSPC);
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    if (!this.#has(offset, length)) {
      reply.fail(errno.EINVAL);
      return;
    }
    this.#disk.extents(this.#offset + offset, length, {
      extents: (found) => reply.extents(cut(found, this.#size - offset)),
      fail: (code) => reply.fail(code),
    });
  }

  /** The disk is not the window's. Its owner's close waits for what is still to be answered. */
  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** A disk may tell of more than was asked, and its extents then go on where the window has ended. */
function cut(found: readonly Extent[], most: bigint): readonly Extent[] {
  let end = 0n;
  for (const [index, extent] of found.entries()) {
    end += extent.length;
    if (end <= most) continue;
    const kept = found.slice(0, index);
    const left = extent.length - (end - most);
    return left > 0n ? [...kept, { ...extent, length: left }] : kept;
  }
  return found;
}
