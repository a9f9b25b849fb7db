/** The open files of a mount. */

import type { FileNode } from './tree.js';

interface Handle {
  readonly node: FileNode;
  readonly forWriting: boolean;
  /** The thread that opened it. */
  readonly pid: number;
  /** The disk was written past its end through the page cache, and this one was not told yet. */
  overrun: boolean;
  /** Direct writes past the end that failed, after each of which the kernel sets the size to what it is. */
  failedWrites: number;
}

export class Handles {
  readonly #handles = new Map<bigint, Handle>();
  #next = 1n;

  /** @returns the number by which the kernel names it, `fh` */
  add(node: FileNode, forWriting: boolean, pid: number): bigint {
    const fh = this.#next++;
    this.#handles.set(fh, { node, forWriting, pid, overrun: false, failedWrites: 0 });
    return fh;
  }

  /** @returns what was open; undefined if there is no such handle */
  remove(fh: bigint): Pick<Handle, 'node' | 'forWriting'> | undefined {
    const handle = this.#handles.get(fh);
    this.#handles.delete(fh);
    return handle;
  }

  /** The handle of a file that a thread opened last for writing: O_TRUNC tells no handle, and comes right behind its open. */
  latestOf(node: FileNode, pid: number): bigint | undefined {
    let latest: bigint | undefined;
    for (const [fh, handle] of this.#handles) {
      if (handle.node === node && handle.forWriting && handle.pid === pid) latest = fh;
    }
    return latest;
  }

  /** Whether somebody has a file open. */
  has(node: FileNode): boolean {
    for (const handle of this.#handles.values()) if (handle.node === node) return true;
    return false;
  }

  isForWriting(fh: bigint): boolean {
    return this.#handles.get(fh)?.forWriting ?? false;
  }

  noteFailedWrite(fh: bigint): void {
    const handle = this.#handles.get(fh);
    if (handle !== undefined) handle.failedWrites++;
  }

  takeFailedWrite(fh: bigint): boolean {
    const handle = this.#handles.get(fh);
    if (handle === undefined || handle.failedWrites === 0) return false;
    handle.failedWrites--;
    return true;
  }

  /** Who wrote past the end is not known: each that may have is told once, as the kernel does it for lost writes. */
  markOverrun(node: FileNode): void {
    for (const handle of this.#handles.values()) {
      if (handle.node === node) handle.overrun = handle.forWriting;
    }
  }

  takeOverrun(fh: bigint): boolean {
    const handle = this.#handles.get(fh);
    if (handle?.overrun !== true) return false;
    handle.overrun = false;
    return true;
  }
}
