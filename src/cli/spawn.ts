/** How a captive server is started. */

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { childOutput, passOn } from '../child-output.js';
import type { Exit } from './exit.js';

export interface SpawnOptions {
  /** What stands for standard input (empty if it is not said), output and error. */
  readonly input?: 'ignore' | number | undefined;
  readonly output: 'ignore' | 'inherit' | number;
  /** A pipe is read by whoever starts it. */
  readonly error: 'ignore' | 'inherit' | 'pipe';
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
  /** Its standard error, where that is a pipe, which does not keep us from our end. */
  readonly errors?: Readable | undefined;
  /** Once it is reaped. Never rejects. */
  readonly exited: Promise<Ending>;
}

/**
 * Starts a program in a session of its own: Ctrl-C on the terminal reaches us alone, and we end it
 * when what it holds is flushed.
 *
 * By Node's own means: loading execa, which starts fusermount3, takes some 5 ms that the server would wait.
 */
export function spawnDetached(
  file: string,
  args: readonly string[],
  { input, output, error, descriptors, env }: SpawnOptions,
): Spawned {
  try {
    const child = spawn(file, args, {
      stdio: [input ?? 'ignore', ...[output, error].map(inherited), ...descriptors],
      env,
      detached: true,
    });
    passOn(child.stdout);
    // Somebody else reads it where a pipe was asked for.
    const errors = error === 'pipe' ? (child.stderr ?? undefined) : undefined;
    if (errors === undefined) passOn(child.stderr);
    else if (errors instanceof Socket) errors.unref();
    return { pid: child.pid, errors, exited: ending(child) };
  } catch (problem) {
    // An argument that no program can be given, and what Node does not tell by an event.
    return { pid: undefined, exited: Promise.resolve(failed(problem)) };
  }
}

const inherited = (
  output: SpawnOptions['output' | 'error'],
): 'ignore' | 'inherit' | 'pipe' | number => (output === 'inherit' ? childOutput() : output);

function ending(child: ChildProcess): Promise<Ending> {
  return new Promise((resolve) => {
    child
      .once('error', (problem) => resolve(failed(problem)))
      .once('exit', (status, signal) => {
        resolve({ status: status ?? undefined, signal: signal ?? undefined });
      });
  });
}

function failed(problem: unknown): Ending {
  const failure = problem instanceof Error ? problem.message : String(problem);
  return { status: undefined, signal: undefined, failure };
}
