/** What each request of the kernel leads to: the fields of its body, a call of the file, a reply. */

import { errno } from '../errno.js';
import type { Reply } from '../disk/disk.js';
import type { AttributeChange, Attributes } from '../disk/disk-file.js';
import { SEEK_DATA, SEEK_HOLE } from '../linux.js';
import {
  Fattr,
  GETATTR_FH,
  IN_HEADER_BYTES,
  O_ACCMODE,
  O_DSYNC,
  O_RDONLY,
  OPEN_KILL_SUIDGID,
  OpenFlag,
  OUT_HEADER_BYTES,
  ROOT_ID,
  WRITE_DATA_AT,
  W_OK,
  WriteFlag,
} from './constants.js';
import { INIT_OUT_BYTES, getInitIn, putInitOut } from './init.js';
import type { FuseProtocol } from './protocol.js';
import type { FuseRequest } from './request.js';
import {
  ATTR_OUT_BYTES,
  ATTR_VALID_SECONDS,
  STATFS_OUT_BYTES,
  getSetattrIn,
  putAttrOut,
  putStatfsOut,
} from './structs.js';

/** Takes a request whose body has at least the bytes that its row of the opcode table tells. */
export type Operation = (protocol: FuseProtocol, request: FuseRequest) => void;

export const init: Operation = (protocol, request) => {
  const kernel = getInitIn(request.slab.view, request.body, request.bodyBytes);
  const agreed = putInitOut(protocol.out.view, OUT_HEADER_BYTES, kernel, protocol.options);
  request.reply(INIT_OUT_BYTES);
  protocol.started(agreed);
};

export const getattr: Operation = (protocol, request) => {
  const { view } = request.slab;
  const byHandle = (view.getUint32(request.body, true) & GETATTR_FH) !== 0;
  if (byHandle && protocol.handles.takeOverrun(view.getBigUint64(request.body + 8, true))) {
    // Not before the size is right again: whoever asks next for it, or unmounts, finds all in order.
    void protocol.mended.then(() => request.fail(errno.ENOSPC));
    return;
  }
  const { file } = protocol;
  // By a handle the kernel asks for itself, for the size: a write waits. stat(2) may take a moment.
  if (byHandle) replyAttributes(protocol, request, file.attributes(), ATTR_VALID_SECONDS);
  else file.whenCounted((all) => replyAttributes(protocol, request, all, ATTR_VALID_SECONDS));
};

export const setattr: Operation = (protocol, request) => {
  const { view } = request.slab;
  const { file, handles } = protocol;
  const change = getSetattrIn(view, request.body);
  const code = file.change(change);
  if (code !== 0) {
    request.fail(code);
    return;
  }
  if (change.size !== undefined) {
    const byHandle = (view.getUint32(request.body, true) & Fattr.FH) !== 0;
    const owner = byHandle
      ? view.getBigUint64(request.body + 8, true)
      : handles.latestOf(request.pid);
    if (owner !== undefined && change.size === 0n) file.truncated(owner);
    else if (owner !== undefined && byHandle && !isKernels(protocol, owner, change)) {
      file.extendedTo(owner, change.size);
    }
  }
  // Nothing was counted for it: the next stat(2) is to ask.
  replyAttributes(protocol, request, file.attributes(), 0n);
};

/**
 * Whether it is not ftruncate(2) that sets the size, but the kernel after a direct write past the end
 * has failed. ftruncate sets the time as well, but does not tell it without writeback.
 */
function isKernels(protocol: FuseProtocol, fh: bigint, change: AttributeChange): boolean {
  return change.mtime === undefined && protocol.handles.takeFailedWrite(fh);
}

function replyAttributes(
  protocol: FuseProtocol,
  request: FuseRequest,
  attributes: Attributes,
  validSeconds: bigint,
): void {
  putAttrOut(protocol.out.view, OUT_HEADER_BYTES, ROOT_ID, attributes, validSeconds);
  request.reply(ATTR_OUT_BYTES);
}

export const open: Operation = (protocol, request) => {
  const { view } = request.slab;
  const flags = view.getUint32(request.body, true);
  const forWriting = (flags & O_ACCMODE) !== O_RDONLY;
  const code = protocol.file.open(forWriting);
  if (code !== 0) {
    request.fail(code);
    return;
  }
  if ((view.getUint32(request.body + 4, true) & OPEN_KILL_SUIDGID) !== 0) protocol.file.dropSetId();
  const { out } = protocol;
  out.view.setBigUint64(OUT_HEADER_BYTES, protocol.handles.add(forWriting, request.pid), true);
  // An open that does not keep the cache throws away what is in it.
  const dropCache = protocol.file.takeCacheStale() ? OpenFlag.KEEP_CACHE : 0;
  out.view.setUint32(OUT_HEADER_BYTES + 8, protocol.options.openFlags & ~dropCache, true);
  out.view.setUint32(OUT_HEADER_BYTES + 12, 0, true);
  request.reply(16);
};

