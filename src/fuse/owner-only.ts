/**
 * With `-o allow_root` the kernel lets everybody through, as it knows `allow_other` only: which requests
 * are the owner's and root's alone. Those that name an open file are not asked again, since whoever
 * has one was let in or was given it; and what the kernel does on its own comes without a user.
 */

import { Opcode } from './constants.js';

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
  Opcode.READDIR,
  Opcode.FSYNCDIR,
  Opcode.RELEASEDIR,
]);

export function mustBeOwner(opcode: number): boolean {
  return !ANYBODY.has(opcode);
}
