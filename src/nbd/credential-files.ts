/** Reading the files that certificates and keys are in, without waiting for what never comes. */

import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { TOO_LATE, within } from '../deadline.js';
import { HandshakeError, SetupError } from './errors.js';

/** Far more than all authorities of a machine take. */
const MAX_BYTES = 8 * 1024 * 1024;

/** How long reading may take. */
export interface Patience {
  /** Milliseconds, for each file. */
  readonly deadline: number;
  /** Ends it early. */
  readonly signal: AbortSignal | undefined;
}

export interface CredentialFile {
  readonly path: string;
  readonly content: Buffer;
  /** Not by its owner alone. */
  readonly readableByOthers: boolean;
}

/**
 * @returns undefined where there is no such file
 * @throws SetupError with one line that names it; the signal's reason
 */
export async function readCredentialFile(
  path: string,
  { deadline, signal }: Patience,
): Promise<CredentialFile | undefined> {
  try {
    // A file system may hang, and what is read from it then ends by itself at some time, or never.
    const file = await within(read(path), deadline, signal);
    if (file === TOO_LATE) throw unreadable(path, `no answer within ${deadline / 1000} s`);
    return file;
  } catch (error) {
    if (error instanceof HandshakeError) throw error;
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (code === 'ENOENT') return undefined;
    throw code.startsWith('E') ? unreadable(path, REASONS.get(code) ?? code, error) : error;
  }
}

const REASONS: ReadonlyMap<string, string> = new Map([
  ['EACCES', 'permission denied'],
  ['EISDIR', 'it is a directory'],
  ['ENOTDIR', 'what should be a directory on the way to it is none'],
  // What a socket says.
  ['ENXIO', 'it is not a regular file'],
]);

async function read(path: string): Promise<CredentialFile> {
  // Without O_NONBLOCK, a FIFO waits here for somebody who writes to it.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  try {
    const stat = await file.stat();
    if (stat.isDirectory()) throw unreadable(path, 'it is a directory');
    if (!stat.isFile()) throw unreadable(path, 'it is not a regular file');
    // Not by its size, which files of /proc do not have.
    const content = Buffer.alloc(Math.min(stat.size, MAX_BYTES) + 1024);
    let filled = 0;
    for (;;) {
      const { bytesRead } = await file.read(content, filled, content.length - filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
      if (filled === content.length) throw unreadable(path, 'it is too long, or grows');
    }
    const readableByOthers = (stat.mode & 0o077) !== 0;
    return { path, content: content.subarray(0, filled), readableByOthers };
  } finally {
    await file.close();
  }
}

function unreadable(path: string, why: string, cause?: unknown): SetupError {
  return new SetupError(`cannot read ${path}: ${why}`, { cause });
}

/** As `readCredentialFile`, for a file that has to exist. */
export async function readNeeded(path: string, patience: Patience): Promise<CredentialFile> {
  const file = await readCredentialFile(path, patience);
  if (file === undefined) throw unreadable(path, 'it does not exist');
  return file;
}
