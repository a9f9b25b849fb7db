/**
 * With `-o allow_root` the kernel lets everybody through, as it knows `allow_other` only: which requests
 * are the owner's and root's alone. Those that name an open file are not asked again, since whoever
 * has one was let in or was given it; and what the kernel does on its own comes without a user.
 *
 * libfuse refuses more of them (LSEEK, FALLOCATE, all GETATTR), with which a write of who was given a file
 * fails as soon as the kernel asks for the size. The kernel itself, in a mount without `allow_other`, lets
 * through all that is done with an open file, but for the attributes that fstat(2) and the like ask for.
 */

import { Fattr, GETATTR_FH, Opcode } from './constants.js';
import type { FuseRequest } from './request.js';

const ANYBODY: ReadonlySet<number> = new Set([
  Opcode.INIT,
  Opcode.DESTROY,
  Opcode.FORGET,
  Opcode.BATCH_FORGET,
  Opcode.INTERRUPT,
  Opcode.READ,
  Opcode.WRITE,
  Opcode.FLUSH,
  Opcode.FSYNC,
  Opcode.RELEASE,
  Opcode.FALLOCATE,
  Opcode.LSEEK,
  Opcode.IOCTL,
  Opcode.POLL,
  Opcode.COPY_FILE_RANGE,
  Opcode.READDIR,
  Opcode.FSYNCDIR,
  Opcode.RELEASEDIR,
]);

/** @param request with as much of a body as its kind has */
export function mustBeOwner(request: FuseRequest): boolean {
  return !ANYBODY.has(request.opcode) && !namesOpenFile(request);
}

/** The kernel asks for the size before it writes, in lseek(2) with SEEK_END, and sets it in ftruncate(2). */
function namesOpenFile({ opcode, slab, body }: FuseRequest): boolean {
  if (opcode !== Opcode.GETATTR && opcode !== Opcode.SETATTR) return false;
  const flags = slab.view.getUint32(body, true);
  return (flags & (opcode === Opcode.GETATTR ? GETATTR_FH : Fattr.FH)) !== 0;
}
