/** Whether this machine lets us mount; also asked before a server is started for it. */

import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { findProgram } from '../find-program.js';
import { MountError } from './errors.js';

const DEVICE = '/dev/fuse';

/** The set-user-id program that mounts for those who are not root. @throws MountError */
export async function findHelper(): Promise<string> {
  const lookup = await findProgram('fusermount3', process.env['PATH'] ?? '');
  if (lookup.found) return lookup.path;
  throw new MountError(
    `fusermount3 ${lookup.reason}; without it only root can mount (on Debian: apt install fuse3)`,
  );
}

/** @throws MountError */
export async function checkFuse(): Promise<void> {
  try {
    await access(DEVICE, constants.F_OK);
  } catch (error) {
    throw new MountError(
      `${DEVICE} does not exist; load the kernel module with: modprobe fuse (in a container, start it with: --device ${DEVICE} --cap-add SYS_ADMIN)`,
      { cause: error },
    );
  }
  if (process.getuid?.() !== 0) await findHelper();
}
