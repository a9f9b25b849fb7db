/** The one table of requests: what each is about, how long its body is, who does it. */

import { Opcode } from './constants.js';
import * as operations from './operations.js';
import type { Operation } from './operations.js';
import { SETATTR_IN_BYTES } from './structs.js';

/** What a request may be about; another one gets the error that says so. */
export type About = 'file' | 'directory' | 'any';

export interface OpcodeRow {
  readonly about: About;
  /** The least bytes of its body; names that may follow are not counted. */
  readonly bodyBytes: number;
  readonly run: Operation;
}

const row = (about: About, bodyBytes: number, run: Operation): OpcodeRow => ({
  about,
  bodyBytes,
  run,
});

/** All other requests are about locks and attributes that the files of a disk do not have; they get ENOSYS. */
const ROWS: readonly (readonly [number, OpcodeRow])[] = [
  [Opcode.INIT, row('any', 16, operations.init)],
  [Opcode.GETATTR, row('any', 16, operations.getattr)],
  [Opcode.SETATTR, row('any', SETATTR_IN_BYTES, operations.setattr)],
  [Opcode.OPEN, row('file', 8, operations.open)],
  [Opcode.READ, row('file', 40, operations.read)],
  [Opcode.WRITE, row('file', 40, operations.write)],
  [Opcode.FLUSH, row('file', 24, operations.flush)],
  [Opcode.FSYNC, row('file', 16, operations.fsync)],
  [Opcode.RELEASE, row('any', 24, operations.release)],
  [Opcode.FALLOCATE, row('file', 32, operations.fallocate)],
  [Opcode.LSEEK, row('file', 24, operations.lseek)],
  [Opcode.IOCTL, row('any', 32, operations.notTty)],
  [Opcode.STATFS, row('any', 0, operations.statfs)],
  [Opcode.ACCESS, row('any', 8, operations.access)],
  [Opcode.LOOKUP, row('directory', 1, operations.lookup)],
  [Opcode.OPENDIR, row('directory', 8, operations.opendir)],
  [Opcode.READDIR, row('directory', 40, operations.readdir)],
  [Opcode.RELEASEDIR, row('any', 24, operations.releasedir)],
  [Opcode.FSYNCDIR, row('any', 16, operations.succeed)],
  [Opcode.MKNOD, row('any', 0, operations.notPermitted)],
  [Opcode.MKDIR, row('any', 0, operations.notPermitted)],
  [Opcode.CREATE, row('any', 0, operations.notPermitted)],
  [Opcode.TMPFILE, row('any', 0, operations.notPermitted)],
  [Opcode.SYMLINK, row('any', 0, operations.notPermitted)],
  [Opcode.LINK, row('any', 0, operations.notPermitted)],
  [Opcode.UNLINK, row('any', 0, operations.notPermitted)],
  [Opcode.RMDIR, row('any', 0, operations.notPermitted)],
  [Opcode.RENAME, row('any', 0, operations.notPermitted)],
  [Opcode.RENAME2, row('any', 0, operations.notPermitted)],
  [Opcode.INTERRUPT, row('any', 8, operations.interrupt)],
  [Opcode.FORGET, row('any', 8, operations.forget)],
  [Opcode.BATCH_FORGET, row('any', 8, operations.batchForget)],
  [Opcode.DESTROY, row('any', 0, operations.succeed)],
];

const UNSUPPORTED = row('any', 0, operations.unsupported);

const TABLE: readonly OpcodeRow[] = Array.from(
  { length: 1 + Math.max(...ROWS.map(([opcode]) => opcode)) },
  (_, opcode) => ROWS.find(([one]) => one === opcode)?.[1] ?? UNSUPPORTED,
);

export function opcodeRow(opcode: number): OpcodeRow {
  return TABLE[opcode] ?? UNSUPPORTED;
}
