/** What stat(2) tells of the file that shows a disk, but for its size and blocks: it lives as long as the mount. */

export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
const PERMISSIONS = 0o7777;
const SET_ID_BITS = 0o6000;

/** What stat(2) tells. Times are in nanoseconds since the epoch. */
export interface Attributes {
  readonly size: bigint;
  /** Of 512 bytes each. */
  readonly blocks: bigint;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly atime: bigint;
  readonly mtime: bigint;
  readonly ctime: bigint;
  readonly blockSize: number;
}

/** What chmod, chown, utimensat and truncate change; what is undefined stays. */
export interface AttributeChange {
  readonly size?: bigint | undefined;
  readonly mode?: number | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly atime?: bigint | 'now' | undefined;
  readonly mtime?: bigint | 'now' | undefined;
  readonly ctime?: bigint | undefined;
  /** Takes the set-user-id and set-group-id bits away, as every change by an ordinary user does. */
  readonly dropSetId?: boolean | undefined;
}

export interface Ownership {
  readonly uid: number;
  readonly gid: number;
  readonly permissions: number;
}

export class FileAttributes {
  #mode: number;
  #uid: number;
  #gid: number;
  #atime: bigint;
  #mtime: bigint;
  #ctime: bigint;

  constructor({ uid, gid, permissions }: Ownership) {
    this.#mode = S_IFREG | (permissions & PERMISSIONS);
    this.#uid = uid;
    this.#gid = gid;
    this.#atime = this.#mtime = this.#ctime = now();
  }

  with(size: bigint, blocks: bigint, blockSize: number): Attributes {
    return {
      size,
      blocks,
      mode: this.#mode,
      uid: this.#uid,
      gid: this.#gid,
      atime: this.#atime,
      mtime: this.#mtime,
      ctime: this.#ctime,
      blockSize,
    };
  }

  change(change: AttributeChange): void {
    const time = now();
    if (change.mode !== undefined) this.#mode = S_IFREG | (change.mode & PERMISSIONS);
    if (change.dropSetId === true) this.dropSetId();
    if (change.uid !== undefined) this.#uid = change.uid;
    if (change.gid !== undefined) this.#gid = change.gid;
    if (change.atime !== undefined) this.#atime = change.atime === 'now' ? time : change.atime;
    if (change.mtime !== undefined) this.#mtime = change.mtime === 'now' ? time : change.mtime;
    this.#ctime = change.ctime ?? time;
  }

  dropSetId(): void {
    this.#mode &= ~SET_ID_BITS;
  }

  /** The content has changed. */
  written(): void {
    this.#mtime = this.#ctime = now();
  }
}

function now(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}
