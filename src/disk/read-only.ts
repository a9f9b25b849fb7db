/** A disk that refuses to be changed. */

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

/** @returns the disk, for which every write, trim and zero is EROFS; closing it closes the disk */
export function readOnlyDisk(disk: Disk): Disk {
  return disk.info.readOnly ? disk : new ReadOnlyDisk(disk);
}

class ReadOnlyDisk implements Disk {
  readonly info: DiskInfo;
  readonly #disk: Disk;

  constructor(disk: Disk) {
    this.#disk = disk;
    this.info = { ...disk.info, readOnly: true };
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    this.#disk.read(offset, length, reply);
  }

  write(
    _offset: bigint,
    _bytes: Buffer,
    _start: number,
    _length: number,
    _options: WriteOptions,
    reply: Reply,
  ): void {
    reply.done(errno.EROFS);
  }

  flush(reply: Reply): void {
    this.#disk.flush(reply);
  }

  trim(_offset: bigint, _length: bigint, _options: WriteOptions, reply: Reply): void {
    reply.done(errno.EROFS);
  }

  zero(_offset: bigint, _length: bigint, _options: ZeroOptions, reply: Reply): void {
    reply.done(errno.EROFS);
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    this.#disk.extents(offset, length, reply);
  }

  close(): Promise<void> {
    return this.#disk.close();
  }
}
