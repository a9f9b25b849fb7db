/** The bytes of an image, looked at before any server opens it. */

import { constants } from 'node:fs';
import type { BigIntStats } from 'node:fs';
import { access, open, realpath, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { resolve } from 'node:path';
import { errorText } from '../errno.js';
import { SEEK_END } from '../linux.js';
import { native } from '../native.js';
import { ImageAccessError, ImageError, MissingImageError } from './errors.js';

/** A name for a file that does not change while others come and go at its path. */
export type Identity = `${bigint}:${bigint}`;

/** @throws ImageError */
export async function identify(path: string, shown: string): Promise<Identity> {
  const { dev, ino } = await look(path, shown);
  return `${dev}:${ino}`;
}

async function look(path: string, shown: string): Promise<BigIntStats> {
  try {
    return await stat(path, { bigint: true });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new MissingImageError(shown, error);
    throw new ImageAccessError(`cannot look at ${shown}: ${errorText(error)}`, error);
  }
}

export class ImageFile {
  /** Absolute, but not free of symbolic links: what the image names is relative to where the user sees it. */
  readonly path: string;
  /** For messages. */
  readonly shown: string;
  readonly isDevice: boolean;
  readonly identity: Identity;
  /** Bytes. */
  readonly size: number;
  readonly #handle: FileHandle;

  private constructor(shown: string, stats: BigIntStats, size: number, handle: FileHandle) {
    this.path = resolve(shown);
    this.shown = shown;
    this.isDevice = stats.isBlockDevice();
    this.identity = `${stats.dev}:${stats.ino}`;
    this.size = size;
    this.#handle = handle;
  }

  /** @param shown the path, as messages have it. @throws ImageError for what is neither a file nor a block device */
  static async open(shown: string): Promise<ImageFile> {
    const path = resolve(shown);
    // Before it is opened: to open a tape or a FIFO does something by itself.
    checkKind(await look(path, shown), shown);
    let handle: FileHandle;
    try {
      // What has become a FIFO since is not waited for.
      handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      throw new ImageAccessError(`cannot read ${shown}: ${errorText(error)}`, error);
    }
    try {
      const stats = await handle.stat({ bigint: true });
      checkKind(stats, shown);
      const size = stats.isBlockDevice() ? await native.lseek(handle.fd, 0n, SEEK_END) : stats.size;
      if (size <= 0n) {
        throw new ImageError(
          `${shown} is empty, and no disk image; the mountpoint stands before the image`,
        );
      }
      return new ImageFile(shown, stats, Number(size), handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /**
   * Fewer bytes than asked for where the file ends.
   * @param offset bytes, from the end of the file where it is negative
   * @throws ImageError
   */
  async read(offset: number, length: number): Promise<Buffer> {
    const start = offset < 0 ? Math.max(0, this.size + offset) : offset;
    const left = Math.min(length, Math.max(0, this.size - start));
    const bytes = Buffer.alloc(left);
    let filled = 0;
    while (filled < left) {
      const got = await this.#readOnce(bytes, filled, start + filled);
      if (got === 0) break;
      filled += got;
    }
    return bytes.subarray(0, filled);
  }

  async #readOnce(bytes: Buffer, at: number, position: number): Promise<number> {
    try {
      return (await this.#handle.read(bytes, at, bytes.length - at, position)).bytesRead;
    } catch (error) {
      throw new ImageAccessError(`cannot read ${this.shown}: ${errorText(error)}`, error);
    }
  }

  /** @throws ImageError */
  async checkWritable(): Promise<void> {
    try {
      await access(this.path, constants.W_OK);
    } catch (error) {
      throw new ImageAccessError(
        `${this.shown} cannot be written: ${errorText(error)}; add -r to read only`,
        error,
      );
    }
  }

  /** The path without symbolic links. */
  realPath(): Promise<string> {
    return realpath(this.path);
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

function checkKind(stats: BigIntStats, shown: string): void {
  if (stats.isFile() || stats.isBlockDevice()) return;
  throw new ImageError(
    stats.isDirectory()
      ? `${shown} is a directory, and no disk image`
      : `${shown} is neither a regular file nor a block device, and no disk image`,
  );
}
