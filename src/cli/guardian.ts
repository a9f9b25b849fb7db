/**
 * A tiny process that outlives us by a moment. SIGKILL gives us no chance to end the server that we
 * started, nor to remove its socket; the guardian notices the end of our side of a socket pair, which
 * the kernel closes whatever we die of, and does both. It guards the whole process group, for the
 * sake of wrapper scripts: PR_SET_PDEATHSIG would reach one process only, and not survive all of
 * what a wrapper may do.
 */

import { native } from '../native.js';
import { checkResult } from '../errno.js';
import { TOO_LATE, within } from '../deadline.js';
import { signalGroup } from './process-group.js';
import type { Spawned } from './spawn.js';
import { spawnDetached } from './spawn.js';

/** Milliseconds that a guardian told to go may take before it is killed. */
const RELEASE_DEADLINE = 2_000;

// For dash, bash and busybox: `kill -s` with `--` is understood by none of them all, nor is a
// fraction of a second by every sleep. $1 is the folder of the socket, if any. The first line is the process
// group, and comes from its leader; the second one is from us, and says that all is well.
const SCRIPT = `
exec <&3 3<&-
if IFS= read -r group; then
  if IFS= read -r word; then exit 0; fi
  kill -TERM "-$group"
  tries=0
  while [ $tries -lt 20 ] && kill -0 "-$group"; do
    sleep 0.1 || sleep 1
    tries=$((tries + 1))
  done
  kill -KILL "-$group"
fi
if [ -n "$1" ]; then rm -rf -- "$1"; fi
`;

export class Guardian {
  readonly #child: Spawned;
  readonly #fd: number;
  #released: Promise<void> | undefined;

  private constructor(child: Spawned, fd: number) {
    this.#child = child;
    this.#fd = fd;
  }

  /**
   * @param directory removed as well, where there is one
   * @throws ErrnoError
   */
  static start(directory: string | undefined): Guardian {
    const ends = new Int32Array(2);
    checkResult(native.socketpair(ends), 'socketpair');
    const [ours, theirs] = ends as unknown as [number, number];
    try {
      const child = spawnDetached(
        '/bin/sh',
        ['-c', SCRIPT, 'tsnbdfuse-guardian', directory ?? ''],
        {
          output: 'ignore',
          error: 'ignore',
          descriptors: [theirs],
          // It must find sleep and rm, wherever the user's PATH leads.
          env: { ...process.env, PATH: `/usr/bin:/bin:${process.env['PATH'] ?? ''}` },
          // Not to keep a file system busy.
          cwd: '/',
        },
      );
      return new Guardian(child, ours);
    } catch (error) {
      native.close(ours);
      throw error;
    } finally {
      native.close(theirs);
    }
  }

  /**
   * Where the leader of the group that is to be guarded writes its process id and a newline, before
   * it becomes the server. Were we to write it, there would be a moment with a server unguarded.
   */
  get fd(): number {
    return this.#fd;
  }

  /** Sends it away: there is nothing left to guard. Never rejects; may be called twice. */
  release(): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }

  async #release(): Promise<void> {
    // Two lines, for the case that no server ever wrote the first.
    const lines = Buffer.from('\n\n');
    native.write(this.#fd, lines, 0, lines.length);
    native.close(this.#fd);
    if ((await within(this.#child.exited, RELEASE_DEADLINE)) !== TOO_LATE) return;
    if (this.#child.pid !== undefined) signalGroup(this.#child.pid, 'SIGKILL');
    await this.#child.exited;
  }
}
