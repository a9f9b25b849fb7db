/**
 * systemd, or whoever speaks its protocol (sd_notify(3)): told over a datagram socket that the disk is mounted, what
 * became of the server, that the end has come, and at short intervals that the event loop turns.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { LONGEST_WAIT } from '../deadline.js';
import { errno, errnoText } from '../errno.js';
import { native } from '../native.js';
import { oneLine, say } from './messages.js';
import type { ServiceEnvironment } from './service-environment.js';

/** Milliseconds for a queue that is full, and between two looks. */
const BUSY_DEADLINE = 5_000;
const BUSY_INTERVAL = 50;

/** As the addon takes it. @returns undefined for what is no Unix socket */
function pathOf(socket: string): string | undefined {
  if (socket.length < 2) return undefined;
  if (socket.startsWith('@')) return `\0${socket.slice(1)}`;
  return socket.startsWith('/') ? socket : undefined;
}

/** Milliseconds between two signs of life: half of what may pass at the most. Undefined where nobody asks us. */
function watchdogInterval(environment: ServiceEnvironment): number | undefined {
  const { watchdogMicroseconds = '', watchdogPid } = environment;
  if (watchdogPid !== undefined && watchdogPid !== String(process.pid)) return undefined;
  const microseconds = /^\d{1,19}$/.test(watchdogMicroseconds) ? Number(watchdogMicroseconds) : 0;
  if (microseconds === 0) return undefined;
  return Math.min(LONGEST_WAIT, Math.max(1, Math.floor(microseconds / 2000)));
}

export class ServiceManager {
  readonly #path: string;
  readonly #socket: number;
  /** We are another process than the one that was started. */
  readonly #isOther: boolean;
  #watchdog: NodeJS.Timeout | undefined;

  private constructor(path: string, socket: number, isOther: boolean) {
    this.#path = path;
    this.#socket = socket;
    this.#isOther = isOther;
  }

  /**
   * @param isDaemon we are another process than the one that was started
   * @returns undefined where it cannot be spoken to, which is told
   */
  static open(environment: ServiceEnvironment, isDaemon: boolean): ServiceManager | undefined {
    const path = pathOf(environment.socket);
    const socket = path === undefined ? -errno.EAFNOSUPPORT : native.unixDatagram();
    if (path === undefined || socket < 0) {
      say(`NOTIFY_SOCKET=${environment.socket}: ${errnoText(-socket)}`);
      return undefined;
    }
    const manager = new ServiceManager(path, socket, isDaemon);
    const interval = watchdogInterval(environment);
    // By the event loop, so that one that hangs is noticed; it is not to hold that.
    if (interval !== undefined) {
      manager.#watchdog = setInterval(() => manager.#send('WATCHDOG=1'), interval).unref();
    }
    return manager;
  }

  /** @param status a sentence for its user */
  async ready(status: string): Promise<void> {
    const mainPid = this.#isOther ? `\nMAINPID=${process.pid}` : '';
    const result = await this.#deliver(`READY=1\nSTATUS=${oneLine(status)}${mainPid}`);
    if (result < 0) say(`the service manager could not be told: ${errnoText(-result)}`);
  }

  status(text: string): void {
    this.#send(`STATUS=${oneLine(text)}`);
  }

  /**
   * @param status a sentence for its user
   * @param most milliseconds that the end may take; it gives us no less, and is not to kill us before. Undefined
   *   where that is not known: it gives us what it was told
   */
  stopping(status: string, most: number | undefined): Promise<number> {
    const extend = most === undefined ? '' : `\nEXTEND_TIMEOUT_USEC=${most * 1000}`;
    return this.#deliver(`STOPPING=1\nSTATUS=${oneLine(status)}${extend}`);
  }

  /** What must not get lost: a queue that is full is waited for. */
  async #deliver(message: string): Promise<number> {
    const end = performance.now() + BUSY_DEADLINE;
    for (;;) {
      const result = this.#send(message);
      if (result !== -errno.EAGAIN || performance.now() > end) return result;
      await delay(BUSY_INTERVAL);
    }
  }

  #send(message: string): number {
    const bytes = Buffer.from(message);
    return native.sendTo(this.#socket, this.#path, bytes, 0, bytes.length);
  }

  /** Once. */
  close(): void {
    clearInterval(this.#watchdog);
    native.close(this.#socket);
  }
}
