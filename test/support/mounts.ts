/**
 * Runs the command as a user does, in a folder of its own, and looks for what it left behind: all
 * that a test starts carries a mark in its environment, by which it is found in /proc whatever
 * session or parent it has by then.
 */

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseMountinfo } from '../../src/fuse/mountpoint.js';
import { findProgram } from './requires.js';

/** Seen from dist/test/support/, where the compiled file is. */
const PROJECT = fileURLToPath(new URL('../../..', import.meta.url));
export const TSNBDFUSE = join(PROJECT, 'bin', 'tsnbdfuse');
export const TSNBDKIT = join(PROJECT, 'bin', 'tsnbdkit');

const MARK = 'TSNBDFUSE_TEST_MARK';

/** Milliseconds. Generous: it ends a test that hangs, and measures nothing. */
export const DEADLINE = 30_000;
const LOOK_INTERVAL = 10;
/** Milliseconds for what a program that ended has said. */
const DRAIN = 1_000;

/** Waits until something is so. @throws Error after the deadline */
export async function until(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  deadline = DEADLINE,
): Promise<void> {
  const end = performance.now() + deadline;
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`not within ${deadline / 1000} s: ${what}`);
    await delay(LOOK_INTERVAL);
  }
}

export interface Result {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: string | Uint8Array;
  /** Milliseconds. */
  readonly deadline?: number;
  /** Descriptors that it has from 3 on. */
  readonly descriptors?: readonly number[];
  /** Where it is started, if not in the folder of the test. */
  readonly cwd?: string;
  /** As whom, where it is root that runs the test; needs setpriv. */
  readonly user?: number | undefined;
  /** Told what it writes to standard output, as it comes. */
  readonly onOutput?: (text: string) => void;
  /** Leads a process group, and a session, of its own. */
  readonly detached?: boolean;
  /** Its standard input stays open, to be written to. */
  readonly talk?: boolean;
}

/** A program that runs. */
export class Running {
  readonly pid: number;
  /** Rejects when the program does not end in time, which ends it. */
  readonly ended: Promise<Result>;
  hasEnded = false;
  stdout = '';
  stderr = '';
  readonly #stdin: Writable | undefined;

  constructor(file: string, args: readonly string[], cwd: string, options: RunOptions = {}) {
    const child = spawn(file, args, {
      cwd,
      env: options.env,
      detached: options.detached === true,
      stdio: ['pipe', 'pipe', 'pipe', ...(options.descriptors ?? [])],
    });
    this.pid = child.pid ?? -1;
    const { stdin, stdout, stderr } = child;
    if (stdin === null || stdout === null || stderr === null) throw new Error('there are no pipes');
    stdout.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      options.onOutput?.(text);
    });
    stderr.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    // A program need not read what it is given.
    stdin.on('error', () => undefined);
    if (options.talk === true) this.#stdin = stdin;
    else stdin.end(options.input ?? '');
    this.ended = new Promise((resolve, reject) => {
      const deadline = options.deadline ?? DEADLINE;
      const timer = setTimeout(() => {
        child.kill('SIGKILL');
        reject(new Error(`${file} ${args.join(' ')} did not end in time; it said: ${this.stderr}`));
      }, deadline);
      child.on('error', (error) => {
        clearTimeout(timer);
        this.hasEnded = true;
        reject(error);
      });
      child.on('exit', (status, signal) => {
        clearTimeout(timer);
        const tell = (): void => {
          clearTimeout(enough);
          this.hasEnded = true;
          resolve({ status, signal, stdout: this.stdout, stderr: this.stderr });
        };
        // The pipes are closed when all that was said is here, but not while a process that was left
        // behind holds them. On a busy machine the time may be over before they were looked at.
        const enough = setTimeout(() => setImmediate(tell), DRAIN);
        child.on('close', tell);
      });
    });
    // Whoever does not wait for the end does not want to hear of it.
    this.ended.catch(() => undefined);
  }

  /** Writes to the standard input of one that was started to talk with. */
  tell(text: string): void {
    this.#stdin?.write(text);
  }
}

/** A folder for a test, and what runs in it. */
export class Workplace {
  readonly path: string;
  readonly env: NodeJS.ProcessEnv;
  readonly #mark = randomUUID();
  /** Of /dev/fuse, before it was changed. */
  #fuseMode: number | undefined;

  private constructor(path: string) {
    this.path = path;
    this.env = {
      ...process.env,
      PATH: `${join(PROJECT, 'bin')}:${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`,
      // What is left behind there is seen.
      XDG_RUNTIME_DIR: join(path, 'run'),
      TMPDIR: join(path, 'run'),
      [MARK]: this.#mark,
    };
    delete this.env['DEBUG'];
  }

