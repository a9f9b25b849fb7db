/** A disk, mounted as a file. */

import { open, utimes } from 'node:fs/promises';
import { TOO_LATE, within } from '../deadline.js';
import { checkResult, errno, errnoText } from '../errno.js';
import { fitDisk } from '../disk/fit.js';
import { DiskFile } from '../disk/disk-file.js';
import { readDisk } from '../disk/promises.js';
import type { Disk } from '../disk/disk.js';
import { native } from '../native.js';
import { attach, detach } from './attach.js';
import { OpenFlag } from './constants.js';
import { MountError } from './errors.js';
import { MAX_TRANSFER } from './init.js';
import { checkMountpoint } from './mountpoint.js';
import { tuneMount } from './bdi.js';
import { traceMain } from '../trace.js';
import { OwnFile } from './own-file.js';
import { FuseSession } from './session.js';
import type { FileEnd } from './session.js';

/** How what is written reaches the disk: when the kernel sees fit, at once, or past the page cache. */
export type CacheMode = 'writeback' | 'writethrough' | 'none';

export interface MountOptions {
  readonly readOnly: boolean;
  readonly cache: CacheMode;
  /** Nobody else changes the disk, so that what is cached stays true. */
  readonly exclusive: boolean;
  /** Making a hole in the file trims the disk: see DiskFileOptions. */
  readonly trim?: boolean;
  /** Shown in /proc/mounts. */
  readonly source: string;
  /** For what goes wrong while mounted: one line, without a prefix. */
  readonly warn: (line: string) => void;
}

export interface Mount {
  /**
   * Resolves when the mount is gone, all its requests are answered and a last flush was tried; never
   * rejects.
   */
  readonly ended: Promise<MountEnd>;
  /**
   * Ends the mount. A lazy one is taken out of sight at once and, when what was written is flushed,
   * taken from those who still have the file open.
   * @returns 0 or a negated errno: -EBUSY while a file is open
   */
  unmount(how: { readonly lazy: boolean }): Promise<number>;
}

export interface MountEnd {
  /** Of the last flush, or 0. */
  readonly flushError: number;
  /** Of the first write that the disk refused, or 0. Who wrote it may not have been told. */
  readonly writeError: number;
  /** What ended the mount, if it was not unmounted. */
  readonly error?: Error;
}

/** Milliseconds for the kernel to greet us after the mount. */
const START_DEADLINE = 10_000;
/** Milliseconds for requests that are under way when the mount ends, and for the last flush. */
const END_DEADLINE = 30_000;
/** Milliseconds that a writer past the end waits at the most for the size to be mended. */
const MEND_DEADLINE = 5_000;
/** Owner only: the mount is the owner's as well. */
const PERMISSIONS = 0o600;

/** The unit of the page cache, on all we run on or smaller than theirs. */
const PAGE = 4096n;

/**
 * Shows a disk as a file, over a file that exists.
 * @throws MountError with a message for the user; nothing is left mounted
 */
export async function mountDisk(
  disk: Disk,
  mountpoint: string,
  options: MountOptions,
): Promise<Mount> {
  const path = await checkMountpoint(mountpoint);
  const mount = new DiskMount(disk, path, options);
  await mount.start();
  return mount;
}

class DiskMount implements Mount {
  readonly ended: Promise<MountEnd>;
  readonly #path: string;
  readonly #file: DiskFile;
  readonly #options: MountOptions;
  readonly #resolveEnded: (end: MountEnd) => void;
  #session: FuseSession | undefined;
  /** Undefined before the mount. */
  #ownFile: OwnFile | undefined;
  #ending = false;
  /** The size is being mended, and whether it must be once more. */
  #mending: Promise<void> | undefined;
  #mendAgain = false;
  #warnedOverrun = false;

