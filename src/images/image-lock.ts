/**
 * A raw image is locked as QEMU locks its images, so that a virtual machine, qemu-nbd or another mount does not
 * write to it at the same time: for what one does, and for what one does not let others do, there is a byte each
 * at which a shared lock stands (block/file-posix.c of QEMU, from version 2.10 on).
 */

import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { errno, errnoText, errorText } from '../errno.js';
import { native } from '../native.js';
import { ImageAccessError } from './errors.js';

const DOES = 100n;
const DOES_NOT_SHARE = 200n;
/** What there is to do, as the number of its byte. */
const READ = 0n;
const WRITE = 1n;
const RESIZE = 3n;

/** Those of a file system that has no such locks: nobody there is kept away, by QEMU neither. */
const NO_LOCKS: readonly number[] = [errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS];

export interface ImageLock {
  release(): Promise<void>;
}

/**
 * @param shown the image, for messages
 * @throws ImageAccessError where somebody else has it
 */
export async function lockImage(
  path: string,
  shown: string,
  readOnly: boolean,
): Promise<ImageLock> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new ImageAccessError(`cannot read ${shown}: ${errorText(error)}`, error);
  }
  try {
    const does = readOnly ? [READ] : [READ, WRITE];
    const doesNotShare = [WRITE, RESIZE];
    // First ours, and then a look at those of others: of two who come at once, one at least sees the other.
    for (const one of does) await lock(file, DOES + one, shown);
    for (const one of doesNotShare) await lock(file, DOES_NOT_SHARE + one, shown);
    for (const one of doesNotShare) await refuseLocked(file, DOES + one, shown);
    for (const one of does) await refuseLocked(file, DOES_NOT_SHARE + one, shown);
    return { release: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function lock({ fd }: FileHandle, at: bigint, shown: string): Promise<void> {
  const result = -(await native.lockShared(fd, at, 1n));
  if (result > 0 && !NO_LOCKS.includes(result)) {
    throw new ImageAccessError(`${shown} cannot be locked: ${errnoText(result)}`);
  }
}

async function refuseLocked({ fd }: FileHandle, at: bigint, shown: string): Promise<void> {
  if ((await native.isLocked(fd, at, 1n)) === 1) throw new ImageAccessError(inUse(shown));
}

/** A sentence about an image that somebody has locked. */
export const inUse = (shown: string): string =>
  `${shown} is in use: another program, as a virtual machine or another mount, has locked it`;
