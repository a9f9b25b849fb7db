/** The folder that holds the socket of a captive server, which nobody else can enter. */

import { constants, rmSync } from 'node:fs';
import { access, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errorText } from '../errno.js';
import { CommandError } from './errors.js';

/** A socket's path holds 108 bytes, the last of which is 0 (unix(7)). */
export const MAX_SOCKET_PATH = 107;
const SOCKET_NAME = 'socket';
const RANDOM_SUFFIX = 6;

export class PrivateDirectory {
  readonly socketPath: string;

  private constructor(readonly path: string) {
    this.socketPath = join(path, SOCKET_NAME);
  }

  /**
   * Makes one, with mode 0700.
   * @throws CommandError
   */
  static async create(env: NodeJS.ProcessEnv = process.env): Promise<PrivateDirectory> {
    const places = [env['XDG_RUNTIME_DIR'] ?? '', tmpdir(), '/tmp'];
    const problems: string[] = [];
    for (const place of places) {
      if (!place.startsWith('/')) continue;
      const prefix = join(place, 'tsnbdfuse-');
      const length = Buffer.byteLength(prefix) + RANDOM_SUFFIX + 1 + SOCKET_NAME.length;
      if (length > MAX_SOCKET_PATH) {
        problems.push(`${place}: too long a path for a socket`);
        continue;
      }
      try {
        await access(place, constants.W_OK | constants.X_OK);
        return new PrivateDirectory(await mkdtemp(prefix));
      } catch (error) {
        problems.push(`${place}: ${errorText(error)}`);
      }
    }
    throw new CommandError(
      `no directory for the socket of the server can be made (${problems.join('; ')})`,
      { failure: 'unreachable' },
    );
  }

  /** Removes it with what is in it; synchronous, so that no path out of the process skips it. */
  remove(): void {
    try {
      rmSync(this.path, { recursive: true, force: true });
    } catch {
      // Somebody else removed the parent, or took the right to it; nothing is left to do here.
    }
  }
}
