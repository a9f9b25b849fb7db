/** What each request of the kernel leads to: the fields of its body, a call of the file, a reply. */

import { errno } from '../errno.js';
import type { AttributeChange, Attributes } from '../disk/file-attributes.js';
import { SEEK_DATA, SEEK_HOLE } from '../linux.js';
import {
  Fattr,
  GETATTR_FH,
  IN_HEADER_BYTES,
  O_ACCMODE,
  O_DIRECT,
  O_DSYNC,
  O_RDONLY,
  OPEN_KILL_SUIDGID,
  OpenFlag,
  OUT_HEADER_BYTES,
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
  ENTRY_OUT_BYTES,
  STATFS_OUT_BYTES,
  direntsOf,
  getSetattrIn,
  putAttrOut,
  putEntryOut,
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
    // At once: it may be lseek(2) with SEEK_END that asks, which holds the lock that mending the size needs.
    request.fail(errno.ENOSPC);
    return;
  }
  const { tree } = protocol;
  const node = tree.file(request.nodeId);
  if (node === undefined) {
    if (!tree.isDirectoryId(request.nodeId)) request.fail(errno.ESTALE);
    else replyAttributes(protocol, request, tree.attributes(), 0n);
    return;
  }
  const { file } = node;
  // By a handle the kernel asks for itself, for the size: a write waits. stat(2) may take a moment.
  if (byHandle) replyAttributes(protocol, request, file.attributes(), ATTR_VALID_SECONDS);
  else file.whenCounted((all) => replyAttributes(protocol, request, all, ATTR_VALID_SECONDS));
};

export const setattr: Operation = (protocol, request) => {
  const { view } = request.slab;
  const { handles } = protocol;
  const node = protocol.tree.file(request.nodeId);
  if (node === undefined) {
    request.fail(protocol.tree.isDirectoryId(request.nodeId) ? errno.EPERM : errno.ESTALE);
    return;
  }
  const change = getSetattrIn(view, request.body);
  const code = node.file.change(change);
  if (code !== 0) {
    request.fail(code);
    return;
  }
  if (change.size !== undefined) {
    const byHandle = (view.getUint32(request.body, true) & Fattr.FH) !== 0;
    const owner = byHandle
      ? view.getBigUint64(request.body + 8, true)
      : handles.latestOf(node, request.pid);
    if (owner !== undefined && change.size === 0n) node.file.truncated(owner);
    else if (owner !== undefined && byHandle && !isKernels(protocol, owner, change)) {
      node.file.extendedTo(owner, change.size);
    }
  }
  // Nothing was counted for it: the next stat(2) is to ask.
  replyAttributes(protocol, request, node.file.attributes(), 0n);
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
  putAttrOut(protocol.out.view, OUT_HEADER_BYTES, BigInt(request.nodeId), attributes, validSeconds);
  request.reply(ATTR_OUT_BYTES);
}

/** The name ends with a NUL. */
export const lookup: Operation = (protocol, request) => {
  const { bytes } = request.slab;
  const end = bytes.indexOf(0, request.body);
  const whole = end >= 0 && end < request.end ? end : request.end;
  const node = protocol.tree.lookup(bytes.toString('utf8', request.body, whole));
  if (node === undefined) {
    request.fail(errno.ENOENT);
    return;
  }
  const { out } = protocol;
  putEntryOut(out.view, OUT_HEADER_BYTES, BigInt(node.id), node.file.attributes());
  request.reply(ENTRY_OUT_BYTES);
};

export const forget: Operation = (protocol, request) => {
  protocol.tree.forget(request.nodeId, lookupsAt(request, request.body));
  request.noReply();
};

/** A count, and as many pairs of a nodeid and a number of lookups. */
export const batchForget: Operation = (protocol, request) => {
  const { view } = request.slab;
  const count = view.getUint32(request.body, true);
  const first = request.body + 8;
  const last = Math.min(request.end, first + 16 * count);
  for (let at = first; at + 16 <= last; at += 16) {
    protocol.tree.forget(Number(view.getBigUint64(at, true)), lookupsAt(request, at + 8));
  }
  request.noReply();
};