  static async create(): Promise<Workplace> {
    const place = new Workplace(await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-')));
    await mkdir(place.join('run'));
    return place;
  }

  join(name: string): string {
    return join(this.path, name);
  }

  /** Makes a file. @returns its path */
  async file(name: string, content: string | Uint8Array = '', mode = 0o644): Promise<string> {
    await writeFile(this.join(name), content, { mode });
    return this.join(name);
  }

  /**
   * Gives the folder of the test to another user, with these files in it, and lets everybody mount, as udev
   * does, until it is removed.
   */
  async give(user: number, ...names: readonly string[]): Promise<void> {
    this.#fuseMode ??= (await stat('/dev/fuse')).mode & 0o777;
    await chmod('/dev/fuse', 0o666);
    for (const name of ['', 'run', ...names]) await chown(this.join(name), user, user);
  }

  start(file: string, args: readonly string[], options: RunOptions = {}): Running {
    const { user } = options;
    if (user !== undefined) {
      const words = [`--reuid=${user}`, `--regid=${user}`, '--clear-groups', file, ...args];
      return this.start('setpriv', words, { ...options, user: undefined });
    }
    return new Running(file, args, options.cwd ?? this.path, {
      ...options,
      env: { ...this.env, ...options.env },
    });
  }

  /** Runs a program to its end. */
  run(file: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return this.start(file, args, options).ended;
  }

  /** Runs a program that has to succeed. @returns its standard output */
  async ok(file: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
    const result = await this.run(file, args, options);
    if (result.status !== 0) {
      const end = result.signal ?? result.status;
      throw new Error(`${file} ${args.join(' ')}: ${end}\n${result.stdout}${result.stderr}`);
    }
    return result.stdout;
  }

  /** Runs the command to its end, as one that is expected to fail. */
  tsnbdfuse(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return this.run(TSNBDFUSE, args, options);
  }

  /**
   * Starts the command and waits until the disk is mounted.
   * @param args from the mountpoint on, or with options before it
   */
  async mount(args: readonly string[], options: RunOptions = {}): Promise<Mounted> {
    const pidfile = this.join(`${randomUUID()}.pid`);
    // A mount may stay for the whole of a test.
    const running = this.start(TSNBDFUSE, ['-P', pidfile, ...args], {
      deadline: 10 * DEADLINE,
      ...options,
    });
    await until('the disk is mounted', () => running.hasEnded || existsSync(pidfile));
    if (running.hasEnded) {
      throw new Error(`it ended instead of mounting: ${(await running.ended).stderr}`);
    }
    return new Mounted(this, running);
  }

  /** Waits until a program waits in the kernel for a reply of ours, or for a page. */
  async untilWaits({ pid }: Running): Promise<void> {
    await until('it waits', async () =>
      /fuse|request_wait|writeback|folio|filemap/.test(
        await readFile(`/proc/${pid}/wchan`, 'latin1'),
      ),
    );
  }

  /** The mountpoints below the folder. */
  async mounts(): Promise<string[]> {
    const entries = parseMountinfo(await readFile('/proc/self/mountinfo', 'utf8'));
    return entries.map((entry) => entry.mountpoint).filter((at) => at.startsWith(this.path));
  }

  /** The processes that were started here, directly or not, with their command lines. */
  async processes(): Promise<Map<number, string>> {
    const found = new Map<number, string>();
    for (const name of await readdir('/proc')) {
      if (!/^\d+$/.test(name)) continue;
      try {
        const environment = await readFile(`/proc/${name}/environ`, 'latin1');
        if (!environment.includes(`${MARK}=${this.#mark}`)) continue;
        const command = await readFile(`/proc/${name}/cmdline`, 'latin1');
        found.set(Number(name), command.replaceAll('\0', ' ').trim());
      } catch {
        // It ended while we looked.
      }
    }
    return found;
  }

  /** What is there that should not be, as lines; empty when all is well. */
  async leftovers(): Promise<string[]> {
    return [
      ...(await this.mounts()).map((at) => `mount ${at}`),
      ...[...(await this.processes())].map(([pid, command]) => `process ${pid}: ${command}`),
      ...(await readdir(this.join('run'))).map((name) => `file run/${name}`),
    ];
  }

  /** Waits until nothing is left. @throws Error that names what is */
  async nothingLeft(deadline = DEADLINE): Promise<void> {
    let left: string[] = [];
    try {
      await until(
        'nothing is left',
        async () => {
          left = await this.leftovers();
          return left.length === 0;
        },
        deadline,
      );
    } catch {
      // Not to trouble the next test as well.
      await this.#clear();
      throw new Error(`left behind: ${left.join(', ')}`);
    }
  }

  /** Unmounts and ends everything, whatever state a failed test left it in. */
  async #clear(): Promise<void> {
    for (const at of await this.mounts()) {
      await this.run('umount', ['-l', at]).catch(() => undefined);
    }
    for (const pid of (await this.processes()).keys()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended by itself.
      }
    }
    const run = this.join('run');
    for (const name of await readdir(run)) await rm(join(run, name), { recursive: true });
  }

  /**
   * The end of each test: waits until nothing is left, and removes the folder in any case.
   * @param stop ends first what the test itself has started
   * @throws Error that names what is left
   */
  async finish(stop?: () => Promise<void>): Promise<void> {
    try {
      await stop?.();
      await this.nothingLeft();
    } finally {
      await this.remove();
    }
  }

  async remove(): Promise<void> {
    if (this.#fuseMode !== undefined) await chmod('/dev/fuse', this.#fuseMode);
    await this.#clear();
    await rm(this.path, { recursive: true, force: true });
  }
}

/** A disk that is mounted. */
export class Mounted {
  readonly #place: Workplace;
  readonly running: Running;

  constructor(place: Workplace, running: Running) {
    this.#place = place;
    this.running = running;
  }

  /** Kills the command, which leaves a dead mount behind. */
  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.running.ended;
  }

  get pid(): number {
    return this.running.pid;
  }

  /** Unmounts, and waits for the end of the command. */
  async unmount(mountpoint: string): Promise<Result> {
    const helper = findProgram('fusermount3');
    if (helper === undefined) await this.#place.ok('umount', [mountpoint]);
    else await this.#place.ok(helper, ['-u', mountpoint]);
    return this.running.ended;
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }
}
