/**
 * The library: `connect` to an export of an NBD server and use it from a program, `mount` a disk as a file,
 * `serve` a disk over NBD. A disk is anything with the `Disk` interface; `diskOf` makes one of a few functions.
 *
 * Offsets and sizes are taken as numbers, where these are exact, or as bigint, and given as bigint; lengths of
 * what is in memory are numbers. All are in bytes, and times in milliseconds. What has come about has to be
 * closed, by `close()` or by `await using`. The library installs no signal handlers.
 *
 * What a disk that answers through reply objects needs is in `tsnbdfuse/disk`.
 * @module
 */

export { NbdClient } from './api/client.js';
export type {
  BlockStatusOptions,
  ChangeOptions,
  ExtentAt,
  RequestOptions,
  StatusAt,
  ZeroRequestOptions,
} from './api/client.js';
export { connect, listExports } from './api/connect.js';
export type {
  ConnectOptions,
  ExportDetails,
  ExportEntry,
  ListOptions,
  ReachOptions,
} from './api/connect.js';
export { fileDisk, memoryDisk } from './api/disks.js';
export type { FileDiskOptions } from './api/disks.js';
export type { DiskSource, HasDisk } from './api/disk-source.js';
export { mount } from './api/mount.js';
export type { MountOptions } from './api/mount.js';
export { BusyError, MountedDisk } from './api/mounted-disk.js';
export type { UnmountOptions } from './api/mounted-disk.js';
export type { Bytes } from './api/numbers.js';
export { NbdServer, serve } from './api/serve.js';
export type { ListenAddress, ServeOptions } from './api/serve.js';
export { diskOf } from './disk/custom-disk.js';
export type { Awaitable, CustomDisk, CustomExtent } from './disk/custom-disk.js';
export type { BlockLimits, Disk } from './disk/disk.js';
export { WindowError } from './disk/window.js';
export { ErrnoError } from './errno.js';
export { MountError } from './fuse/errors.js';
export { MountOptionError } from './fuse/mount-options.js';
export type { CacheMode } from './fuse/mount.js';
export { HandshakeError } from './nbd/errors.js';
export type { HandshakeErrorOptions, HandshakeFailure } from './nbd/errors.js';
export { UriError } from './nbd/uri.js';
export { PartError } from './partitions/part.js';
export { PartitionTableError } from './partitions/table.js';
export { PluginError } from './server/plugins/index.js';
