/**
 * A tiny process that outlives us by a moment. SIGKILL gives us no chance to clear away what we have
 * started: it notices the end of our side of a socket pair, which the kernel closes whatever we die of,
 * and does it for us.
 */

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { TOO_LATE, within } from './deadline.js';
import { checkResult } from './errno.js';
import { native } from './native.js';

/** Milliseconds that one told to go may take before it is killed. */
const RELEASE_DEADLINE = 2_000;

// For dash, bash and busybox: `kill -s` with `--` is understood by none of them all, nor is a fraction of
// a second by every sleep. A line names what is to be killed, and an empty one says that all is well.
// $1 is a directory to be removed, $2 a mountpoint, if any. An open tells a dead mount (ENOTCONN) from
// whatever anybody has put there since, which is not touched; stat(2) would not, from cached attributes.
// The mount may die a moment after the socket pair. umount(8) needs none of its helpers (-i), which not each one knows.
const SCRIPT = `
exec <&3 3<&-
LC_ALL=C
export LC_ALL
victim=
while IFS= read -r line; do
  if [ -z "$line" ]; then exit 0; fi
  victim=$line
done
pause() { sleep 0.1 || sleep 1; }
if [ -n "$victim" ]; then
  kill -TERM "$victim"
  tries=0
  while [ $tries -lt 20 ] && kill -0 "$victim"; do
    pause
    tries=$((tries + 1))
  done
  kill -KILL "$victim"
fi
if [ -n "$1" ]; then rm -rf -- "$1"; fi
tries=0
while [ -n "$2" ] && [ $tries -lt 20 ]; do
  case $( (: <"$2") 2>&1) in
    *'not connected')
      umount -i -l "$2" || fusermount3 -u -z "$2" || umount -l "$2"
      exit
  esac
  pause
  tries=$((tries + 1))
done
`;

export interface Remains {
  /** A directory that is removed, with what is in it. */
  readonly directory?: string | undefined;
  /** Absolute; a mount there that our death has left is taken away. */
  readonly mountpoint?: string;
}

export class Survivor {
  /**
   * Where a line is written that says what is to be killed, by SIGTERM and a while later by SIGKILL: a
   * process id, or with a minus before it a process group. For one that does so itself before it becomes
   * another program, and so is never unguarded.
   */
  readonly fd: number;
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  #released: Promise<void> | undefined;

  private constructor(child: ChildProcess, fd: number) {
    this.#child = child;
    this.fd = fd;
    this.#exited = new Promise((resolve) => {
      // Without it, everything else works as well.
      child.once('error', () => resolve()).once('exit', () => resolve());
    });
  }

  /**
   * Comes before what is to be cleared away, so that no moment is without it.
   * @throws ErrnoError
   */
  static start({ directory = '', mountpoint = '' }: Remains): Survivor {
    const ends = new Int32Array(2);
    checkResult(native.socketpair(ends), 'socketpair');
    const [ours, theirs] = ends as unknown as [number, number];
    // As ps(1) shows it.
    const name = mountpoint === '' ? 'tsnbdfuse-guardian' : 'tsnbdfuse-unmounter';
    try {
      const child = spawn('/bin/sh', ['-c', SCRIPT, name, directory, mountpoint], {
        stdio: ['ignore', 'ignore', 'ignore', theirs],
        // It must find its programs, wherever the user's PATH leads.
        env: {
          ...process.env,
          PATH: `/usr/bin:/bin:/usr/sbin:/sbin:${process.env['PATH'] ?? ''}`,
        },
        // Not to keep a file system busy.
        cwd: '/',
        // In a session of its own, where no Ctrl-C on the terminal reaches it.
        detached: true,
      });
      return new Survivor(child, ours);
    } catch (error) {
      native.close(ours);
      throw error;
    } finally {
      native.close(theirs);
    }
  }

  /** Has a process killed, or with a minus before it a process group. */
  kill(victim: number): void {
    this.#say(`${victim}\n`);
  }

  /**
   * Sends it away: there is nothing left to clear away, and what it would kill may be another's by now.
   * Never rejects; may be called twice.
   */
  release(): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }

  async #release(): Promise<void> {
    this.#say('\n');
    native.close(this.fd);
    if ((await within(this.#exited, RELEASE_DEADLINE)) === TOO_LATE) this.#child.kill('SIGKILL');
    await this.#exited;
  }

  #say(line: string): void {
    const bytes = Buffer.from(line);
    native.write(this.fd, bytes, 0, bytes.length);
  }
}
