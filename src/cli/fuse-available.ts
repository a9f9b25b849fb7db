/** Whether this machine lets us mount, asked before a server is started for it. */

import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { MountError } from '../fuse/errors.js';
import { findProgram } from './find-program.js';

const DEVICE = '/dev/fuse';

/** @throws MountError */
export async function checkFuse(env: NodeJS.ProcessEnv = process.env): Promise<void> {
  try {
    await access(DEVICE, constants.F_OK);
  } catch (error) {
    throw new MountError(
      `${DEVICE} does not exist; load the kernel module with: modprobe fuse (in a container, start it with: --device ${DEVICE} --cap-add SYS_ADMIN)`,
      { cause: error },
    );
  }
  if (process.getuid?.() === 0) return;
  const lookup = await findProgram('fusermount3', env['PATH'] ?? '');
  if (!lookup.found) {
    throw new MountError(
      `fusermount3 ${lookup.reason}; without it only root can mount (on Debian: apt install fuse3)`,
    );
  }
}
