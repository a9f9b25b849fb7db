/**
 * For `-o auto_unmount`: a tiny process that outlives us by a moment, and takes a mount away that our
 * death has left. It notices the end of our side of a socket pair, which the kernel closes whatever we
 * die of. fusermount3 has such a process as well, but that of libfuse before 3.16 looks at the mount
 * as root, who is not let in without allow_other, and does nothing.
 */

import { execa } from 'execa';
import { TOO_LATE, within } from '../deadline.js';
import { checkResult } from '../errno.js';
import { native } from '../native.js';

/** Milliseconds that one told to go may take before it is killed. */
const RELEASE_DEADLINE = 2_000;

// A line from us says that all is well. An open tells a dead mount (ENOTCONN) from whatever anybody has
// put there since, which is not touched; stat(2) would not, from cached attributes. The mount may die a
// moment after the socket pair.
const SCRIPT = `
exec <&3 3<&-
if IFS= read -r word; then exit 0; fi
tries=0
while [ $tries -lt 20 ]; do
  case $( (: <"$1") 2>&1) in
    *'not connected'*)
      umount -l "$1" || fusermount3 -u -z "$1"
      exit
  esac
  sleep 0.1 || sleep 1
  tries=$((tries + 1))
done
`;

export class AutoUnmount {
  readonly #fd: number;
  readonly #exited: Promise<unknown>;
  readonly #kill: () => void;
  #released: Promise<void> | undefined;

  /**
   * @param path absolute; to be called before the mount, so that no moment is without it
   * @throws ErrnoError
   */
  constructor(path: string) {
    const ends = new Int32Array(2);
    checkResult(native.socketpair(ends), 'socketpair');
    const [ours, theirs] = ends as unknown as [number, number];
    try {
      const child = execa('/bin/sh', ['-c', SCRIPT, 'tsnbdfuse-unmounter', path], {
        // execa's types know of descriptors to 9 only; any number does.
        stdio: ['ignore', 'ignore', 'ignore', theirs as 9],
        // The script reads what the shell says.
        env: { LC_ALL: 'C', PATH: `/usr/bin:/bin:/usr/sbin:/sbin:${process.env['PATH'] ?? ''}` },
        // Not to keep a file system busy.
        cwd: '/',
        // Out of reach of Ctrl-C on the terminal.
        detached: true,
        cleanup: false,
        reject: false,
      });
      this.#fd = ours;
      this.#exited = child;
      this.#kill = () => child.kill('SIGKILL');
    } catch (error) {
      native.close(ours);
      throw error;
    } finally {
      native.close(theirs);
    }
  }

  /** Sends it away: there is nothing left to unmount. Never rejects; may be called twice. */
  release(): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }

  async #release(): Promise<void> {
    native.write(this.#fd, Buffer.from('\n'), 0, 1);
    native.close(this.#fd);
    if ((await within(this.#exited, RELEASE_DEADLINE)) === TOO_LATE) this.#kill();
  }
}
