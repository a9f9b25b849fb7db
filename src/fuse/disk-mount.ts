/** The life of a mount: made, served, unmounted, and what is left to do after that. */

import { stat, utimes } from 'node:fs/promises';
import { LONGEST_WAIT, TOO_LATE, within } from '../deadline.js';
import { errno, errnoText } from '../errno.js';
import { readDisk } from '../disk/promises.js';
import type { ReadAheadDisk } from '../disk/read-ahead.js';
import type { Disk } from '../disk/disk.js';
import { native } from '../native.js';
import { makeOperations } from '../observe/operations.js';
import { attach, detach } from './attach.js';
import type { Attachment } from './attach.js';
import { OpenFlag } from './constants.js';
import { MountError } from './errors.js';
import { NO_FUSE_OPTIONS, filePermissions } from './mount-options.js';
import type { FuseOptions } from './mount-options.js';
import { inTurn } from './mount-turn.js';
import { mountText, refuseMounted } from './mountpoint.js';
import type { Mountpoint } from './mountpoint.js';
import { canTune, tuneMount } from './bdi.js';
import type { ProtocolOptions } from './protocol.js';
import { traceMain } from '../trace.js';
import { MountedFiles } from './mounted-files.js';
import { OwnMount } from './own-mount.js';
import { FuseSession } from './session.js';
import type { FileEnd } from './session.js';
import { SizeMender } from './size-mender.js';
import type { FileNode } from './tree.js';
import type { Mount, MountEnd, MountOptions } from './mount.js';

/** Milliseconds for the kernel to greet us after the mount. */
const START_DEADLINE = 10_000;
/** Milliseconds: see MountOptions. */
const END_DEADLINE = 30_000;
/** The same after a bug of ours, when it is not known whether any of it still works. */
const CRASH_DEADLINE = 5_000;
/** Milliseconds for what the kernel is being told about its page cache when the mount ends. */
const INVALIDATE_DEADLINE = 5_000;
/** Milliseconds that a writer past the end waits at the most for the size to be mended. */
const MEND_DEADLINE = 5_000;

/** Milliseconds for a small read from which on a server is far, and how long that is waited for. */
const FAR_LATENCY = 4;
const FAR_PATIENCE = 30;

/** The unit of the page cache, on all we run on or smaller than theirs. */
const PAGE = 4096n;

/** Made by `mountDisk`. */
export class DiskMount implements Mount {
  readonly ending: Promise<void>;
  readonly ended: Promise<MountEnd>;
  readonly operations = makeOperations();
  isHidden = false;
  readonly #place: Mountpoint;
  readonly #ahead: ReadAheadDisk | undefined;
  readonly #files: MountedFiles;
  readonly #options: MountOptions;
  readonly #fuse: FuseOptions;
  #resolveEnding: () => void = () => undefined;
  #resolveEnded: (end: MountEnd) => void = () => undefined;
  #attachment: Attachment | undefined;
  #session: FuseSession | undefined;
  /** Undefined before the mount. */
  #own: OwnMount | undefined;
  #mender: SizeMender | undefined;
  #ending = false;
  /** An attempt to unmount, under way. */
  #detaching: Promise<number> | undefined;
  /** Files of which it was said that something was written past their end. */
  readonly #toldOverrun = new WeakSet<FileNode>();

