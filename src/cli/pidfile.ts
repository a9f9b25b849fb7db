/** The file that tells scripts that the disk is mounted, and by which process. */

import { constants, readFileSync, rmSync } from 'node:fs';
import { access, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { CommandError } from './errors.js';

export class Pidfile {
  readonly #path: string;
  readonly #content = `${process.pid}\n`;

  private constructor(path: string) {
    this.#path = path;
  }

  /**
   * Checks that it can be written, and writes nothing.
   * @param shown as the user wrote it; taken from the current directory of now
   * @throws CommandError
   */
  static async prepare(shown: string): Promise<Pidfile> {
    const path = resolve(shown);
    try {
      if (shown === '') throw new Error('its name is empty');
      const folder = dirname(path);
      if (!(await stat(folder)).isDirectory()) throw new Error(`${folder} is not a directory`);
      await access(folder, constants.W_OK | constants.X_OK);
      const entry = await stat(path).catch(() => undefined);
      if (entry?.isDirectory() === true) throw new Error('it is a directory');
    } catch (error) {
      throw new CommandError(`cannot write the pidfile ${shown}: ${reason(error)}`, {
        cause: error,
      });
    }
    return new Pidfile(path);
  }

  /**
   * Whoever sees the file sees the whole of it.
   * @throws CommandError
   */
  async write(): Promise<void> {
    const unfinished = `${this.#path}.${process.pid}`;
    try {
      await writeFile(unfinished, this.#content);
      await rename(unfinished, this.#path);
    } catch (error) {
      await rm(unfinished, { force: true });
      throw new CommandError(`cannot write the pidfile ${this.#path}: ${reason(error)}`, {
        cause: error,
      });
    }
  }

  /** Another process may have put its own in the place of ours. */
  remove(): void {
    try {
      if (readFileSync(this.#path, 'utf8') === this.#content) rmSync(this.#path);
    } catch {
      // Gone already, or not ours to remove any more.
    }
  }
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return 'its directory does not exist';
  return code ?? error.message;
}