const lookupsAt = (request: FuseRequest, at: number): number =>
  Number(request.slab.view.getBigUint64(at, true));

/** What is in the directory is fixed here, so that whoever reads it in pieces sees each name once. */
export const opendir: Operation = (protocol, request) => {
  const { out } = protocol;
  const fh = protocol.listings.add(protocol.tree.entries());
  out.view.setBigUint64(OUT_HEADER_BYTES, fh, true);
  out.view.setUint32(OUT_HEADER_BYTES + 8, 0, true);
  out.view.setUint32(OUT_HEADER_BYTES + 12, 0, true);
  request.reply(16);
};

export const readdir: Operation = (protocol, request) => {
  const { view } = request.slab;
  const entries = protocol.listings.get(view.getBigUint64(request.body, true));
  const first = Number(view.getBigUint64(request.body + 8, true));
  const room = view.getUint32(request.body + 16, true);
  const bytes = direntsOf(entries, first, room, OUT_HEADER_BYTES);
  request.count = bytes.length - OUT_HEADER_BYTES;
  request.data(bytes, OUT_HEADER_BYTES);
};

export const releasedir: Operation = (protocol, request) => {
  protocol.listings.remove(request.slab.view.getBigUint64(request.body, true));
  request.done(0);
};

/** Nothing can be made, removed or renamed: what is in the directory is the disk's. */
export const notPermitted: Operation = (_protocol, request) => {
  request.fail(errno.EPERM);
};

export const open: Operation = (protocol, request) => {
  const { view } = request.slab;
  const { node } = request;
  const { file } = node;
  const flags = view.getUint32(request.body, true);
  const forWriting = (flags & O_ACCMODE) !== O_RDONLY;
  const code = file.open(forWriting);
  if (code !== 0) {
    request.fail(code);
    return;
  }
  if ((view.getUint32(request.body + 4, true) & OPEN_KILL_SUIDGID) !== 0) file.dropSetId();
  const { out } = protocol;
  const fh = protocol.handles.add(node, forWriting, request.pid);
  out.view.setBigUint64(OUT_HEADER_BYTES, fh, true);
  // An open that does not keep the cache throws away what is in it.
  const dropCache = file.takeCacheStale() ? OpenFlag.KEEP_CACHE : 0;
  out.view.setUint32(OUT_HEADER_BYTES + 8, protocol.options.openFlags & ~dropCache, true);
  out.view.setUint32(OUT_HEADER_BYTES + 12, 0, true);
  request.reply(16);
};

export const read: Operation = (_protocol, request) => {
  const { view } = request.slab;
  const offset = view.getBigUint64(request.body + 8, true);
  const size = view.getUint32(request.body + 16, true);
  const { file } = request.node;
  const count = file.readable(offset, size);
  if (count === 0) {
    request.done(0);
    return;
  }
  request.count = count;
  // Past the page cache means: from the disk as it is now.
  if ((view.getUint32(request.body + 32, true) & O_DIRECT) !== 0) file.readsAnew();
  file.disk.read(offset, count, request);
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
  const { node } = request;
  const { file } = node;
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
  const overrun = count < size && (writeFlags & WriteFlag.CACHE) !== 0;
  // The page cache let somebody write past the end. Who that was is told at their next call. An error
  // here would be told at some time to somebody: a close that gets it sends no FLUSH, and leaves a file
  // whose size is wrong for a moment.
  if (overrun) protocol.overrun(node);
  if (count === 0) {
    if (overrun) {
      request.count = size;
      request.done(0);
    } else {
      protocol.handles.noteFailedWrite(view.getBigUint64(at, true));
      request.fail(errno.ENOSPC);
    }
    return;
  }
  request.count = overrun ? size : count;
  protocol.hold(request);
  file.write(offset, bytes, at + WRITE_IN_BYTES, count, durable, request);
};

/** fsync(2), during which the kernel holds the lock of the file: nothing may be waited for that needs it. */
export const fsync: Operation = (protocol, request) => {
  syncThen(protocol, request, (code) => request.done(code));
};

