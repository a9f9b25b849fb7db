/**
 * Numbers of the FUSE kernel protocol, under the names of linux/fuse.h without their FUSE_. All
 * integers on the wire are in the machine's byte order; all machines we run on are little-endian.
 */

import { constants } from 'node:fs';

/** The version that we speak. The kernel's minor may be another: the smaller one counts. */
export const KERNEL_VERSION = 7;
export const KERNEL_MINOR_VERSION = 38;
/** Below it the reply to INIT has another form (Linux 3.14 and before). */
export const LEAST_MINOR_VERSION = 23;

export const ROOT_ID = 1n;

export const IN_HEADER_BYTES = 40;
export const OUT_HEADER_BYTES = 16;
/** in_header and write_in: what stands before the data of a WRITE. */
export const WRITE_DATA_AT = 80;

/** Requests. */
export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
} as const;

/** Flags of INIT, first word. */
export const InitFlag = {
  ASYNC_READ: 2 ** 0,
  BIG_WRITES: 2 ** 5,
  ASYNC_DIO: 2 ** 15,
  WRITEBACK_CACHE: 2 ** 16,
  MAX_PAGES: 2 ** 22,
  EXPLICIT_INVAL_DATA: 2 ** 25,
  HANDLE_KILLPRIV_V2: 2 ** 28,
  INIT_EXT: 2 ** 30,
} as const;

/** Flags of INIT, second word: bits 32 and up. */
export const InitFlag2 = {
  DIRECT_IO_ALLOW_MMAP: 2 ** 4,
} as const;

export const OpenFlag = {
  DIRECT_IO: 1,
  KEEP_CACHE: 2,
  PARALLEL_DIRECT_WRITES: 64,
} as const;

/** What a SETATTR changes. */
export const Fattr = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const;

export const GETATTR_FH = 1;

export const WriteFlag = {
  /** From the page cache, by writeback, and not by a system call of somebody who waits. */
  CACHE: 1 << 0,
  KILL_SUIDGID: 1 << 2,
} as const;

export const OPEN_KILL_SUIDGID = 1;

/** Messages that we send of our own accord; the code stands in the place of the error. */
export const Notify = {
  INVAL_INODE: 2,
  STORE: 4,
} as const;

/** open(2) flags as Linux has them on x64 and arm64. */
export const O_ACCMODE = 3;
export const O_RDONLY = 0;
/** Set in O_SYNC as well. */
export const O_DSYNC = 0o10000;
/** One of the few that differ between the architectures. */
export const { O_DIRECT } = constants;
/** Kinds of directory entries (readdir(3)). */
export const DT_DIR = 4;
export const DT_REG = 8;
/** access(2). */
export const W_OK = 2;
