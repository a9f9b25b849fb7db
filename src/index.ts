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
export { HandshakeError } from './nbd/errors.js';
export type { Address, Target } from './nbd/export.js';
export { NbdDisk, connectDisk } from './nbd/nbd-disk.js';
export type { ConnectOptions } from './nbd/nbd-disk.js';
export { UriError, parseNbdUri } from './nbd/uri.js';
