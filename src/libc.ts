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
/** Bytes read at first, in which there mostly is all of it. */
const BEGINNING = 4096;

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
    const beginning = read(fd, 0, BEGINNING);
    /** What there is of a range of the file. */
    const part = (start: number, length: number): DataView =>
      start + length <= beginning.byteLength
        ? new DataView(beginning.buffer, start, length)
        : read(fd, start, length);

    const header = part(0, HEADER_SIZE);
    if (header.byteLength < HEADER_SIZE || header.getUint32(0) !== MAGIC) return '';
    if (header.getUint16(4) !== CLASS_64_LITTLE_ENDIAN) return '';
    const entries = part(place(header, 32), ENTRY_SIZE * header.getUint16(56, true));
    for (let at = 0; at + ENTRY_SIZE <= entries.byteLength; at += ENTRY_SIZE) {
      if (entries.getUint32(at, true) !== PT_INTERP) continue;
      return text(part(place(entries, at + 8), Math.min(place(entries, at + 32), MAX_LOADER)));
    }
    return '';
  } catch {
    // It cannot be read, or says that something lies where no file has anything.
    return '';
  } finally {
    closeSync(fd);
  }
}

function hasCode(error: unknown): error is Error & { code: unknown } {
  return error instanceof Error && 'code' in error;
}

// A DataView needs nothing compiled at the start of a command, as the methods of a Buffer do.
function read(fd: number, start: number, length: number): DataView<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  return new DataView(bytes.buffer, 0, readSync(fd, bytes, 0, length, start));
}

/** A size or an offset of 64 bits, which in a file that exists is no larger than a number is exact. */
function place(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

function text({ buffer, byteOffset, byteLength }: DataView): string {
  return String.fromCharCode(...new Uint8Array(buffer, byteOffset, byteLength));
}
