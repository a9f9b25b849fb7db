/**
 * The typed loader of the addon in native-bindings/: system calls, and nothing else.
 *
 * Every call gives a result that is 0 or more, or the negated errno; nothing throws but a call with
 * arguments of the wrong type or outside their buffer, which is a bug of the caller. Descriptors made
 * here are close-on-exec and, for sockets and /dev/fuse, non-blocking.
 */

import { createRequire } from 'node:module';
import { AddonError, findAddon } from './addon.js';

/** Events of a PollWatcher; the values are libuv's. */
export const READABLE = 1;
export const WRITABLE = 2;

/** Watches one descriptor, which it does not own: close the watcher first, then the descriptor. */
export interface PollWatcher {
  /** Watches for these events from now on, in place of those before. Holds the event loop open. */
  start(events: number): void;
  stop(): void;
  /** Stops for good. May be called twice. */
  close(): void;
}

export interface Native {
  /**
   * @param fd becomes non-blocking; only one started watcher of a thread may have it
   * @param callback gets 0 and the events, or a negative errno and 0 when the descriptor is in an
   *   error state, where a read or a write tells which one; the watcher is stopped then
   * @throws Error with a `code`: EBADF, EPERM for what cannot be polled, EEXIST
   */
  PollWatcher: new (fd: number, callback: (status: number, events: number) => void) => PollWatcher;

  /**
   * From now on the event loop of this thread looks for events for a moment before it sleeps, as long as
   * its sleeps are short; see busy-poll.c. Once for each thread.
   * @param microseconds how long at most
   * @param inFlight its first element is looked at each time: how many requests are under way
   * @param most with more of them it sleeps at once, as there is enough to be done by others
   */
  busyPoll(microseconds: number, inFlight: Int32Array, most: number): number;

  read(fd: number, bytes: Uint8Array, start: number, length: number): number;
  write(fd: number, bytes: Uint8Array, start: number, length: number): number;
  /**
   * Gathered forms. Part i is `ranges[2i + 1]` bytes of `buffers[i]` from `ranges[2i]` on.
   * @param count how many parts, from `first` on; 1 to 1024
   */
  readv(
    fd: number,
    buffers: readonly Uint8Array[],
    ranges: Uint32Array,
    first: number,
    count: number,
  ): number;
  /** As `readv`. A write to a closed socket gives -EPIPE; no signal is raised. */
  writev(
    fd: number,
    buffers: readonly Uint8Array[],
    ranges: Uint32Array,
    first: number,
    count: number,
  ): number;
  close(fd: number): number;
  /** For descriptors that we inherited. */
  setNonblocking(fd: number, on: boolean): number;
  setCloseOnExec(fd: number, on: boolean): number;
  /** A copy of a descriptor, close-on-exec. */
  dup(fd: number): number;
  /** Puts a copy in the place of another descriptor, which is closed; not close-on-exec. */
  dup2(fd: number, target: number): number;

  /** Makes us the leader of a new session, without a terminal. -EPERM where we lead a process group. */
  setsid(): number;
  /** The signal that we get when the thread ends that has started us (PR_SET_PDEATHSIG); 0 for none. */
  setParentDeathSignal(signal: number): number;
  /**
   * Becomes another program, as the same process; returns only where that fails. What is close-on-exec is
   * closed, all else stays open.
   * @param args with the name that the program sees as its own
   * @param env `NAME=value`
   */
  execve(path: string, args: readonly string[], env: readonly string[]): number;

