/**
 * Makes the kernel take the true size of a file again. With its page cache written back it lengthens a
 * file by itself when somebody writes past the end, and asks us too late.
 */

import { stat } from 'node:fs/promises';
import { checkResult } from '../errno.js';
import { native } from '../native.js';
import type { OwnMount } from './own-mount.js';
import type { FileNode } from './tree.js';

interface Mending {
  readonly done: Promise<void>;
  /** It is to be done once more. */
  again: boolean;
}

export class SizeMender {
  readonly #mount: Pick<OwnMount, 'use'>;
  readonly #running = new Map<FileNode, Mending>();
  #stopped = false;

  constructor(mount: Pick<OwnMount, 'use'>) {
    this.#mount = mount;
  }

  /** No further attempt is made. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * Truncates a file to the size it has. Resolves when that is done, or cannot be; never rejects.
   * The kernel waits for its writes first, and for the lock of the file.
   */
  mend(node: FileNode): Promise<void> {
    const running = this.#running.get(node);
    if (running !== undefined) {
      running.again = true;
      return running.done;
    }
    const mending: Mending = {
      again: true,
      done: Promise.resolve().then(() => this.#run(node, mending)),
    };
    this.#running.set(node, mending);
    return mending.done;
  }

  async #run(node: FileNode, mending: Mending): Promise<void> {
    while (mending.again && !this.#stopped) {
      mending.again = false;
      await this.#mount.use('mending the size', node.name, (path) => truncate(path, node));
    }
    this.#running.delete(node);
  }
}

async function truncate(path: string, { id, name, file }: FileNode): Promise<void> {
  // A partition that was made anew has the name of the one before, which no path leads to any more.
  if ((await stat(path)).ino !== id) throw new Error(`${name} is another file by now`);
  checkResult(await native.truncate(path, file.size), 'truncate');
}