/** FLUSH is sent by each close: its answer is what "close returned" promises to who could write. */
export const flush: Operation = (protocol, request) => {
  const fh = request.slab.view.getBigUint64(request.body, true);
  const written = protocol.handles.isForWriting(fh);
  if (!written) {
    // Who only read waits for nothing that others wrote: as a process that is killed, while the server hangs.
    request.done(0);
    return;
  }
  const { node } = request;
  syncThen(protocol, request, (code) => {
    const mended = protocol.mended(node);
    if (mended === undefined) request.done(code);
    // Whoever looks at the size next, or unmounts, finds all in order.
    else void mended.then(() => request.done(code));
  });
};

function syncThen(
  protocol: FuseProtocol,
  request: FuseRequest,
  done: (code: number) => void,
): void {
  const fh = request.slab.view.getBigUint64(request.body, true);
  // Who does not write again after a write past the end is told at the close.
  const overrun = protocol.handles.takeOverrun(fh);
  request.node.file.syncHandle(fh, {
    done: (code) => {
      const settled = protocol.synced();
      const result = code === 0 && overrun ? errno.ENOSPC : code;
      if (settled === undefined) done(result);
      else void settled.then(() => done(result));
    },
  });
}

export const release: Operation = (protocol, request) => {
  const fh = request.slab.view.getBigUint64(request.body, true);
  const handle = protocol.handles.remove(fh);
  if (handle === undefined) {
    request.done(0);
    return;
  }
  // A mapping outlives the close and may have been written since. Nobody hears of an error here.
  handle.node.file.releaseHandle(fh, handle.forWriting, {
    done: () => {
      // Nobody waits for the answer, but without it the kernel keeps a place for the request. It has so many,
      // which a page may need that is to be written back before it can be taken out of a cache.
      void protocol.synced();
      request.done(0);
    },
  });
};

export const fallocate: Operation = (_protocol, request) => {
  const { view } = request.slab;
  const offset = view.getBigUint64(request.body + 8, true);
  const length = view.getBigUint64(request.body + 16, true);
  const mode = view.getUint32(request.body + 24, true);
  request.node.file.allocate(mode, offset, length, request);
};

export const lseek: Operation = (protocol, request) => {
  const { view } = request.slab;
  const fh = view.getBigUint64(request.body, true);
  const offset = view.getBigUint64(request.body + 8, true);
  const whence = view.getUint32(request.body + 16, true);
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) {
    request.fail(errno.EINVAL);
    return;
  }
  request.node.file.seek(offset, whence, fh, (code, found) => {
    if (code !== 0) {
      request.fail(code);
      return;
    }
    protocol.out.view.setBigUint64(OUT_HEADER_BYTES, found, true);
    request.reply(8);
  });
};

export const statfs: Operation = (protocol, request) => {
  const { size, blockSize } = protocol.options;
  putStatfsOut(protocol.out.view, OUT_HEADER_BYTES, size, blockSize);
  request.reply(STATFS_OUT_BYTES);
};

export const access: Operation = (protocol, request) => {
  const mask = request.slab.view.getUint32(request.body, true);
  const forWriting = (mask & W_OK) !== 0;
  const node = protocol.tree.file(request.nodeId);
  if (node !== undefined) request.done(node.file.access(forWriting));
  else request.done(forWriting ? errno.EPERM : 0);
};

export const interrupt: Operation = (protocol, request) => {
  const { view } = request.slab;
  protocol.interrupts.signalled(
    view.getUint32(request.body, true) & ~1,
    view.getUint32(request.body + 4, true),
  );
  request.noReply();
};

/** ioctl(2) is forwarded for a regular file too; tools take ENOTTY for "not a block device". */
export const notTty: Operation = (_protocol, request) => {
  request.fail(errno.ENOTTY);
};

export const unsupported: Operation = (_protocol, request) => {
  request.unknown();
};

export const succeed: Operation = (_protocol, request) => {
  request.done(0);
};

export const ignore: Operation = (_protocol, request) => {
  request.noReply();
};
