/**
 * A descriptor that we inherited, on which whoever started us waits: a newline says that the disk is mounted, as s6
 * and others have it, and the end of the stream without one that it will not be.
 */

import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { errnoText } from '../errno.js';
import { native } from '../native.js';
import { CommandError } from './errors.js';
import { say } from './messages.js';

const O_ACCMODE = 3;
const O_RDONLY = 0;
const O_PATH = 0o10000000;

export class ReadyFd {
  #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Checks it, and keeps it from the programs that we start. @throws CommandError */
  static take(fd: number): ReadyFd {
    const why = problemOf(fd);
    if (why !== undefined) {
      throw new CommandError(`--ready-fd ${fd}: ${why}; it has to be a descriptor that we inherit`);
    }
    native.setCloseOnExec(fd, true);
    return new ReadyFd(fd);
  }

  /** A reader that has gone, or does not read, is told of and is no reason to end. */
  ready(): void {
    // What is full would be waited for, with nobody to serve the mount meanwhile.
    native.setNonblocking(this.#fd, true);
    const result = native.write(this.#fd, Buffer.from('\n'), 0, 1);
    if (result < 0) say(`--ready-fd ${this.#fd}: ${errnoText(-result)}`);
    this.close();
  }

  /** May be called twice. */
  close(): void {
    if (this.#fd >= 0) native.close(this.#fd);
    this.#fd = -1;
  }
}

function problemOf(fd: number): string | undefined {
  let flags: number;
  let target: string;
  try {
    const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
    flags = Number.parseInt(/^flags:\s*([0-7]+)/m.exec(info)?.[1] ?? '', 8);
    target = readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return 'it is not open';
  }
  // Node has descriptors of its own by now.
  if (target.startsWith('anon_inode:') || isInsideUs(fd, target)) return 'it is not open';
  return (flags & O_ACCMODE) === O_RDONLY || (flags & O_PATH) !== 0
    ? 'it is not open for writing'
    : undefined;
}

/** A pipe whose other end is ours as well, as those by which Node wakes itself. */
function isInsideUs(fd: number, target: string): boolean {
  if (!target.startsWith('pipe:')) return false;
  return readdirSync('/proc/self/fd').some((other) => {
    if (other === String(fd)) return false;
    try {
      if (readlinkSync(`/proc/self/fd/${other}`) !== target) return false;
      const info = readFileSync(`/proc/self/fdinfo/${other}`, 'latin1');
      return /^flags:\s*[0-7]*[04]\s*$/m.test(info);
    } catch {
      // The one by which the list was read.
      return false;
    }
  });
}
