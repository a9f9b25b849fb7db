/** The folders in which a bench works, and the signal that ends it. */

import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mountsBelow, unmount } from './mountpoints.js';
import { leftOver } from './processes.js';

/** nobody, of Debian. */
export const ORDINARY_USER = 65534;

export class Workshop {
  /** Everybody may enter it, since one job mounts as an ordinary user. */
  readonly folder: string;
  /** A folder on a tmpfs, where there is one. */
  readonly memory: string;
  /** Aborted by the signals that end the bench. */
  readonly signal: AbortSignal;
  #count = 0;
  #fuseMode: number | undefined;

  constructor(signal: AbortSignal) {
    this.signal = signal;
    this.folder = mkdtempSync(join(tmpdir(), 'tsnbdfuse-bench-'));
    this.memory = existsSync('/dev/shm')
      ? mkdtempSync('/dev/shm/tsnbdfuse-bench-')
      : join(this.folder, 'memory');
    mkdirSync(this.memory, { recursive: true });
    chmodSync(this.folder, 0o755);
  }

  /** A new folder in it; of the ordinary user, when he is to work there. */
  newFolder(name: string, forUser = false): string {
    const folder = join(this.folder, `${name}-${++this.#count}`);
    mkdirSync(folder);
    if (forUser) chownSync(folder, ORDINARY_USER, ORDINARY_USER);
    return folder;
  }

  /** Lets everybody open /dev/fuse until the end of the bench, as a machine with udev does. */
  openFuseToAll(): void {
    const mode = statSync('/dev/fuse').mode & 0o7777;
    if ((mode & 0o006) === 0o006) return;
    this.#fuseMode ??= mode;
    chmodSync('/dev/fuse', 0o666);
  }

  /** Removes everything. Returns what was left, which should be nothing. */
  async close(): Promise<string[]> {
    const problems: string[] = [];
    for (const { path } of mountsBelow(this.folder).toReversed()) {
      problems.push(`still mounted: ${path}`);
      await unmount(path).catch((error: unknown) => problems.push((error as Error).message));
    }
    for (const { pid, command } of leftOver()) {
      problems.push(`still running: ${pid} ${command}`);
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended by now.
      }
    }
    if (this.#fuseMode !== undefined) chmodSync('/dev/fuse', this.#fuseMode);
    for (const folder of [this.folder, this.memory]) {
      rmSync(folder, { recursive: true, force: true });
    }
    return problems;
  }
}
