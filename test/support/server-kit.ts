/** The real `tsnbdkit`, started as a user does. */

import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { DEADLINE, TSNBDKIT, until } from './mounts.js';
import type { Result, RunOptions, Running, Workplace } from './mounts.js';

/** A server that is ready. */
export class Kit {
  readonly running: Running;
  /** Of its socket, where it listens on the usual one. */
  readonly socket: string;

  readonly pidfile: string;

  private constructor({ running, pidfile }: Started, socket: string) {
    this.running = running;
    this.pidfile = pidfile;
    this.socket = socket;
  }

  /** Serves on a Unix socket. @param args the plugin, its argument, and options */
  static async start(
    place: Workplace,
    args: readonly string[],
    options: RunOptions = {},
  ): Promise<Kit> {
    const socket = place.join(`${randomUUID().slice(0, 8)}.sock`);
    return new Kit(await startKit(place, ['-U', socket, ...args], options), socket);
  }

  uri(exportName = ''): string {
    return `nbd+unix:///${exportName}?socket=${this.socket}`;
  }

  /** Resident memory, in bytes. */
  async memory(): Promise<number> {
    const status = await readFile(`/proc/${this.running.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
  }

  /** Asks it to end, and waits until it has. */
  stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Result> {
    process.kill(this.running.pid, signal);
    return this.running.ended;
  }
}

interface Started {
  readonly running: Running;
  readonly pidfile: string;
}

/** Starts the command and waits until its pidfile tells that it is ready. */
export async function startKit(
  place: Workplace,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Started> {
  const pidfile = place.join(`${randomUUID()}.pid`);
  const running = place.start(TSNBDKIT, ['-P', pidfile, ...args], {
    deadline: 4 * DEADLINE,
    ...options,
  });
  await until('the server is ready', () => running.hasEnded || existsSync(pidfile));
  if (running.hasEnded) {
    throw new Error(`it ended instead of serving: ${(await running.ended).stderr}`);
  }
  return { running, pidfile };
}
