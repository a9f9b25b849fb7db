/**
 * What a mount shows: one file in the place of its mountpoint, or a directory with files in it. A node
 * has a number that is never used again, by which the kernel names it in its requests.
 */

import type { DiskFile } from '../disk/disk-file.js';
import { S_IFDIR } from '../disk/file-attributes.js';
import type { Attributes } from '../disk/file-attributes.js';
import { ROOT_ID } from './constants.js';

export interface FileNode {
  /** The kernel's `nodeid`, and the inode number that programs see. */
  readonly id: number;
  /** In its directory; empty for a file that is the mountpoint. */
  readonly name: string;
  readonly file: DiskFile;
}

/** An entry of a directory. */
export interface Entry {
  readonly id: number;
  readonly name: string;
  readonly isDirectory: boolean;
}

export interface DirectoryOptions {
  readonly uid: number;
  readonly gid: number;
  /** Those of its files; who may read these may list it. */
  readonly permissions: number;
}

const ROOT = Number(ROOT_ID);

class KnownNode implements FileNode {
  /** How often the kernel was told of it and has not forgotten it since. */
  lookups = 0;
  /** It has its place in the directory, where another one may have taken it. */
  listed = true;

  constructor(
    readonly id: number,
    readonly name: string,
    readonly file: DiskFile,
  ) {}
}

export class Tree {
  readonly #nodes = new Map<number, KnownNode>();
  readonly #names = new Map<string, KnownNode>();
  readonly #directory: DirectoryOptions | undefined;
  readonly #gone: (node: FileNode) => void;
  #nextId = ROOT + 1;
  /** When a name last came or went, in nanoseconds since the epoch. */
  #changed = now();

  private constructor(
    directory: DirectoryOptions | undefined,
    gone: (node: FileNode) => void = () => undefined,
  ) {
    this.#directory = directory;
    this.#gone = gone;
  }

  /** The mountpoint is the file. */
  static ofFile(file: DiskFile): { tree: Tree; node: FileNode } {
    const tree = new Tree(undefined);
    const node = new KnownNode(ROOT, '', file);
    tree.#nodes.set(ROOT, node);
    return { tree, node };
  }

  /**
   * The mountpoint is a directory, with nothing in it so far.
   * @param gone told of each file that no request can be about any more: it is in the directory no more,
   *   and the kernel, which remembers a file while somebody has it open, has forgotten it
   */
  static ofDirectory(options: DirectoryOptions, gone?: (node: FileNode) => void): Tree {
    return new Tree(options, gone);
  }

  /** Whether the mountpoint is a directory. */
  get isDirectory(): boolean {
    return this.#directory !== undefined;
  }

  /** Nobody can make, remove or rename anything in it. */
  attributes(): Attributes {
    const { uid, gid, permissions } = this.#directory ?? { uid: 0, gid: 0, permissions: 0 };
    const readable = permissions & 0o444;
    return {
      size: 0n,
      blocks: 0n,
      mode: S_IFDIR | readable | (readable >> 2),
      uid,
      gid,
      atime: this.#changed,
      mtime: this.#changed,
      ctime: this.#changed,
      blockSize: 4096,
    };
  }

  /** The file with this number, also one that is in the directory no more. */
  file(id: number): FileNode | undefined {
    return this.#nodes.get(id);
  }

  /** Whether this is the number of the directory. */
  isDirectoryId(id: number): boolean {
    return this.isDirectory && id === ROOT;
  }

  /** Puts a file into the directory, in the place of another one of this name. */
  add(name: string, file: DiskFile): FileNode {
    this.remove(name);
    const node = new KnownNode(this.#nextId++, name, file);
    this.#nodes.set(node.id, node);
    this.#names.set(name, node);
    this.#changed = now();
    return node;
  }

  /** Takes a file out of the directory. Who has it open can go on with it. */
  remove(name: string): void {
    const node = this.#names.get(name);
    if (node === undefined) return;
    this.#names.delete(name);
    node.listed = false;
    this.#changed = now();
    this.#drop(node);
  }

  /** For LOOKUP: the kernel knows the node until it says FORGET. */
  lookup(name: string): FileNode | undefined {
    const node = this.#names.get(name);
    if (node !== undefined) node.lookups++;
    return node;
  }

  /** FORGET. */
  forget(id: number, lookups: number): void {
    const node = this.#nodes.get(id);
    if (node === undefined || id === ROOT) return;
    node.lookups = Math.max(0, node.lookups - lookups);
    this.#drop(node);
  }

  #drop(node: KnownNode): void {
    if (node.listed || node.lookups > 0) return;
    if (this.#nodes.delete(node.id)) this.#gone(node);
  }

  /** All files there are, also those that are in the directory no more. */
  files(): FileNode[] {
    return [...this.#nodes.values()];
  }

  /** As readdir(3) gives them. */
  entries(): Entry[] {
    const files = [...this.#names.values()];
    return [
      { id: ROOT, name: '.', isDirectory: true },
      // The one above is none of ours: the kernel knows its number, and shows it itself.
      { id: ROOT, name: '..', isDirectory: true },
      ...files.map(({ id, name }) => ({ id, name, isDirectory: false })),
    ];
  }
}

function now(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}
