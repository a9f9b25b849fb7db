/** Structs of linux/fuse.h, written to and read from a place in a buffer. */

import { S_IFDIR } from '../disk/file-attributes.js';
import type { AttributeChange, Attributes } from '../disk/file-attributes.js';
import { DT_DIR, DT_REG, Fattr } from './constants.js';
import type { Entry } from './tree.js';

const NANOSECONDS = 1_000_000_000n;

export const ATTR_OUT_BYTES = 104;
export const ENTRY_OUT_BYTES = 128;
export const SETATTR_IN_BYTES = 88;
export const STATFS_OUT_BYTES = 80;

/**
 * For how long the kernel may keep attributes. All but the blocks change only through it; with the page
 * cache written back it asks for those only when a file is closed.
 */
export const ATTR_VALID_SECONDS = 1n;

/** Seconds rounded down, so that the nanoseconds are never negative. */
function seconds(time: bigint): bigint {
  const whole = time / NANOSECONDS;
  return time % NANOSECONDS < 0n ? whole - 1n : whole;
}

function putTime(view: DataView, secondsAt: number, nanosecondsAt: number, time: bigint): void {
  const whole = seconds(time);
  view.setBigInt64(secondsAt, whole, true);
  view.setUint32(nanosecondsAt, Number(time - whole * NANOSECONDS), true);
}

/** struct fuse_attr_out. */
export function putAttrOut(
  view: DataView,
  at: number,
  inode: bigint,
  file: Attributes,
  validSeconds: bigint,
): void {
  view.setBigUint64(at, validSeconds, true);
  view.setBigUint64(at + 8, 0n, true);
  putAttr(view, at + 16, inode, file);
}

/**
 * struct fuse_entry_out. The kernel asks for the name again each time that it is used, as the files of a
 * directory come and go with the partition table, and for the attributes, as nothing was counted for these.
 */
export function putEntryOut(view: DataView, at: number, inode: bigint, file: Attributes): void {
  view.setBigUint64(at, inode, true); // nodeid
  view.setBigUint64(at + 8, 0n, true); // generation
  view.setBigUint64(at + 16, 0n, true); // entry_valid
  view.setBigUint64(at + 24, 0n, true); // attr_valid
  view.setBigUint64(at + 32, 0n, true); // both in nanoseconds
  putAttr(view, at + 40, inode, file);
}

/** struct fuse_attr. */
function putAttr(view: DataView, attr: number, inode: bigint, file: Attributes): void {
  view.setBigUint64(attr, inode, true);
  view.setBigUint64(attr + 8, file.size, true);
  view.setBigUint64(attr + 16, file.blocks, true);
  putTime(view, attr + 24, attr + 48, file.atime);
  putTime(view, attr + 32, attr + 52, file.mtime);
  putTime(view, attr + 40, attr + 56, file.ctime);
  view.setUint32(attr + 60, file.mode, true);
  view.setUint32(attr + 64, (file.mode & S_IFDIR) !== 0 ? 2 : 1, true); // nlink
  view.setUint32(attr + 68, file.uid, true);
  view.setUint32(attr + 72, file.gid, true);
  view.setUint32(attr + 76, 0, true); // rdev
  view.setUint32(attr + 80, file.blockSize, true);
  view.setUint32(attr + 84, 0, true); // flags
}

/** struct fuse_setattr_in. */
export function getSetattrIn(view: DataView, at: number): AttributeChange {
  const valid = view.getUint32(at, true);
  const has = (flag: number): boolean => (valid & flag) !== 0;
  const time = (secondsAt: number, nanosecondsAt: number): bigint =>
    view.getBigInt64(at + secondsAt, true) * NANOSECONDS +
    BigInt(view.getUint32(at + nanosecondsAt, true));
  return {
    size: has(Fattr.SIZE) ? view.getBigUint64(at + 16, true) : undefined,
    atime: has(Fattr.ATIME_NOW) ? 'now' : has(Fattr.ATIME) ? time(32, 56) : undefined,
    mtime: has(Fattr.MTIME_NOW) ? 'now' : has(Fattr.MTIME) ? time(40, 60) : undefined,
    ctime: has(Fattr.CTIME) ? time(48, 64) : undefined,
    mode: has(Fattr.MODE) ? view.getUint32(at + 68, true) : undefined,
    uid: has(Fattr.UID) ? view.getUint32(at + 76, true) : undefined,
    gid: has(Fattr.GID) ? view.getUint32(at + 80, true) : undefined,
    dropSetId: has(Fattr.KILL_SUIDGID),
  };
}

/** struct fuse_statfs_out of a file system that is one full file. */
export function putStatfsOut(view: DataView, at: number, size: bigint, blockSize: number): void {
  const blocks = (size + BigInt(blockSize) - 1n) / BigInt(blockSize);
  for (let i = 0; i < STATFS_OUT_BYTES; i += 4) view.setUint32(at + i, 0, true);
  view.setBigUint64(at, blocks, true);
  view.setBigUint64(at + 24, 1n, true); // files
  view.setUint32(at + 40, blockSize, true);
  view.setUint32(at + 44, 255, true); // namelen
  view.setUint32(at + 48, blockSize, true); // frsize
}

const DIRENT_BYTES = 24;

/**
 * As many entries of a directory, from the index `first` on, as there is room for, each a struct
 * fuse_dirent.
 * @param headroom bytes that stay free at the start of the buffer
 */
export function direntsOf(
  entries: readonly Entry[],
  first: number,
  room: number,
  headroom: number,
): Buffer {
  const parts = [Buffer.alloc(headroom)];
  let used = 0;
  for (const [i, { id, name, isDirectory }] of entries.entries()) {
    if (i < first) continue;
    const bytes = Buffer.from(name, 'utf8');
    // Each begins at a multiple of 8.
    const dirent = Buffer.alloc((DIRENT_BYTES + bytes.length + 7) & ~7);
    if (used + dirent.length > room) break;
    dirent.writeBigUInt64LE(BigInt(id), 0);
    dirent.writeBigUInt64LE(BigInt(i + 1), 8); // off: where the next one is
    dirent.writeUInt32LE(bytes.length, 16);
    dirent.writeUInt32LE(isDirectory ? DT_DIR : DT_REG, 20);
    bytes.copy(dirent, DIRENT_BYTES);
    parts.push(dirent);
    used += dirent.length;
  }
  return Buffer.concat(parts);
}
