/** The life of a mount on /dev/fuse: reads requests while there is room for them, and sends replies. */

import { write } from 'node:fs';
import pLimit from 'p-limit';
import { errno, errnoName } from '../errno.js';
import { READABLE, native } from '../native.js';
import type { PollWatcher } from '../native.js';
import { traceFuse } from '../trace.js';
import { WRITE_DATA_AT } from './constants.js';
import { MountError } from './errors.js';
import { MAX_TRANSFER } from './init.js';
import { FuseProtocol } from './protocol.js';
import type { ProtocolOptions } from './protocol.js';
import { RequestArena } from './request-arena.js';
import type { FileNode, Tree } from './tree.js';

/** The kernel refuses to be read with less room than this. A page more than the header needs, as libfuse has it. */
const LARGEST_REQUEST = MAX_TRANSFER + WRITE_DATA_AT + 4096;
/** Bound on the memory of requests that wait for the disk. */
const REQUEST_MEMORY = 14 * 1024 * 1024;
/** How many requests are read at once before others get their turn. */
const REQUESTS_PER_WAKE = 64;

/** The end of a file, which makes the kernel know its size; see `FuseProtocol.notifyStore`. */
export interface FileEnd {
  readonly node: FileNode;
  readonly offset: bigint;
  readonly data: Buffer;
}

export interface SessionEvents {
  /**
   * The mount is of use.
   * @param sizeKnown false if the kernel with its page cache written back may not know the file's size
   */
  started(sizeKnown: boolean): void;
  overrun(node: FileNode): Promise<void>;
  synced(): Promise<unknown> | undefined;
  /** The mount is gone. @param error what went wrong, if it did not just end: a MountError, or a bug of ours */
  ended(error?: Error): void;
}

export class FuseSession {
  readonly protocol: FuseProtocol;
  readonly #fd: number;
  readonly #watcher: PollWatcher;
  readonly #arena: RequestArena;
  readonly #events: SessionEvents;
  readonly #invalidations = new Set<Promise<unknown>>();
  /** Not more of the thread pool: see OwnMount. */
  readonly #oneAtATime = pLimit(1);
  #stopping = false;
  #over = false;
  #closed = false;

  /**
   * @param fd of /dev/fuse, mounted; owned from now on
   * @param end of a file that is the mountpoint, where the page cache is to be written back
   */
  constructor(
    fd: number,
    tree: Tree,
    options: ProtocolOptions,
    end: FileEnd | undefined,
    events: SessionEvents,
  ) {
    this.#fd = fd;
    this.#events = events;
    this.#arena = new RequestArena(LARGEST_REQUEST, REQUEST_MEMORY, () => this.#watch());
    this.protocol = new FuseProtocol(tree, options, this.#arena, {
      send: (bytes, start, length) => this.#send(bytes, start, length),
      started: ({ writeback }) => {
        // Before any other request is answered, so that nobody ever sees an empty file.
        const stored =
          end === undefined
            ? -errno.ENODATA
            : this.protocol.notifyStore(end.node, end.offset, end.data);
        events.started(!writeback || tree.isDirectory || stored >= 0);
      },
      overrun: (node) => events.overrun(node),
      synced: () => events.synced(),
    });
    this.#watcher = new native.PollWatcher(fd, (status) => {
      this.#readable();
      // An error state stops the watcher. Where reading did not tell of it, go on.
      if (status < 0) this.#watch();
    });
    this.#watch();
  }

  #watch(): void {
    if (!this.#over) this.#watcher.start(READABLE);
  }

  #readable(): void {
    this.protocol.receivedAt = performance.now();
    for (let i = 0; i < REQUESTS_PER_WAKE; i++) {
      // A request may have led to the end.
      if (this.#over) return;
      const slab = this.#arena.next();
      if (slab === undefined) {
        // The arena calls when some requests have been answered.
        this.#watcher.stop();
        return;
      }
      const count = native.read(this.#fd, slab.bytes, slab.used, LARGEST_REQUEST);
      if (count > 0) {
        try {
          this.protocol.handle(slab, count);
        } catch (error) {
          this.#end(error instanceof Error ? error : new Error(String(error)));
          return;
        }
      } else if (count === -errno.EAGAIN) {
        return;
      } else if (count === -errno.ENODEV) {
        this.#end();
        return;
      } else if (count !== -errno.ENOENT && count !== -errno.EINTR) {
        // ENOENT: a request was interrupted before we read it.
        this.#end(new MountError(`reading /dev/fuse failed: ${errnoName(-count)}`));
        return;
      }
    }
  }

  #send(bytes: Buffer, start: number, length: number): number {
    if (this.#closed) return -errno.ENODEV;
    const result = native.write(this.#fd, bytes, start, length);
    // ENOENT: the one who asked was killed and waits no more. ENODEV: the mount is gone.
    if (result < 0 && result !== -errno.ENOENT && result !== -errno.ENODEV) {
      traceFuse('the kernel refused a message of %d bytes: %s', length, errnoName(-result));
    }
    return result;
  }

  /**
   * Takes a range of a file out of the page cache. The kernel may ask us meanwhile, so that it is told by
   * another thread; and over a descriptor of its own, whose number is not used again before that is over.
   * Never rejects.
   * @returns whether it is out, and what was dirty is written back
   */
  invalidate(node: FileNode, offset: bigint, length: bigint): Promise<boolean> {
    const done = this.#oneAtATime(() => this.#tell(node, offset, length)).finally(() =>
      this.#invalidations.delete(done),
    );
    this.#invalidations.add(done);
    return done;
  }

  #tell(node: FileNode, offset: bigint, length: bigint): Promise<boolean> {
    const fd = this.#stopping ? -1 : native.dup(this.#fd);
    if (fd < 0) return Promise.resolve(false);
    const message = this.protocol.invalidation(node, offset, length);
    return new Promise((resolve) => {
      write(fd, message, (error) => {
        // ENOENT: the kernel does not know the file, and so has nothing of it.
        if (error !== null) traceFuse('invalidating %s: %s', node.name, error.message);
        native.close(fd);
        resolve(error === null || error.code === 'ENOENT');
      });
    });
  }

  /** Resolves when the kernel has taken all that `invalidate` has told it. */
  async invalidated(): Promise<void> {
    await Promise.all(this.#invalidations);
  }

  #end(error?: Error): void {
    if (this.#over) return;
    this.#readNoMore();
    this.#events.ended(error);
  }

  #readNoMore(): void {
    this.#stopping = true;
    this.#over = true;
    this.#watcher.close();
  }

  /**
   * Reads no more; replies to what was read still go out. As long as a thread of ours tells the kernel
   * something, however, it may wait for a request that is not read yet: it would for ever, and with it the
   * end of the process. May be called twice.
   */
  stop(): void {
    if (this.#over) return;
    this.#stopping = true;
    if (this.#invalidations.size === 0) this.#readNoMore();
    else void this.invalidated().then(() => this.stop());
  }

  /** To the kernel that is the end of the mount, when nothing is being told it. May be called twice. */
  close(): void {
    this.stop();
    if (this.#invalidations.size > 0) {
      void this.invalidated().then(() => this.close());
      return;
    }
    if (this.#closed) return;
    this.#closed = true;
    native.close(this.#fd);
  }
}
