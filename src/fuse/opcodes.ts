/** The one table of requests: what its name is, how long its body is, who does it. */

import { Opcode } from './constants.js';
import * as operations from './operations.js';
import type { Operation } from './operations.js';
import { SETATTR_IN_BYTES } from './structs.js';

export interface OpcodeRow {
  /** The least bytes of its body; names that may follow are not counted. */
  readonly bodyBytes: number;
  readonly run: Operation;
}

/**
 * All other requests are about directories, names, locks and attributes that the file of a disk does
 * not have; they get ENOSYS.
 */
const ROWS: readonly (readonly [number, OpcodeRow])[] = [
  [Opcode.INIT, { bodyBytes: 16, run: operations.init }],
  [Opcode.GETATTR, { bodyBytes: 16, run: operations.getattr }],
  [Opcode.SETATTR, { bodyBytes: SETATTR_IN_BYTES, run: operations.setattr }],
  [Opcode.OPEN, { bodyBytes: 8, run: operations.open }],
  [Opcode.READ, { bodyBytes: 40, run: operations.read }],
  [Opcode.WRITE, { bodyBytes: 40, run: operations.write }],
  [Opcode.FLUSH, { bodyBytes: 24, run: operations.sync }],
  [Opcode.FSYNC, { bodyBytes: 16, run: operations.sync }],
  [Opcode.RELEASE, { bodyBytes: 24, run: operations.release }],
  [Opcode.FALLOCATE, { bodyBytes: 32, run: operations.fallocate }],
  [Opcode.LSEEK, { bodyBytes: 24, run: operations.lseek }],
  [Opcode.STATFS, { bodyBytes: 0, run: operations.statfs }],
  [Opcode.ACCESS, { bodyBytes: 8, run: operations.access }],
  [Opcode.IOCTL, { bodyBytes: 32, run: operations.notTty }],
  [Opcode.INTERRUPT, { bodyBytes: 8, run: operations.interrupt }],
  [Opcode.FORGET, { bodyBytes: 8, run: operations.ignore }],
  [Opcode.BATCH_FORGET, { bodyBytes: 8, run: operations.ignore }],
  [Opcode.DESTROY, { bodyBytes: 0, run: operations.succeed }],
];

const UNSUPPORTED: OpcodeRow = { bodyBytes: 0, run: operations.unsupported };

const TABLE: readonly OpcodeRow[] = Array.from(
  { length: 1 + Math.max(...ROWS.map(([opcode]) => opcode)) },
  (_, opcode) => ROWS.find(([one]) => one === opcode)?.[1] ?? UNSUPPORTED,
);

export function opcodeRow(opcode: number): OpcodeRow {
  return TABLE[opcode] ?? UNSUPPORTED;
}
