/**
 * Which C library a program is linked with, told by the dynamic loader that it names (PT_INTERP of ELF), as
 * a program for one cannot load what was built for another.
 */

import { closeSync, openSync, readSync } from 'node:fs';

export type Libc = 'glibc' | 'musl';

const MAGIC = 0x7f454c46;
const CLASS_64_LITTLE_ENDIAN = 0x0201;
const HEADER_SIZE = 64;
const ENTRY_SIZE = 56;
const PT_INTERP = 3;
/** Bytes; a path is no longer. */
const MAX_LOADER = 4096;

/** @returns glibc where the program does not tell, which most are linked with */
export function libcOf(program: string): Libc {
  return loaderOf(program).includes('/ld-musl-') ? 'musl' : 'glibc';
}

/** The dynamic loader of a 64-bit ELF file, or an empty string. */
function loaderOf(program: string): string {
  let fd: number;
  try {
    fd = openSync(program, 'r');
  } catch (error) {
    // A want of descriptors must not look like an answer.
    if (hasCode(error) && (error.code === 'EMFILE' || error.code === 'ENFILE')) throw error;
    return '';
  }
  try {
    const header = part(fd, 0, HEADER_SIZE);
    if (header.length < HEADER_SIZE || header.readUInt32BE(0) !== MAGIC) return '';
    if (header.readUInt16BE(4) !== CLASS_64_LITTLE_ENDIAN) return '';
    const entries = part(fd, place(header, 32), ENTRY_SIZE * header.readUInt16LE(56));
    for (let at = 0; at + ENTRY_SIZE <= entries.length; at += ENTRY_SIZE) {
      if (entries.readUInt32LE(at) !== PT_INTERP) continue;
      const length = Math.min(place(entries, at + 32), MAX_LOADER);
      return part(fd, place(entries, at + 8), length).toString('latin1');
    }
    return '';
  } catch {
    // It cannot be read, as what the kernel has of it is not a regular file.
    return '';
  } finally {
    closeSync(fd);
  }
}

function hasCode(error: unknown): error is Error & { code: unknown } {
  return error instanceof Error && 'code' in error;
}

/** What there is of a range of the file. */
function part(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
}

/** A size or an offset of 64 bits, which in a file that exists is no larger than a number is exact. */
function place(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64LE(at));
}
