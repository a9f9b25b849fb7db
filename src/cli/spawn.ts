/**
 * How we start processes. A file of its own because execa is what takes longest to load of all that
 * a start needs: whoever wants it imports this file when there is something to start.
 */

import { execa } from 'execa';
import type { Exit } from './exit.js';

export interface SpawnOptions {
  /** What stands for standard input (empty if it is not said), output and error. */
  readonly input?: 'ignore' | number | undefined;
  readonly output: 'ignore' | 'inherit' | number;
  readonly error: 'ignore' | 'inherit';
  /** Descriptors of ours, which the program has from 3 on. */
  readonly descriptors: readonly number[];
  /** All of it: nothing else is inherited. */
  readonly env: NodeJS.ProcessEnv;
}

export interface Ending extends Exit {
  /** Why it could not be started. */
  readonly failure?: string;
}

export interface Spawned {
  /** Undefined where it could not be started. */
  readonly pid: number | undefined;
  /** Once it is reaped. Never rejects. */
  readonly exited: Promise<Ending>;
}

/**
 * Starts a program in a session of its own: Ctrl-C on the terminal reaches us alone, and we end it
 * when what it holds is flushed.
 */
export function spawnDetached(
  file: string,
  args: readonly string[],
  options: SpawnOptions,
): Spawned {
  const child = execa(file, args, {
    // Its types know the descriptors up to 9 alone; Node takes them all.
    stdio: [
      (options.input ?? 'ignore') as 'ignore' | 9,
      options.output as 'ignore' | 'inherit' | 9,
      options.error,
      ...(options.descriptors as readonly 9[]),
    ],
    env: options.env,
    extendEnv: false,
    detached: true,
    cleanup: false,
    buffer: false,
    reject: false,
  });
  return { pid: child.pid, exited: ending(child) };
}

/** What is of use here of a result of execa. */
interface Outcome {
  readonly exitCode?: number | undefined;
  readonly signal?: NodeJS.Signals | undefined;
  readonly originalMessage?: string | undefined;
}

async function ending(child: PromiseLike<Outcome>): Promise<Ending> {
  const { exitCode, signal, originalMessage } = await child;
  return exitCode === undefined && signal === undefined
    ? { status: exitCode, signal, failure: originalMessage ?? 'unknown error' }
    : { status: exitCode, signal };
}
