/**
 * A program: does things to a file and prints the errno of each in a line, 0 for success. The test
 * starts it as a child, since a process that touches a mount that it serves would hang.
 *
 *     node e2e-errno.js FILE OPERATION...
 */

import { closeSync, constants, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  SEEK_DATA,
} from '../../src/linux.js';
import { native } from '../../src/native.js';

const { O_RDONLY, O_RDWR, O_DIRECT, O_DSYNC } = constants;
const LENGTH = 8192;
const [file = '', ...operations] = process.argv.slice(2);

/** The errno of a system call, or 0. */
function tried(call: () => unknown): number {
  try {
    call();
    return 0;
  } catch (error) {
    if (error instanceof Error && 'errno' in error) return -Number(error.errno);
    throw error;
  }
}

const read = (flags: number): number => {
  const fd = openSync(file, O_RDONLY | flags);
  const code = tried(() => readSync(fd, Buffer.alloc(LENGTH), 0, LENGTH, 0));
  // It tells of what others wrote.
  tried(() => closeSync(fd));
  return code;
};

/** The first error of a write, of what comes after it, and of the close. */
const write = (flags: number, then: (fd: number) => void = () => undefined): number => {
  const fd = openSync(file, O_RDWR | flags);
  const codes = [
    tried(() => writeSync(fd, Buffer.alloc(LENGTH, 'x'), 0, LENGTH, 0)),
    tried(() => then(fd)),
    tried(() => closeSync(fd)),
  ];
  return codes.find((code) => code !== 0) ?? 0;
};

const allocate = async (mode: number): Promise<number> => {
  const fd = openSync(file, O_RDWR);
  const result = await native.fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, 0n, BigInt(LENGTH));
  tried(() => closeSync(fd));
  return -result;
};

const seekData = async (): Promise<number> => {
  const fd = openSync(file, O_RDONLY);
  const found = await native.lseek(fd, 0n, SEEK_DATA);
  closeSync(fd);
  return found < 0n ? Number(-found) : 0;
};

const OPERATIONS: Readonly<Record<string, () => number | Promise<number>>> = {
  read: () => read(0),
  'direct read': () => read(O_DIRECT),
  'direct write': () => write(O_DIRECT),
  'durable write': () => write(O_DIRECT | O_DSYNC),
  'write and fsync': () => write(0, fsyncSync),
  'direct write and fsync': () => write(O_DIRECT, fsyncSync),
  punch: () => allocate(FALLOC_FL_PUNCH_HOLE),
  zero: () => allocate(FALLOC_FL_ZERO_RANGE),
  'seek data': seekData,
};

for (const operation of operations) {
  const run = OPERATIONS[operation];
  if (run === undefined) throw new Error(`no operation ${operation}`);
  console.log(await run());
}
