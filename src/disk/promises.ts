/** Requests to a disk as promises: for start-up, tests and scripts, not for the data path. */

import { ErrnoError } from '../errno.js';
import { HEADROOM, NOT_DURABLE } from './disk.js';
import type { Disk, Extent, WriteOptions, ZeroOptions } from './disk.js';

function settle(
  what: string,
  start: (reply: { done(errno: number): void }) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    start({
      done(errno) {
        if (errno === 0) resolve();
        else reject(new ErrnoError(errno, what));
      },
    });
  });
}

/** Reads `length` bytes at `offset`. @throws ErrnoError */
export function readDisk(disk: Disk, offset: bigint, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    disk.read(offset, length, {
      data: (bytes, start, owner) => {
        resolve(Buffer.from(bytes.subarray(start, start + length)));
        owner?.release();
      },
      fail: (errno) => reject(new ErrnoError(errno, 'read')),
    });
  });
}

/** Writes a copy of `data` at `offset`. @throws ErrnoError */
export function writeDisk(
  disk: Disk,
  offset: bigint,
  data: Uint8Array,
  options: WriteOptions = NOT_DURABLE,
): Promise<void> {
  const bytes = Buffer.allocUnsafe(HEADROOM + data.length);
  bytes.set(data, HEADROOM);
  return settle('write', (reply) =>
    disk.write(offset, bytes, HEADROOM, data.length, options, reply),
  );
}

/** @throws ErrnoError */
export function flushDisk(disk: Disk): Promise<void> {
  return settle('flush', (reply) => disk.flush(reply));
}

/** @throws ErrnoError */
export function trimDisk(
  disk: Disk,
  offset: bigint,
  length: bigint,
  options: WriteOptions = NOT_DURABLE,
): Promise<void> {
  return settle('trim', (reply) => disk.trim(offset, length, options, reply));
}

/** @throws ErrnoError */
export function zeroDisk(
  disk: Disk,
  offset: bigint,
  length: bigint,
  options: ZeroOptions = { fua: false, noHole: false },
): Promise<void> {
  return settle('zero', (reply) => disk.zero(offset, length, options, reply));
}

/** @throws ErrnoError */
export function diskExtents(
  disk: Disk,
  offset: bigint,
  length: bigint,
): Promise<readonly Extent[]> {
  return new Promise((resolve, reject) => {
    disk.extents(offset, length, {
      extents: resolve,
      fail: (errno) => reject(new ErrnoError(errno, 'extents')),
    });
  });
}
