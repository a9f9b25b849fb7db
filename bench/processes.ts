/**
 * Starting programs and waiting for them. Each is in a session of its own, so that Ctrl-C reaches the
 * bench alone, which then takes everything down in order; and each carries a mark in its environment,
 * by which what is left of it is found in /proc, whatever parent it has by then.
 */

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const MARK = 'TSNBDFUSE_BENCH_MARK';
const MARK_VALUE = `${process.pid}-${Date.now()}`;

/** Milliseconds. */
const TOOL_DEADLINE = 120_000;
const KILL_DEADLINE = 10_000;

/** How much of what a program says on standard error is kept for a message. */
const SAID = 2000;

export class TimeoutError extends Error {
  override readonly name = 'TimeoutError';
}

export interface Started {
  readonly pid: number;
  /** What stands in front of a message about it. */
  readonly program: string;
  readonly child: ChildProcess;
  /** The last it said on standard error. */
  said(): string;
  hasEnded(): boolean;
}

export interface StartOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdout?: 'ignore' | 'pipe';
}

export function start(command: readonly string[], options: StartOptions = {}): Started {
  const [program = '', ...args] = command;
  const child = spawn(program, args, {
    detached: true,
    stdio: ['ignore', options.stdout ?? 'ignore', 'pipe'],
    env: { ...process.env, ...options.env, [MARK]: MARK_VALUE },
  });
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-SAID);
  });
  // Without a listener it would be thrown. It shows as a process that has no pid and has ended.
  child.on('error', (error) => {
    said = error.message;
  });
  return {
    pid: child.pid ?? -1,
    program,
    child,
    said: () => said.trim(),
    hasEnded: () => child.pid === undefined || child.exitCode !== null || child.signalCode !== null,
  };
}

/**
 * Waits until something is so.
 * @param interval milliseconds between two looks
 * @throws TimeoutError after the deadline, or the reason of the signal
 */
export async function until(
  what: string,
  isSo: () => boolean,
  deadline: number,
  signal?: AbortSignal,
  interval = 5,
): Promise<void> {
  const end = performance.now() + deadline;
  while (!isSo()) {
    signal?.throwIfAborted();
    if (performance.now() > end) throw new TimeoutError(`not within ${deadline / 1000} s: ${what}`);
    await sleep(interval);
  }
}

/** Asks a process that we started to end, and makes it end when it does not. */
export async function stop(started: Started, deadline = KILL_DEADLINE): Promise<void> {
  if (started.hasEnded()) return;
  started.child.kill('SIGTERM');
  try {
    await until(`the end of ${started.program}`, () => started.hasEnded(), deadline);
  } catch {
    started.child.kill('SIGKILL');
    await until(`the end of ${started.program}`, () => started.hasEnded(), deadline);
  }
}

export interface RunOptions extends StartOptions {
  /** Milliseconds. */
  readonly deadline?: number;
  readonly signal?: AbortSignal;
}

/**
 * Runs a program to its end and returns what it wrote. One that is killed for its deadline is not waited
 * for: it may hang in a mount that will be taken down only after this.
 * @throws Error when it fails, TimeoutError after the deadline, or the reason of the signal
 */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<string> {
  options.signal?.throwIfAborted();
  const started = start(command, { ...options, stdout: 'pipe' });
  const chunks: Buffer[] = [];
  started.child.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk));
  const deadline = options.deadline ?? TOOL_DEADLINE;
  await new Promise<void>((resolve, reject) => {
    const giveUp = (error: Error): void => {
      started.child.kill('SIGKILL');
      reject(error);
    };
    const timer = setTimeout(() => {
      giveUp(new TimeoutError(`${started.program} took more than ${deadline / 1000} s`));
    }, deadline);
    const interrupted = (): void => giveUp(options.signal?.reason as Error);
    options.signal?.addEventListener('abort', interrupted, { once: true });
    const settle = (action: () => void): void => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', interrupted);
      action();
    };
    started.child.once('error', (error) => settle(() => reject(error)));
    started.child.once('close', (code, killedBy) => {
      settle(() => {
        if (code === 0) resolve();
        else {
          const how = killedBy ?? `status ${String(code)}`;
          reject(new Error(`${started.program} ended with ${how}: ${started.said()}`));
        }
      });
    });
  });
  return Buffer.concat(chunks).toString('utf8');
}

/** The processes that this bench started, directly or not, and that are still there. */
export function leftOver(): { readonly pid: number; readonly command: string }[] {
  const found: { pid: number; command: string }[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
      if (!environment.includes(`${MARK}=${MARK_VALUE}`)) continue;
      const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
      // A zombie has none.
      if (command !== '') found.push({ pid, command: command.replaceAll('\0', ' ').trim() });
    } catch {
      // It ended, or is another user's.
    }
  }
  return found;
}
