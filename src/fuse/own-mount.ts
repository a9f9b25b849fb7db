/**
 * The files of our own mount, as another thread may touch them. The path alone is not enough: when the
 * mount has left it, it leads to what is underneath, which is the user's.
 */

import { constants } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { deviceNumbers } from '../device-number.js';
import { traceMain } from '../trace.js';
import { findMount } from './mountpoint.js';

/** Opens nothing, and so asks the mount nothing; open(2) has it so on x64 and arm64. */
const O_PATH = 0o10000000;

export class OwnMount {
  /** Of the mountpoint, absolute. */
  readonly path: string;
  /** `major:minor` of the mount. */
  readonly device: string;

  private constructor(path: string, device: string) {
    this.path = path;
    this.device = device;
  }

  /** To be called right after the mount. @returns undefined if it is gone already */
  static async of(path: string): Promise<OwnMount | undefined> {
    const mount = await findMount(path);
    return mount === undefined ? undefined : new OwnMount(path, mount.device);
  }

  /** Whether the mount is still in its place. */
  async isMounted(): Promise<boolean> {
    return (await findMount(this.path))?.device === this.device;
  }

  /** Ends the connection to the kernel by force: all that waits for us in it fails, also in other threads. */
  async abort(): Promise<void> {
    const minor = this.device.split(':')[1] ?? '';
    try {
      await writeFile(`/sys/fs/fuse/connections/${minor}/abort`, '1');
    } catch (error) {
      traceMain('the connection to the kernel cannot be ended: %s', error);
    }
  }

  /**
   * Does something to a file by a path that leads to it and to nothing else. All of it runs on the
   * thread pool, since the event loop has to answer what the kernel asks of us meanwhile. What fails is
   * traced only.
   * @param name in the directory; empty for a file that is the mountpoint
   */
  async use(what: string, name: string, run: (path: string) => Promise<unknown>): Promise<void> {
    try {
      const handle = await open(join(this.path, name), O_PATH | constants.O_NOFOLLOW);
      try {
        const { dev } = await handle.stat({ bigint: true });
        const { major, minor } = deviceNumbers(dev);
        if (`${major}:${minor}` !== this.device) throw new Error('the mount has left its place');
        await run(`/proc/self/fd/${handle.fd}`);
      } finally {
        await handle.close();
      }
    } catch (error) {
      traceMain('%s: %s', what, error);
    }
  }
}