export const read: Operation = (protocol, request) => {
  const { view } = request.slab;
  const offset = view.getBigUint64(request.body + 8, true);
  const size = view.getUint32(request.body + 16, true);
  const count = protocol.file.readable(offset, size);
  if (count === 0) {
    request.done(0);
    return;
  }
  request.count = count;
  protocol.file.disk.read(offset, count, request);
};

/** The data stand behind write_in. */
const WRITE_IN_BYTES = WRITE_DATA_AT - IN_HEADER_BYTES;

export const write: Operation = (protocol, request) => {
  const { bytes, view } = request.slab;
  const at = request.body;
  const offset = view.getBigUint64(at + 8, true);
  const size = view.getUint32(at + 16, true);
  const writeFlags = view.getUint32(at + 20, true);
  const durable = (view.getUint32(at + 32, true) & O_DSYNC) !== 0;
  const { file } = protocol;
  if (size > request.bodyBytes - WRITE_IN_BYTES) {
    request.fail(errno.EIO);
    return;
  }
  if (file.readOnly) {
    request.fail(errno.EROFS);
    return;
  }
  if ((writeFlags & WriteFlag.KILL_SUIDGID) !== 0) file.dropSetId();
  const count = file.writable(offset, size);
  let reply: Reply = request;
  if (count < size && (writeFlags & WriteFlag.CACHE) !== 0) {
    // The page cache let somebody write past the end. What is inside is written, the rest is an error.
    protocol.overrun();
    reply = { done: (code) => request.fail(code === 0 ? errno.ENOSPC : code) };
  }
  if (count === 0) {
    if (reply === request) protocol.handles.noteFailedWrite(view.getBigUint64(at, true));
    request.fail(errno.ENOSPC);
    return;
  }
  request.count = count;
  protocol.hold(request);
  file.write(offset, bytes, at + WRITE_IN_BYTES, count, durable, reply);
};

/** FSYNC, and FLUSH, which each close sends: its answer is what "close returned" promises. */
export const sync: Operation = (protocol, request) => {
  const fh = request.slab.view.getBigUint64(request.body, true);
  // Who does not write again after a write past the end is told at the close.
  const overrun = protocol.handles.takeOverrun(fh);
  protocol.file.syncHandle(fh, {
    done: (code) => request.done(code === 0 && overrun ? errno.ENOSPC : code),
  });
};

export const release: Operation = (protocol, request) => {
  const fh = request.slab.view.getBigUint64(request.body, true);
  const forWriting = protocol.handles.remove(fh) ?? false;
  // A mapping outlives the close and may have been written since. Nobody hears of an error here.
  protocol.file.releaseHandle(fh, forWriting, { done: () => request.done(0) });
};

export const fallocate: Operation = (protocol, request) => {
  const { view } = request.slab;
  const offset = view.getBigUint64(request.body + 8, true);
  const length = view.getBigUint64(request.body + 16, true);
  const mode = view.getUint32(request.body + 24, true);
  protocol.file.allocate(mode, offset, length, request);
};

export const lseek: Operation = (protocol, request) => {
  const { view } = request.slab;
  const offset = view.getBigUint64(request.body + 8, true);
  const whence = view.getUint32(request.body + 16, true);
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) {
    request.fail(errno.EINVAL);
    return;
  }
  protocol.file.seek(offset, whence, (code, found) => {
    if (code !== 0) {
      request.fail(code);
      return;
    }
    protocol.out.view.setBigUint64(OUT_HEADER_BYTES, found, true);
    request.reply(8);
  });
};

export const statfs: Operation = (protocol, request) => {
  const { file } = protocol;
  putStatfsOut(protocol.out.view, OUT_HEADER_BYTES, file.size, file.blockSize);
  request.reply(STATFS_OUT_BYTES);
};

export const access: Operation = (protocol, request) => {
  const mask = request.slab.view.getUint32(request.body, true);
  request.done(protocol.file.access((mask & W_OK) !== 0));
};

export const interrupt: Operation = (protocol, request) => {
  const { view } = request.slab;
  protocol.interrupt(
    view.getUint32(request.body, true) & ~1,
    view.getUint32(request.body + 4, true),
  );
  request.noReply();
};

/** ioctl(2) is forwarded for a regular file too; tools take ENOTTY for "not a block device". */
export const notTty: Operation = (_protocol, request) => {
  request.fail(errno.ENOTTY);
};

/** The kernel remembers it for the life of the mount, and asks no more. */
export const unsupported: Operation = (_protocol, request) => {
  request.fail(errno.ENOSYS);
};

export const succeed: Operation = (_protocol, request) => {
  request.done(0);
};

export const ignore: Operation = (_protocol, request) => {
  request.noReply();
};
