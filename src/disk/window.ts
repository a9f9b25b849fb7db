/** A range of a disk, as a disk. */

import { errno } from '../errno.js';
import type {
  Disk,
  DiskInfo,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from './disk.js';

/**
 * @param disk several windows may share it: to close it is its owner's business, not theirs
 * @param offset in bytes, a multiple of the disk's minimum block size; `fitDisk` makes a disk that has none
 * @param size in bytes, over 0
 * @returns a disk whose requests never reach outside the range; what would gets EINVAL
 * @throws RangeError for a range that is not on the disk, or not aligned
 */
export function windowDisk(disk: Disk, offset: bigint, size: bigint): Disk {
  if (offset < 0n || size <= 0n || offset + size > disk.info.size) {
    throw new RangeError(`${size.toString()} bytes at ${offset.toString()} are not on the disk`);
  }
  if (offset % BigInt(disk.info.limits.minimum) !== 0n) {
    throw new RangeError(`${offset.toString()} is no multiple of the minimum block size`);
  }
  return new WindowDisk(disk, offset, size);
}

class WindowDisk implements Disk {
  readonly info: DiskInfo;
  readonly #disk: Disk;
  readonly #start: bigint;
  readonly #size: bigint;

  constructor(disk: Disk, offset: bigint, size: bigint) {
    this.#disk = disk;
    this.#start = offset;
    this.#size = size;
    this.info = { ...disk.info, size };
  }

  #reachesOut(offset: bigint, length: bigint): boolean {
    return offset < 0n || length < 0n || offset + length > this.#size;
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    if (this.#reachesOut(offset, BigInt(length))) reply.fail(errno.EINVAL);
    else this.#disk.read(this.#start + offset, length, reply);
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    if (this.#reachesOut(offset, BigInt(length))) reply.done(errno.EINVAL);
    else this.#disk.write(this.#start + offset, bytes, start, length, options, reply);
  }

  flush(reply: Reply): void {
    this.#disk.flush(reply);
  }

  trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    if (this.#reachesOut(offset, length)) reply.done(errno.EINVAL);
    else this.#disk.trim(this.#start + offset, length, options, reply);
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    if (this.#reachesOut(offset, length)) reply.done(errno.EINVAL);
    else this.#disk.zero(this.#start + offset, length, options, reply);
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    if (this.#reachesOut(offset, length)) reply.fail(errno.EINVAL);
    else this.#disk.extents(this.#start + offset, length, reply);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
