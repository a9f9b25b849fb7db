/** A regular file or a block device as a disk. All I/O that may wait is done off the event loop. */

import { close, constants, fstat, open, stat, statfs } from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { promisify } from 'node:util';
import type { DiskInfo } from '../../disk/disk.js';
import { ErrnoError } from '../../errno.js';
import { SEEK_END } from '../../linux.js';
import { native } from '../../native.js';
import { DEFAULT_MAX_PAYLOAD } from '../../nbd/constants.js';
import { blockDeviceQueue } from './block-device.js';
import { FileDisk } from './file-disk.js';
import { PluginError } from './index.js';
import type { PluginOptions } from './index.js';

/** statfs(2). */
const TMPFS_MAGIC = 0x01021994;

/** Positions beyond it could not be told to fs.write exactly. */
const MAX_FILE_SIZE = BigInt(Number.MAX_SAFE_INTEGER);

/** @throws PluginError */
export async function openFile(path: string, { readOnly }: PluginOptions): Promise<FileDisk> {
  if (path === '') throw new PluginError('the name of the file is empty');
  // Before it is opened: to open a tape or a FIFO does something by itself.
  checkKind(path, await statOf(path));
  let fd: number;
  try {
    fd = await promisify(open)(path, readOnly ? constants.O_RDONLY : constants.O_RDWR);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (!readOnly && ['EACCES', 'EPERM', 'EROFS', 'ETXTBSY'].includes(code)) {
      throw new PluginError(`${path} cannot be written (${code}); serve it read-only with -r`, {
        cause: error,
      });
    }
    throw new PluginError(`cannot open ${path}: ${code}`, { cause: error });
  }
  try {
    const info = await describe(fd, path, readOnly);
    return new FileDisk(fd, info, { inMemory: await isInMemory(fd) });
  } catch (error) {
    close(fd, () => undefined);
    throw error;
  }
}

async function statOf(path: string): Promise<BigIntStats> {
  try {
    return await promisify(stat)(path, { bigint: true });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    throw new PluginError(
      code === 'ENOENT' ? `${path} does not exist` : `cannot look at ${path}: ${code}`,
      { cause: error },
    );
  }
}

/**
 * Whether it is a file whose file system has no disk below it. One that cannot be asked has. A block device
 * stands in a file system of that kind as well, which says nothing of where its bytes are.
 */
export async function isInMemory(fd: number): Promise<boolean> {
  try {
    const stats = await promisify(fstat)(fd);
    const { type } = await promisify(statfs)(`/proc/self/fd/${fd}`);
    return stats.isFile() && type === TMPFS_MAGIC;
  } catch {
    return false;
  }
}

function checkKind(path: string, stats: BigIntStats): void {
  if (stats.isDirectory()) throw new PluginError(`${path} is a directory`);
  if (!stats.isFile() && !stats.isBlockDevice()) {
    throw new PluginError(`${path} is neither a regular file nor a block device`);
  }
}

async function describe(fd: number, path: string, readOnly: boolean): Promise<DiskInfo> {
  const stats = await promisify(fstat)(fd, { bigint: true });
  checkKind(path, stats);
  const isDevice = stats.isBlockDevice();
  const size = isDevice ? await native.lseek(fd, 0n, SEEK_END) : stats.size;
  if (size < 0n) throw new ErrnoError(-Number(size), `size of ${path}`);
  if (size > MAX_FILE_SIZE) throw new PluginError(`${path} is over 8 PiB, which is too large`);
  const queue = isDevice
    ? await blockDeviceQueue(stats.rdev)
    : { logicalBlock: 1, rotational: false };
  return {
    size,
    readOnly,
    canFlush: true,
    // The server flushes after the write: fdatasync is all there is.
    canFua: false,
    canTrim: true,
    canZero: true,
    canExtents: !isDevice,
    // All clients share one descriptor, and the system's one cache.
    canMultiConn: true,
    rotational: queue.rotational,
    limits: {
      minimum: queue.logicalBlock,
      preferred: Math.max(4096, queue.logicalBlock),
      maximum: DEFAULT_MAX_PAYLOAD,
    },
  };
}