  constructor(disk: Disk, path: string, options: MountOptions) {
    this.#path = path;
    this.#options = options;
    this.#file = new DiskFile(fitDisk(disk, MAX_TRANSFER), {
      readOnly: options.readOnly,
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
      permissions: PERMISSIONS,
      trim: options.trim === true,
      shared: !options.exclusive,
      writeFailed: (offset, code) => {
        options.warn(
          `writing to ${path} at ${offset.toString()} failed: ${errnoText(code)}; what was to be written there is lost`,
        );
      },
    });
    let resolve: (end: MountEnd) => void = () => undefined;
    this.ended = new Promise((settle) => {
      resolve = settle;
    });
    this.#resolveEnded = resolve;
  }

  async start(): Promise<void> {
    const file = this.#file;
    const { readOnly } = file;
    file.counting = false;
    const writeback = this.#options.cache === 'writeback' && !readOnly;
    const end = writeback ? await this.#readEnd() : undefined;
    const fd = await attach(this.#path, { readOnly, source: this.#options.source });
    try {
      this.#ownFile = await OwnFile.of(this.#path);
      const sizeKnown = await this.#serve(fd, { writeback, openFlags: this.#openFlags() }, end);
      if (!sizeKnown) await this.#mendSize();
      if (!readOnly) await this.#setTimes();
      if (this.#ownFile !== undefined) tuneMount(this.#ownFile.device);
      file.counting = true;
    } catch (error) {
      file.stop();
      await detach(this.#path, true);
      if (this.#session === undefined) native.close(fd);
      else this.#session.close();
      throw error;
    }
  }

  #openFlags(): number {
    if (this.#options.cache === 'none') {
      return OpenFlag.DIRECT_IO | OpenFlag.PARALLEL_DIRECT_WRITES;
    }
    // Without KEEP_CACHE each open starts with nothing cached: it sees what others have written.
    return (this.#options.exclusive ? OpenFlag.KEEP_CACHE : 0) | OpenFlag.PARALLEL_DIRECT_WRITES;
  }

  /** The last page of the file, or what there is of it; undefined where it cannot be read. */
  async #readEnd(): Promise<FileEnd | undefined> {
    const { disk, size } = this.#file;
    const offset = ((size - 1n) / PAGE) * PAGE;
    try {
      return { offset, data: await readDisk(disk, offset, Number(size - offset)) };
    } catch (error) {
      // The mount is of use all the same, perhaps to save what can be read.
      traceMain('the end of the disk cannot be read: %s', error);
      return undefined;
    }
  }

  /** Starts the session and waits until the kernel has greeted us. */
  #serve(
    fd: number,
    protocol: { writeback: boolean; openFlags: number },
    end: FileEnd | undefined,
  ): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new MountError('the kernel did not start the mount within 10 s'));
      }, START_DEADLINE);
      this.#session = new FuseSession(fd, this.#file, protocol, end, {
        started: (sizeKnown) => {
          clearTimeout(timer);
          resolve(sizeKnown);
        },
        overrun: () => this.#overrun(),
        ended: (error) => {
          clearTimeout(timer);
          reject(new MountError(error?.message ?? 'the mount ended before it was of use'));
          void this.#sessionEnded(error);
        },
      });
    });
  }

  /**
   * With writeback the kernel starts the times of a mountpoint at 0 and keeps them itself. Set them
   * as a tool would, from another thread.
   */
  async #setTimes(): Promise<void> {
    const time = new Date();
    await this.#ownFile?.use('setting the times', (path) => utimes(path, time, time));
  }

  async #overrun(): Promise<void> {
    if (!this.#warnedOverrun) {
      this.#warnedOverrun = true;
      this.#options.warn(
        `something was written past the end of ${this.#path}, which has ${this.#file.size.toString()} bytes: no space left on device`,
      );
    }
    await within(this.#mendSize(), MEND_DEADLINE);
  }

  /**
   * Makes the kernel take the true size, by truncating to it, and forget its error: each writer is told
   * by us, and a later program's fsync is not to fail for it.
   */
  #mendSize(): Promise<void> {
    this.#mendAgain = true;
    this.#mending ??= this.#mend();
    return this.#mending;
  }

  async #mend(): Promise<void> {
    while (this.#mendAgain && !this.#ending) {
      this.#mendAgain = false;
      await this.#ownFile?.use('mending the size', async (path) => {
        checkResult(await native.truncate(path, this.#file.size), 'truncate');
        const handle = await open(path, 'r');
        // It fails with the error that is to be forgotten.
        await handle.sync().catch(() => undefined);
        await handle.close();
      });
    }
    this.#mending = undefined;
  }

  async unmount({ lazy }: { readonly lazy: boolean }): Promise<number> {
    const result = await detach(this.#path, lazy);
    // EINVAL: it is not here any more, though another mount namespace may still have it.
    if (lazy && (result === 0 || result === -errno.EINVAL)) void this.#end();
    return result;
  }

  /** The kernel has ended the session: by an unmount, or by force with the mount still in its place. */
  async #sessionEnded(error?: Error): Promise<void> {
    const forced = error === undefined && (await this.#ownFile?.isMounted()) === true;
    const why =
      'the kernel ended the connection (umount -f, or its abort file); what was not written is lost';
    await this.#end(forced ? new Error(why) : error);
  }

  /** Everything after the mount is gone: answers, a last flush, and the descriptor. */
  async #end(error?: Error): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    const session = this.#session;
    // Who still has the file open could otherwise keep us busy for ever.
    session?.stop();
    this.#file.stop();
    const answered = new Promise<void>((resolve) => {
      if (session === undefined) resolve();
      else session.protocol.whenIdle(resolve);
    });
    const flushed = answered.then(
      () => new Promise<number>((resolve) => this.#file.sync({ done: resolve })),
    );
    const outcome = await within(flushed, END_DEADLINE);
    const flushError = outcome === TOO_LATE ? errno.ETIMEDOUT : outcome;
    session?.close();
    if (error !== undefined) {
      // The mount is of no more use to anybody; leave none that only says so.
      await detach(this.#path, true);
    }
    const { writeError } = this.#file;
    const end: MountEnd = { flushError, writeError };
    this.#resolveEnded(error === undefined ? end : { ...end, error });
  }
}
