/** A front end that has mounted a disk. */

import { chownSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { mountCommand } from './contenders.js';
import type { FrontEnd, Origin } from './contenders.js';
import { mountAt, unmount } from './mountpoints.js';
import { readCost } from './process-cost.js';
import type { ProcessCost } from './process-cost.js';
import { start, stop, until } from './processes.js';
import type { Started } from './processes.js';
import { ORDINARY_USER } from './workshop.js';
import type { Workshop } from './workshop.js';

/** Milliseconds. */
const MOUNT_DEADLINE = 30_000;
const END_DEADLINE = 60_000;

/** Put before a command, runs it as the ordinary user. */
export const AS_USER: readonly string[] = [
  ...['setpriv', `--reuid=${ORDINARY_USER}`, `--regid=${ORDINARY_USER}`, '--clear-groups'],
];

export interface MountOptions {
  readonly asUser?: boolean;
  /** Milliseconds between two looks whether it is there; 1 where that is what is measured. */
  readonly interval?: number;
}

export class Mount {
  readonly file: string;
  /** Milliseconds from the start of the program until the disk was there. */
  readonly startedIn: number;
  readonly #frontEnd: FrontEnd;
  readonly #started: Started;
  readonly #folder: string;

  private constructor(
    frontEnd: FrontEnd,
    folder: string,
    file: string,
    started: Started,
    startedIn: number,
  ) {
    this.#frontEnd = frontEnd;
    this.#folder = folder;
    this.file = file;
    this.#started = started;
    this.startedIn = startedIn;
  }

  static async make(
    frontEnd: FrontEnd,
    origin: Origin,
    commands: string,
    workshop: Workshop,
    options: MountOptions = {},
  ): Promise<Mount> {
    const asUser = options.asUser === true;
    if (asUser) workshop.openFuseToAll();
    const folder = workshop.newFolder('mount', asUser);
    const file = join(folder, 'disk.raw');
    const pidfile = join(folder, 'pid');
    writeFileSync(file, '');
    if (asUser) chownSync(file, ORDINARY_USER, ORDINARY_USER);
    const command = mountCommand(frontEnd, { commands, file, pidfile }, origin);
    const begin = performance.now();
    const started = start(asUser ? [...AS_USER, ...command] : command, {
      env: { XDG_RUNTIME_DIR: folder },
    });
    try {
      await until(
        `${frontEnd} mounts the disk`,
        () => {
          if (started.hasEnded()) throw new Error(`${frontEnd} did not mount: ${started.said()}`);
          // Named first: the pidfile, which says that it is ready. It is opened before it is written.
          return existsSync(pidfile) && readFileSync(pidfile).length > 0 && isMounted(file);
        },
        MOUNT_DEADLINE,
        workshop.signal,
        options.interval,
      );
    } catch (error) {
      await stop(started);
      await unmount(file);
      throw error;
    }
    const startedIn = performance.now() - begin;
    return new Mount(frontEnd, folder, file, started, startedIn);
  }

  /** So far. */
  cost(): ProcessCost {
    return readCost(this.#started.pid);
  }

  /** Unmounts, and waits until all is at the server and the program has ended. */
  async end(): Promise<void> {
    try {
      // That of qemu outlives its mount, and unmounts when it is told to end.
      if (this.#frontEnd === 'qemu-storage-daemon') await stop(this.#started, END_DEADLINE);
      await unmount(this.file);
      await until(
        `the end of ${this.#frontEnd} after its unmount`,
        () => this.#started.hasEnded(),
        END_DEADLINE,
      );
    } finally {
      await stop(this.#started);
      rmSync(this.#folder, { recursive: true, force: true });
    }
    const status = this.#started.child.exitCode;
    if (status !== 0) {
      throw new Error(`${this.#frontEnd} ended with ${status}: ${this.#started.said()}`);
    }
  }
}

function isMounted(file: string): boolean {
  return mountAt(file)?.type.startsWith('fuse') === true;
}
