/** The file that tells scripts that the disk is mounted, and by which process. */

import { constants, readFileSync, rmSync } from 'node:fs';
import { access, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { CommandError } from './errors.js';

export class Pidfile {
  readonly #path: string;
  readonly #content = `${process.pid}\n`;

  private constructor(path: string) {
    this.#path = path;
  }

  /**
   * Checks that it can be written, and writes nothing. One that a process left behind which was killed
   * is removed: whoever waits for the file to appear would take it for ours.
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
      if (entry?.isFile() === true && (await isStale(path))) await rm(path, { force: true });
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

/** Whether it holds the id of a process that is gone. */
async function isStale(path: string): Promise<boolean> {
  const content = await readFile(path, 'utf8').catch(() => '');
  if (!/^[1-9]\d{0,9}\n?$/.test(content)) return false;
  try {
    process.kill(Number(content), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return 'its directory does not exist';
  return code ?? error.message;
}
