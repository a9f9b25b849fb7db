/**
 * `tsnbdfuse/disk`: the interface that a disk has at heart, with reply objects in the place of promises, and what
 * is made of disks: for whoever wants a disk as fast as those of the package, or one over another.
 * @module
 */

export type { Owner } from './buffer-pool.js';
export { DURABLE, HEADROOM, NOT_DURABLE } from './disk/disk.js';
export type {
  BlockLimits,
  Disk,
  DiskInfo,
  Extent,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from './disk/disk.js';
export { fitDisk } from './disk/fit.js';
export {
  diskExtents,
  flushDisk,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from './disk/promises.js';
export { readOnlyDisk } from './disk/read-only.js';
export { WindowError, windowDisk, windowOf } from './disk/window.js';
export type { Window } from './disk/window.js';
export { ErrnoError } from './errno.js';
export { readPartitions } from './partitions/read.js';
export type { ReadOptions, SectorSize } from './partitions/read.js';
export { PartitionTableError } from './partitions/table.js';
export type { DiskRange, Partition, PartitionTable } from './partitions/table.js';