  /**
   * @param disk takes any request
   * @param ahead below it, where there is a page cache
   */
  constructor(
    disk: Disk,
    minimumBlock: number,
    place: Mountpoint,
    options: MountOptions,
    ahead: ReadAheadDisk | undefined,
  ) {
    this.#place = place;
    this.#options = options;
    this.#ahead = ahead;
    const fuse = options.fuse ?? NO_FUSE_OPTIONS;
    this.#fuse = fuse;
    this.#files = new MountedFiles(disk, place, {
      uid: fuse.uid ?? process.getuid?.() ?? 0,
      gid: fuse.gid ?? process.getgid?.() ?? 0,
      permissions: filePermissions(fuse),
      readOnly: options.readOnly || fuse.readOnly,
      trim: options.trim === true,
      shared: !options.exclusive,
      operations: this.operations,
      forgetReadAhead: () => ahead?.forget(),
      partitions: options.partitions === true ? { minimumBlock, warn: options.warn } : undefined,
      writeFailed: (shown, offset, code) => {
        options.warn(
          `writing to ${shown} at ${offset.toString()} failed: ${errnoText(code)}; what was to be written there is lost`,
        );
      },
      isOpen: (node) => this.#session?.protocol.handles.has(node) ?? false,
      invalidate: async (node, offset, length) => {
        await this.#session?.invalidate(node, offset, length);
      },
    });
    this.ending = new Promise((resolve) => {
      this.#resolveEnding = resolve;
    });
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  async start(): Promise<void> {
    const { tree, main } = this.#files;
    const { file } = main;
    const { readOnly, blockSize, size } = file;
    file.counting = false;
    const { path } = this.#place;
    const { isDirectory } = tree;
    await this.#files.load();
    // An empty disk has nothing to write back, nor an end that the kernel could be told of.
    const writeback = this.#options.cache === 'writeback' && !readOnly && size > 0n;
    // A file in a directory has the size that LOOKUP tells.
    const end = writeback && !isDirectory ? await this.#endUnlessAborted() : undefined;
    const far = await this.#isFar();
    const { source, signal } = this.#options;
    const fuse = this.#fuse;
    signal?.throwIfAborted();
    this.#attachment = await inTurn(path, async () => {
      // A while has passed since the mountpoint was looked at.
      await refuseMounted(this.#place);
      signal?.throwIfAborted();
      return attach(path, { readOnly, isDirectory, source, fuse });
    });
    const { fd } = this.#attachment;
    try {
      this.#own = OwnMount.of(path);
      // Where the kernel can be made to read ahead far enough, that costs less.
      const ahead = this.#own === undefined || !canTune(this.#own.device);
      if (ahead || far) this.#ahead?.start({ ahead });
      if (this.#own !== undefined) this.#mender = new SizeMender(this.#own);
      const sizeKnown = await this.#serve(
        fd,
        {
          writeback,
          openFlags: this.#openFlags(),
          denyOthers: fuse.allowRoot ? process.getuid?.() : undefined,
          size,
          blockSize,
          operations: this.operations,
        },
        end,
      );
      if (!sizeKnown) await this.#mender?.mend(main);
      if (!isDirectory) await (readOnly ? this.#tellSize() : this.#setTimes());
      if (this.#own !== undefined) tuneMount(this.#own.device, far);
      signal?.throwIfAborted();
      file.counting = true;
    } catch (error) {
      this.#files.stop();
      // Where it is not known, it was made a moment ago.
      await (this.#own?.detach(true) ?? detach(path, true));
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

  /** A disk need not answer, for which nobody waits any more after the signal. @throws its reason */
  async #endUnlessAborted(): Promise<FileEnd | undefined> {
    const end = await within(this.#readEnd(), LONGEST_WAIT, this.#options.signal);
    return end === TOO_LATE ? undefined : end;
  }

  /** The last page of the file, or what there is of it; undefined where it cannot be read. */
  async #readEnd(): Promise<FileEnd | undefined> {
    const node = this.#files.main;
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

  /** Whether a read takes so long that waiting is most of it. The first one may be slow for other reasons. */
  async #isFar(): Promise<boolean> {
    const { disk, size } = this.#files.main.file;
    for (let attempt = 0; attempt < 2 && size > 0n; attempt++) {
      const start = performance.now();
      // An error is told to whoever reads there.
      const read = readDisk(disk, 0n, Number(size < PAGE ? size : PAGE)).catch(() => undefined);
      await within(read, FAR_PATIENCE);
      if (performance.now() - start < FAR_LATENCY) return false;
    }
    return size > 0n;
  }

  get isEnding(): boolean {
    return this.#ending;
  }

  get size(): bigint {
    return this.#files.main.file.size;
  }

  get readOnly(): boolean {
    return this.#files.main.file.readOnly;
  }

  get inFlight(): Int32Array {
    return this.#session?.protocol.inFlight ?? new Int32Array(1);
  }

  get answered(): number {
    return this.#session?.protocol.answered ?? 0;
  }

  get device(): string | undefined {
    return this.#own?.device;
  }

  /** Starts the session and waits until the kernel has greeted us. */
  #serve(fd: number, protocol: ProtocolOptions, end: FileEnd | undefined): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new MountError('the kernel did not start the mount within 10 s'));
      }, START_DEADLINE);
      this.#session = new FuseSession(fd, this.#files.tree, protocol, end, {
        started: (sizeKnown) => {
          clearTimeout(timer);
          resolve(sizeKnown);
        },
        overrun: (node) => this.#overrun(node),
        synced: () => this.#files.synced(),
        ended: (error) => {
          clearTimeout(timer);
          reject(error ?? new MountError('the mount ended before it was of use'));
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
    await this.#own?.use('setting the times', this.#files.main.name, (path) =>
      utimes(path, time, time),
    );
  }

  /**
   * A file that is the mountpoint is empty to the kernel before it first asks. read(2) asks by itself, splice(2)
   * and sendfile(2) do not.
   */
  async #tellSize(): Promise<void> {
    await this.#own?.use('telling the size', this.#files.main.name, (path) => stat(path));
  }

  async #overrun(node: FileNode): Promise<void> {
    if (!this.#toldOverrun.has(node)) {
      this.#toldOverrun.add(node);
      this.#options.warn(
        `something was written past the end of ${this.#files.shown(node)}, which has ${node.file.size.toString()} bytes: no space left on device`,
      );
    }
    const mended = this.#ending ? undefined : this.#mender?.mend(node);
    if (mended !== undefined) await within(mended, MEND_DEADLINE);
  }

  async unmount({
    lazy,
    patience,
  }: {
    readonly lazy: boolean;
    readonly patience?: number;
  }): Promise<number> {
    if (this.#ending) return -errno.EALREADY;
    const result = (await (lazy ? this.#own?.detach(true) : this.#detach())) ?? -errno.EINVAL;
    // EINVAL: it is not here any more, though another mount namespace may still have it.
    if (lazy && (result === 0 || result === -errno.EINVAL)) void this.#end(undefined, patience);
    return result;
  }

  /** While one attempt waits for what is written back, it is everybody's: each would hold a thread. */
  #detach(): Promise<number> | undefined {
    this.#detaching ??= this.#own?.detach(false).finally(() => {
      this.#detaching = undefined;
    });
    return this.#detaching;
  }

  async hide(): Promise<number> {
    if (this.#ending) return -errno.EALREADY;
    const result = (await this.#own?.detach(true)) ?? -errno.EINVAL;
    if (result === 0) this.isHidden = true;
    return result;
  }

  async isMounted(): Promise<boolean> {
    // Where it cannot be told, it is.
    return (await this.#own?.isMounted().catch(() => true)) ?? false;
  }

  async cover(): Promise<string | undefined> {
    const mount = await this.#own?.cover();
    return mount === undefined ? undefined : mountText(mount);
  }

  async save(): Promise<boolean> {
    const { tree } = this.#files;
    const listed = new Set(tree.entries().map(({ id }) => id));
    let all = true;
    for (const node of tree.files()) {
      const reachable = !tree.isDirectory || listed.has(node.id);
      const saved = reachable ? await this.#own?.save(node.name) : await this.#saveGone(node);
      if (saved !== true) all = false;
    }
    return all;
  }

  /** No path leads to a partition that is gone: its name may be another one's by now. */
  async #saveGone(node: FileNode): Promise<boolean> {
    // What the kernel takes out of its cache it writes back first, and tells nobody of an error.
    const written = await this.#session?.invalidate(node, 0n, node.file.size);
    if (written !== true) return false;
    return (await this.#files.sync(node)) === 0 && this.#files.writeError === 0;
  }

  async abort(): Promise<void> {
    await this.#own?.abort();
    await this.#own?.detach(true);
    void this.#end();
    await this.ended;
    await this.#session?.invalidated();
  }

  /** The kernel has ended the session: by an unmount, or by force with the mount still in its place. */
  async #sessionEnded(error?: Error): Promise<void> {
    const forced = error === undefined && (await this.#own?.isMounted()) === true;
    const why =
      'the kernel ended the connection (umount -f, or its abort file); what was not written is lost';
    await this.#end(forced ? new MountError(why) : error);
  }

  /** Everything after the mount is gone: answers, a last flush, and the descriptor. */
  async #end(error?: Error, patience?: number): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    this.#resolveEnding();
    this.#mender?.stop();
    const session = this.#session;
    // A thread that tells the kernel something may wait for requests that we would not read any more.
    if (session !== undefined) {
      const told = await within(session.invalidated(), INVALIDATE_DEADLINE);
      if (told === TOO_LATE) await this.#own?.abort();
    }
    // Who still has the file open could otherwise keep us busy for ever.
    session?.stop();
    this.#files.stop();
    const answered = new Promise<void>((resolve) => {
      if (session === undefined) resolve();
      else session.protocol.whenIdle(resolve);
    });
    const flushed = answered.then(() => this.#files.syncAll());
    const crashed = error !== undefined && !(error instanceof MountError);
    const deadline = patience ?? this.#options.endDeadline ?? END_DEADLINE;
    const outcome = await within(flushed, crashed ? CRASH_DEADLINE : deadline);
    const flushError = outcome === TOO_LATE ? errno.ETIMEDOUT : outcome;
    session?.close();
    if (error !== undefined) {
      // The mount is of no more use to anybody; leave none that only says so.
      await this.#own?.detach(true);
    }
    await this.#attachment?.release();
    const { writeError } = this.#files;
    const end: MountEnd = { flushError, writeError };
    this.#resolveEnded(error === undefined ? end : { ...end, error });
  }
}
