/**
 * Real servers, each on a Unix socket in a folder of its own. One that was started and not stopped
 * ends with the process of the test.
 */

import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TSNBDKIT } from './mounts.js';
import { findProgram } from './requires.js';

export interface RealServer {
  readonly socketPath: string;
  readonly pid: number;
  /** Kills it, as a crash of the program would, with all its processes. */
  kill(): Promise<void>;
  /** Starts it once more at the same place, when it was killed. What was returned before is of no more use. */
  again(): Promise<RealServer>;
  /** Ends it and removes its folder. May be called twice. */
  stop(): Promise<void>;
}

/** Milliseconds. Generous: they end a test that hangs, and measure nothing. */
const START_DEADLINE = 30_000;
const STOP_DEADLINE = 10_000;
const LOOK_INTERVAL = 5;

/** What a program that does not start has said, at most. */
const SHOWN = 2000;

interface Files {
  readonly socket: string;
  /** Written by the server once it listens. Nobody connects to find out: some serve one client only. */
  readonly pidfile: string;
  readonly config: string;
}

interface Plan {
  /** A name to be found in PATH, or an absolute path. */
  readonly program: string;
  readonly args: (files: Files) => readonly string[];
  readonly config?: (files: Files) => string;
  /** What we start ends at once; the server is another process, which leads a process group. */
  readonly daemon?: boolean;
}

/** The folder of each process group that is ours to end. */
const groups = new Map<number, string>();

function endAll(): void {
  for (const [group, folder] of groups) {
    kill(group, 'SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
  groups.clear();
}
process.once('exit', endAll);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    endAll();
    process.kill(process.pid, signal);
  });
}

function kill(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // It ended by itself.
  }
}

/** Also a process that nobody has waited for has ended. */
export function hasEnded(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat[stat.lastIndexOf(')') + 2] === 'Z';
  } catch {
    return true;
  }
}

/** @returns whether it became so in time */
async function until(isSo: () => boolean, deadline: number): Promise<boolean> {
  const end = performance.now() + deadline;
  while (!isSo()) {
    if (performance.now() > end) return false;
    await sleep(LOOK_INTERVAL);
  }
  return true;
}

function readPid(files: Files): number | undefined {
  try {
    const pid = Number(readFileSync(files.pidfile, 'utf8'));
    return pid > 0 && existsSync(files.socket) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** @param before the folder of a server that was killed */
async function start(plan: Plan, before?: string): Promise<RealServer> {
  const program = isAbsolute(plan.program) ? plan.program : findProgram(plan.program);
  if (program === undefined) throw new Error(`${plan.program} is not installed`);
  const folder = before ?? (await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-')));
  const files: Files = {
    socket: join(folder, 's'),
    pidfile: join(folder, 'pid'),
    config: join(folder, 'config'),
  };
  if (plan.config !== undefined) await writeFile(files.config, plan.config(files));

  // Its errors go to a file: a daemon would hold a pipe open.
  const errors = join(folder, 'errors');
  const args = plan.args(files);
  const child = spawn('sh', ['-c', 'exec "$@" 2>"$0"', errors, program, ...args], {
    stdio: 'ignore',
    detached: true,
  });
  child.on('error', () => undefined);
  const started = child.pid;
  if (started === undefined) throw new Error('sh cannot be started');
  groups.set(started, folder);

  const isDaemon = plan.daemon === true;
  const failed = (): boolean => !isDaemon && hasEnded(started);
  await until(() => failed() || readPid(files) !== undefined, START_DEADLINE);
  const pid = failed() ? undefined : readPid(files);
  const group = isDaemon ? (pid ?? started) : started;
  groups.delete(started);
  groups.set(group, folder);

  const stop = async (): Promise<void> => {
    // One that was killed has left its folder, for the next one in its place.
    if (groups.has(group)) {
      for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
        kill(group, signal);
        if (await until(() => hasEnded(group), STOP_DEADLINE)) break;
      }
      groups.delete(group);
    }
    await rm(folder, { recursive: true, force: true });
  };
  if (pid === undefined) {
    const said = await readFile(errors, 'utf8').catch(() => '');
    await stop();
    throw new Error(`${program} ${args.join(' ')} did not start: ${said.slice(0, SHOWN)}`);
  }
  return {
    socketPath: files.socket,
    pid,
    kill: async () => {
      kill(group, 'SIGKILL');
      await until(() => hasEnded(group), STOP_DEADLINE);
      groups.delete(group);
      for (const left of [files.socket, files.pidfile]) rmSync(left, { force: true });
    },
    again: () => start(plan, folder),
    stop,
  };
}

/** @param args options and plugin: `['--no-sr', 'memory', '1M']` */
export function startNbdkit(args: readonly string[]): Promise<RealServer> {
  return start({
    program: 'nbdkit',
    args: ({ socket, pidfile }) => ['-f', '-U', socket, '-P', pidfile, ...args],
  });
}

/**
 * It stays when its clients leave (`--persistent`), and serves one of them at a time unless
 * `--shared` says otherwise.
 * @param args options and image: `['-f', 'raw', path]`
 */
export function startQemuNbd(args: readonly string[]): Promise<RealServer> {
  return start({
    program: 'qemu-nbd',
    args: ({ socket, pidfile }) => ['-t', '-k', socket, '--pid-file', pidfile, ...args],
  });
}

/**
 * @param exports sections of its configuration: `{ disk: { exportname: path, readonly: 'true' } }`, and
 *   `generic`, what is not about one of them
 */
export function startNbdServer(
  exports: Readonly<Record<string, Readonly<Record<string, string>>>>,
): Promise<RealServer> {
  const { generic, ...others } = exports;
  return start({
    program: 'nbd-server',
    // In the foreground it serves one client and ends.
    daemon: true,
    args: ({ config, pidfile }) => ['-C', config, '-p', pidfile],
    config: ({ socket }) =>
      // It wants this one first.
      Object.entries({ generic: { unixsock: socket, ...generic }, ...others })
        .flatMap(([name, values]) => [
          `[${name}]`,
          ...Object.entries(values).map(([key, value]) => `  ${key} = ${value}`),
        ])
        .join('\n'),
  });
}

/** Our own. @param args options and plugin: `['memory', '1M']` */
export function startTsnbdkit(args: readonly string[]): Promise<RealServer> {
  return start({
    program: TSNBDKIT,
    args: ({ socket, pidfile }) => ['-U', socket, '-P', pidfile, ...args],
  });
}
