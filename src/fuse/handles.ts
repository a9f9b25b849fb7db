/** The open files of a mount. */

interface Handle {
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
  add(forWriting: boolean, pid: number): bigint {
    const fh = this.#next++;
    this.#handles.set(fh, { forWriting, pid, overrun: false, failedWrites: 0 });
    return fh;
  }

  /** @returns whether it was open for writing; undefined if there is no such handle */
  remove(fh: bigint): boolean | undefined {
    const handle = this.#handles.get(fh);
    this.#handles.delete(fh);
    return handle?.forWriting;
  }

  /** The handle that a thread opened last for writing: O_TRUNC tells no handle, and comes right behind its open. */
  latestOf(pid: number): bigint | undefined {
    let latest: bigint | undefined;
    for (const [fh, handle] of this.#handles) {
      if (handle.forWriting && handle.pid === pid) latest = fh;
    }
    return latest;
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
  markOverrun(): void {
    for (const handle of this.#handles.values()) handle.overrun = handle.forWriting;
  }

  takeOverrun(fh: bigint): boolean {
    const handle = this.#handles.get(fh);
    if (handle?.overrun !== true) return false;
    handle.overrun = false;
    return true;
  }
}
