/**
 * The library: what the two commands are made of. A disk is anything with the `Disk` interface;
 * `connectDisk` makes one of an NBD export, and `mountDisk` shows one as a file.
 */

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
export { HEADROOM } from './disk/disk.js';
export { fitDisk } from './disk/fit.js';
export { WindowError, windowDisk, windowOf } from './disk/window.js';
export {
  diskExtents,
  flushDisk,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from './disk/promises.js';
export { ErrnoError } from './errno.js';
export { MountError } from './fuse/errors.js';
export { mountDisk } from './fuse/mount.js';
export type { CacheMode, Mount, MountEnd, MountOptions } from './fuse/mount.js';
export type { FuseOptions } from './fuse/mount-options.js';
export { MountOptionError, parseFuseOptions } from './fuse/mount-options.js';
export type { Mountpoint } from './fuse/mountpoint.js';
export { checkMountpoint } from './fuse/mountpoint.js';
export { HandshakeError } from './nbd/errors.js';
export type { Address, Target, TlsSettings } from './nbd/export.js';
export { NbdDisk, connectDisk } from './nbd/nbd-disk.js';
export type { ConnectOptions } from './nbd/nbd-disk.js';
export { UriError, parseNbdUri } from './nbd/uri.js';
export { PartError } from './partitions/part.js';
export type { Part } from './partitions/part.js';
export { readPartitions } from './partitions/read.js';
export { PartitionTableError } from './partitions/table.js';
export type { Partition, PartitionTable } from './partitions/table.js';