  /** A listening socket at a path; a leading NUL makes it abstract. */
  unixListen(path: string, backlog: number): number;
  /** Connects without waiting. -EAGAIN: the backlog is full, try again later. */
  unixConnect(path: string): number;
  /** A Unix datagram socket without a name, to send from. */
  unixDatagram(): number;
  /**
   * One datagram to the socket at a path; a leading NUL makes it abstract. -EAGAIN: its queue is full, try
   * again later.
   */
  sendTo(fd: number, path: string, bytes: Uint8Array, start: number, length: number): number;
  /** A listening socket on a numeric IPv4 or IPv6 address, with SO_REUSEADDR. */
  tcpListen(address: string, port: number, backlog: number): number;
  /** Starts to connect to a numeric address, with TCP_NODELAY and keep-alive; writable when done, then ask `socketError`. */
  tcpConnect(address: string, port: number): number;
  /** A listening socket of vsock(7); 0xffffffff is any machine. */
  vsockListen(cid: number, port: number, backlog: number): number;
  /** Starts to connect to a virtual machine or to its host, as `tcpConnect` does. */
  vsockConnect(cid: number, port: number): number;
  /** The port that a TCP socket is bound to. */
  tcpPort(fd: number): number;
  /** The close of a TCP socket drops what its peer has not acknowledged (SO_LINGER of 0). */
  resetOnClose(fd: number): number;
  /** The pending error of a socket as a negated errno, or 0 (SO_ERROR). */
  socketError(fd: number): number;
  /** The next connection; where it is TCP, set up as by `tcpConnect`. */
  accept(fd: number): number;
  /** A connected pair of Unix stream sockets; 0, and the two in `out`. Blocking. */
  socketpair(out: Int32Array): number;
  /**
   * Who is at the other end of a Unix socket (SO_PEERCRED): 0, and process and user in `out`. Of one that was
   * connected to it is who listened. As this process numbers them; -1 and less for what does not fit.
   */
  peerCredentials(fd: number, out: Int32Array): number;
  /**
   * One byte and one descriptor (SCM_RIGHTS), waiting for it. -ENODATA at the end of the stream,
   * -EPROTO for a byte without one, -ETIMEDOUT after a minute.
   */
  receiveDescriptor(fd: number): Promise<number>;

  /** Opens /dev/fuse. */
  openFuse(): number;
  /** mount(2). @param flags MS_* */
  mount(source: string, target: string, type: string, flags: number, data: string): number;
  /** umount2(2), off the event loop, as it waits for us. @param flags MNT_*, UMOUNT_NOFOLLOW */
  umount(target: string, flags: number): Promise<number>;

  /**
   * preadv2(2) with RWF_NOWAIT: what needs no waiting for a disk, which may be less than is asked for.
   * -EAGAIN where that is nothing, -EOPNOTSUPP where the file system cannot tell.
   */
  preadNow(fd: number, bytes: Uint8Array, start: number, length: number, offset: bigint): number;
  /**
   * pwrite(2) of several pieces, one after the other, off the event loop. Piece i is `ranges[2i + 1]`
   * bytes of `buffers[i]` from `ranges[2i]` on.
   * @param buffers 1 to 1024; their bytes, and `results`, belong to the call until the promise is settled
   * @param results gets what became of each: a count, or a negated errno
   */
  pwrites(
    fd: number,
    buffers: readonly Uint8Array[],
    ranges: Uint32Array,
    offsets: BigInt64Array,
    results: Int32Array,
  ): Promise<number>;
  /** fallocate(2), off the event loop. */
  fallocate(fd: number, mode: number, offset: bigint, length: bigint): Promise<number>;
  /** lseek(2), off the event loop: the new offset, or a negated errno. */
  lseek(fd: number, offset: bigint, whence: number): Promise<bigint>;
  /** A shared lock of the open file (F_OFD_SETLK of fcntl(2)), which ends with it; off the event loop. */
  lockShared(fd: number, offset: bigint, length: bigint): Promise<number>;
  /** Whether another open file has a lock on a range (F_OFD_GETLK): 1 or 0, or a negated errno. */
  isLocked(fd: number, offset: bigint, length: bigint): Promise<number>;
  /** truncate(2), off the event loop. */
  truncate(path: string, size: bigint): Promise<number>;
}

const ADDON = findAddon();
const require = createRequire(ADDON);

function load(): Native {
  try {
    return require(ADDON) as Native;
  } catch (error) {
    throw new AddonError(ADDON, error);
  }
}

export const native: Native = load();
