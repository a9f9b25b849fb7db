/**
 * Makes the kernel take the true size of a file again. With its page cache written back it lengthens a
 * file by itself when somebody writes past the end, and asks us too late.
 */

import { checkResult } from '../errno.js';
import { native } from '../native.js';
import type { OwnMount } from './own-mount.js';
import type { FileNode } from './tree.js';

export class SizeMender {
  readonly #node: FileNode;
  readonly #mount: OwnMount;
  #running: Promise<void> | undefined;
  #again = false;
  #stopped = false;

  constructor(node: FileNode, mount: OwnMount) {
    this.#node = node;
    this.#mount = mount;
  }

  /** No further attempt is made. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * Truncates the file to the size it has. Resolves when that is done, or cannot be; never rejects.
   * The kernel waits for its writes first, and for the lock of the file.
   */
  mend(): Promise<void> {
    this.#again = true;
    this.#running ??= this.#run();
    return this.#running;
  }

  async #run(): Promise<void> {
    const { name, file } = this.#node;
    while (this.#again && !this.#stopped) {
      this.#again = false;
      await this.#mount.use('mending the size', name, async (path) => {
        checkResult(await native.truncate(path, file.size), 'truncate');
      });
    }
    this.#running = undefined;
  }
}
