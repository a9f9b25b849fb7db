/** A disk, mounted as a file. */

import { utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { TOO_LATE, within } from '../deadline.js';
import { errno, errnoText } from '../errno.js';
import { fitDisk } from '../disk/fit.js';
import { DiskFile } from '../disk/disk-file.js';
import { readDisk } from '../disk/promises.js';
import type { Disk } from '../disk/disk.js';
import { native } from '../native.js';
import { attach, detach } from './attach.js';
import type { Attachment } from './attach.js';
import { OpenFlag } from './constants.js';
import { MountError } from './errors.js';
import { MAX_TRANSFER } from './init.js';
import { NO_FUSE_OPTIONS, filePermissions } from './mount-options.js';
import type { FuseOptions } from './mount-options.js';
import { checkMountpoint } from './mountpoint.js';
import type { Mountpoint } from './mountpoint.js';
import { tuneMount } from './bdi.js';
import type { ProtocolOptions } from './protocol.js';
import { traceMain } from '../trace.js';
import { OwnMount } from './own-mount.js';
import { FuseSession } from './session.js';
import type { FileEnd } from './session.js';
import { SizeMender } from './size-mender.js';
import { Tree } from './tree.js';
import type { FileNode } from './tree.js';

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
  /** The options of -o, where there are any. */
  readonly fuse?: FuseOptions | undefined;
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

/** The unit of the page cache, on all we run on or smaller than theirs. */
const PAGE = 4096n;

/**
 * Shows a disk as a file: over a file that exists, or in a directory.
 * @param mountpoint a path, or what `checkMountpoint` found out about it
 * @throws MountError with a message for the user; nothing is left mounted
 */
export async function mountDisk(
  disk: Disk,
  mountpoint: string | Mountpoint,
  options: MountOptions,
): Promise<Mount> {
  const place = typeof mountpoint === 'string' ? await checkMountpoint(mountpoint) : mountpoint;
  const mount = new DiskMount(disk, place, options);
  await mount.start();
  return mount;
}

class DiskMount implements Mount {
  readonly ended: Promise<MountEnd>;
  readonly #place: Mountpoint;
  readonly #disk: Disk;
  readonly #tree: Tree;
  readonly #main: FileNode;
  readonly #options: MountOptions;
  readonly #fuse: FuseOptions;
  readonly #resolveEnded: (end: MountEnd) => void;
  #attachment: Attachment | undefined;
  #session: FuseSession | undefined;
  /** Undefined before the mount. */
  #own: OwnMount | undefined;
  readonly #menders = new Map<FileNode, SizeMender>();
  #ending = false;
  #warnedOverrun = false;

  constructor(disk: Disk, place: Mountpoint, options: MountOptions) {
    this.#place = place;
    this.#options = options;
    const fuse = options.fuse ?? NO_FUSE_OPTIONS;
    this.#fuse = fuse;
    this.#disk = fitDisk(disk, MAX_TRANSFER);
    const owner = {
      uid: fuse.uid ?? process.getuid?.() ?? 0,
      gid: fuse.gid ?? process.getgid?.() ?? 0,
      permissions: filePermissions(fuse),
    };
    const file = new DiskFile(this.#disk, {
      ...owner,
      readOnly: options.readOnly || fuse.readOnly,
      trim: options.trim === true,
      shared: !options.exclusive,
      writeFailed: (offset, code) => {
        options.warn(
          `writing to ${place.shownFile} at ${offset.toString()} failed: ${errnoText(code)}; what was to be written there is lost`,
        );
      },
    });
    if (place.name === undefined) {
      const { tree, node } = Tree.ofFile(file);
      this.#tree = tree;
      this.#main = node;
    } else {
      this.#tree = Tree.ofDirectory(owner);
      this.#main = this.#tree.add(place.name, file);
    }
    let resolve: (end: MountEnd) => void = () => undefined;
    this.ended = new Promise((settle) => {
      resolve = settle;
    });
    this.#resolveEnded = resolve;
  }

  async start(): Promise<void> {
    const { file } = this.#main;
    const { readOnly, blockSize, size } = file;
    file.counting = false;
    const { path } = this.#place;
    const isDirectory = this.#tree.isDirectory;
    // An empty disk has nothing to write back, nor an end that the kernel could be told of.
    const writeback = this.#options.cache === 'writeback' && !readOnly && size > 0n;
    // A file in a directory has the size that LOOKUP tells.
    const end = writeback && !isDirectory ? await this.#readEnd() : undefined;
    const { source } = this.#options;
    const fuse = this.#fuse;
    this.#attachment = await attach(path, { readOnly, isDirectory, source, fuse });
    const { fd } = this.#attachment;
    try {
      this.#own = await OwnMount.of(path);
      const sizeKnown = await this.#serve(
        fd,
        {
          writeback,
          openFlags: this.#openFlags(),
          denyOthers: fuse.allowRoot ? process.getuid?.() : undefined,
          size,
          blockSize,
        },
        end,
      );
      if (!sizeKnown) await this.#mender(this.#main)?.mend();
      if (!readOnly && !isDirectory) await this.#setTimes();
      if (this.#own !== undefined) tuneMount(this.#own.device);
      file.counting = true;
    } catch (error) {
      this.#stopFiles();
      await detach(path, true);
      if (this.#session === undefined) native.close(fd);
      else this.#session.close();
      await this.#attachment.release();
      throw error;
    }
  }

  #openFlags(): number {
    if (this.#options.cache === 'none') {
      return OpenFlag.DIRECT_IO | OpenFlag.PARALLEL_DIRECT_WRITES;
    }
    // Without KEEP_CACHE each open starts with nothing cached: it sees what others have written.
    const keep = this.#options.exclusive || this.#fuse.kernelCache;
    return (keep ? OpenFlag.KEEP_CACHE : 0) | OpenFlag.PARALLEL_DIRECT_WRITES;
  }

  /** The last page of the file, or what there is of it; undefined where it cannot be read. */
  async #readEnd(): Promise<FileEnd | undefined> {
    const node = this.#main;
    const { disk, size } = node.file;
    const offset = ((size - 1n) / PAGE) * PAGE;
    try {
      return { node, offset, data: await readDisk(disk, offset, Number(size - offset)) };
    } catch (error) {
      // The mount is of use all the same, perhaps to save what can be read.
      traceMain('the end of the disk cannot be read: %s', error);
      return undefined;
    }
  }

  /** Starts the session and waits until the kernel has greeted us. */
  #serve(fd: number, protocol: ProtocolOptions, end: FileEnd | undefined): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new MountError('the kernel did not start the mount within 10 s'));
      }, START_DEADLINE);
      this.#session = new FuseSession(fd, this.#tree, protocol, end, {
        started: (sizeKnown) => {
          clearTimeout(timer);
          resolve(sizeKnown);
        },
        overrun: (node) => this.#overrun(node),
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
    await this.#own?.use('setting the times', this.#main.name, (path) => utimes(path, time, time));
  }

  /** As the user would write it. */
  #shownFile(node: FileNode): string {
    return node.name === '' ? this.#place.shownFile : join(this.#place.shown, node.name);
  }

  async #overrun(node: FileNode): Promise<void> {
    if (!this.#warnedOverrun) {
      this.#warnedOverrun = true;
      this.#options.warn(
        `something was written past the end of ${this.#shownFile(node)}, which has ${node.file.size.toString()} bytes: no space left on device`,
      );
    }
    const mended = this.#mender(node)?.mend();
    if (mended !== undefined) await within(mended, MEND_DEADLINE);
  }

  #mender(node: FileNode): SizeMender | undefined {
    if (this.#own === undefined || this.#ending) return undefined;
    const mender = this.#menders.get(node) ?? new SizeMender(node, this.#own);
    this.#menders.set(node, mender);
    return mender;
  }

  /** They ask the disk nothing more by themselves. */
  #stopFiles(): void {
    for (const { file } of this.#tree.files()) file.stop();
  }

  async unmount({ lazy }: { readonly lazy: boolean }): Promise<number> {
    const result = await detach(this.#place.path, lazy);
    // EINVAL: it is not here any more, though another mount namespace may still have it.
    if (lazy && (result === 0 || result === -errno.EINVAL)) void this.#end();
    return result;
  }

  /** The kernel has ended the session: by an unmount, or by force with the mount still in its place. */
  async #sessionEnded(error?: Error): Promise<void> {
    const forced = error === undefined && (await this.#own?.isMounted()) === true;
    const why =
      'the kernel ended the connection (umount -f, or its abort file); what was not written is lost';
    await this.#end(forced ? new Error(why) : error);
  }

  /** Everything after the mount is gone: answers, a last flush, and the descriptor. */
  async #end(error?: Error): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    for (const mender of this.#menders.values()) mender.stop();
    const session = this.#session;
    // Who still has the file open could otherwise keep us busy for ever.
    session?.stop();
    this.#stopFiles();
    const answered = new Promise<void>((resolve) => {
      if (session === undefined) resolve();
      else session.protocol.whenIdle(resolve);
    });
    const files = this.#tree.files().map(({ file }) => file);
    const flushed = answered.then(() => syncAll(files));
    const outcome = await within(flushed, END_DEADLINE);
    const flushError = outcome === TOO_LATE ? errno.ETIMEDOUT : outcome;
    session?.close();
    if (error !== undefined) {
      // The mount is of no more use to anybody; leave none that only says so.
      await detach(this.#place.path, true);
    }
    await this.#attachment?.release();
    const writeError = files.find((file) => file.writeError !== 0)?.writeError ?? 0;
    const end: MountEnd = { flushError, writeError };
    this.#resolveEnded(error === undefined ? end : { ...end, error });
  }
}

/** @returns the first error, or 0 */
async function syncAll(files: readonly DiskFile[]): Promise<number> {
  const codes = await Promise.all(
    files.map((file) => new Promise<number>((resolve) => file.sync({ done: resolve }))),
  );
  return codes.find((code) => code !== 0) ?? 0;
}
