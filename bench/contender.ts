/** A program under measurement: mounts the server's disk on a file, and takes it down again. */

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';

/** Milliseconds for a mount to be there, and for its process to end. */
const DEADLINE = 30_000;

export interface Contender {
  readonly name: string;
  readonly command: readonly string[];
}

export class MountedContender {
  readonly file: string;
  readonly #child: ChildProcess;

  private constructor(file: string, child: ChildProcess) {
    this.file = file;
    this.#child = child;
  }

  /** Starts `command -P pidfile FILE URI` and waits until it has mounted. */
  static async mount(contender: Contender, folder: string, uri: string): Promise<MountedContender> {
    const file = join(folder, 'disk.raw');
    const pidfile = join(folder, 'pid');
    writeFileSync(file, '');
    rmSync(pidfile, { force: true });
    const [program = '', ...before] = contender.command;
    const child = spawn(program, [...before, '-P', pidfile, file, uri], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    const until = Date.now() + DEADLINE;
    while (!existsSync(pidfile)) {
      if (child.exitCode !== null) throw new Error(`${contender.name} did not mount the disk`);
      if (Date.now() > until) {
        child.kill('SIGKILL');
        throw new Error(`${contender.name} did not mount the disk in time`);
      }
      await sleep(10);
    }
    return new MountedContender(file, child);
  }

  async unmount(): Promise<void> {
    await execa('fusermount3', ['-u', this.file]);
    const until = Date.now() + DEADLINE;
    while (this.#child.exitCode === null && this.#child.signalCode === null) {
      if (Date.now() > until) {
        this.#child.kill('SIGKILL');
        throw new Error('a process did not end after its unmount');
      }
      await sleep(10);
    }
  }
}
