/**
 * Our own mount, as it may be touched: by another thread, since the event loop has to answer what the
 * kernel asks of us meanwhile, and by more than its path. When the mount has left that, it leads to what
 * is underneath, or to what somebody else has mounted there since; neither is ours.
 */

import { constants } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pLimit from 'p-limit';
import { deviceNumbers } from '../device-number.js';
import { errno } from '../errno.js';
import { traceMain } from '../trace.js';
import { native } from '../native.js';
import { UMOUNT_NOFOLLOW, detach } from './attach.js';
import { findMounts, findMountsAside } from './mountpoint.js';
import type { MountEntry } from './mountpoint.js';

/** Opens nothing, and so asks the mount nothing; open(2) has it so on x64 and arm64. */
const O_PATH = 0o10000000;

/** umount2(2). */
const MNT_FORCE = 1;

export class OwnMount {
  /** Of the mountpoint, absolute. */
  readonly path: string;
  /** `major:minor` of the mount. */
  readonly device: string;
  readonly #id: number;
  /**
   * What touches a file waits for the server when the kernel has to write back first. The thread pool has
   * four threads: with a server that hangs, all of them would wait, and none be left to unmount.
   */
  readonly #oneAtATime = pLimit(1);

  private constructor(path: string, { device, id }: MountEntry) {
    this.path = path;
    this.device = device;
    this.#id = id;
  }

  /** To be called right after the mount. @returns undefined if it is gone already */
  static of(path: string): OwnMount | undefined {
    const mount = findMounts(path).at(-1);
    return mount === undefined ? undefined : new OwnMount(path, mount);
  }

  #is({ device, id }: MountEntry): boolean {
    return device === this.device && id === this.#id;
  }

  /** Whether the mount is still in its place, be it under another one. */
  async isMounted(): Promise<boolean> {
    return (await findMountsAside(this.path)).some((mount) => this.#is(mount));
  }

  /** The mount that somebody has put over ours. */
  async cover(): Promise<MountEntry | undefined> {
    const mounts = await findMountsAside(this.path);
    const top = mounts.at(-1);
    const covered = mounts.some((mount) => this.#is(mount)) && top !== undefined && !this.#is(top);
    return covered ? top : undefined;
  }

  /**
   * Ends the mount, and no other one.
   * @param lazy detaches it at once, also while it is in use
   * @returns 0 or a negated errno: -EBUSY while a file is open or another mount covers it, -EINVAL where it
   *   is not there any more
   */
  async detach(lazy: boolean): Promise<number> {
    if (!(await this.isMounted())) return -errno.EINVAL;
    if ((await this.cover()) !== undefined) return -errno.EBUSY;
    return detach(this.path, lazy);
  }

  /**
   * Ends the connection to the kernel by force: all that waits for us in it fails, also in other threads.
   * Never rejects; it may be that it cannot be done.
   */
  async abort(): Promise<void> {
    const minor = this.device.split(':')[1] ?? '';
    try {
      await writeFile(`/sys/fs/fuse/connections/${minor}/abort`, '1');
    } catch (error) {
      traceMain('the connection to the kernel has no abort file: %s', error);
      // As in a container, which seldom has them. The mount stays where somebody uses it.
      if ((await this.isMounted()) && (await this.cover()) === undefined) {
        traceMain('umount -f: %d', await native.umount(this.path, MNT_FORCE | UMOUNT_NOFOLLOW));
      }
    }
  }

  /** Writes back what the page cache has of a file. @returns whether it worked */
  save(name: string): Promise<boolean> {
    return this.use('saving what was written', name, async (path) => {
      const file = await open(path, 'r');
      try {
        await file.sync();
      } finally {
        await file.close();
      }
    });
  }

  /**
   * Does something to a file by a path that leads to it and to nothing else. What fails is traced only.
   * @param name in the directory; empty for a file that is the mountpoint
   * @returns whether it worked
   */
  use(what: string, name: string, run: (path: string) => Promise<unknown>): Promise<boolean> {
    return this.#oneAtATime(async () => {
      try {
        const handle = await open(join(this.path, name), O_PATH | constants.O_NOFOLLOW);
        try {
          const { dev } = await handle.stat({ bigint: true });
          const { major, minor } = deviceNumbers(dev);
          if (`${major}:${minor}` !== this.device) throw new Error('the mount has left its place');
          await run(`/proc/self/fd/${handle.fd}`);
          return true;
        } finally {
          await handle.close();
        }
      } catch (error) {
        traceMain('%s: %s', what, error);
        return false;
      }
    });
  }
}
