import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { errno } from '../src/errno.js';
import { READABLE, WRITABLE, native } from '../src/native.js';
import type { Native } from '../src/native.js';
import { DEADLINE, Workplace, until } from './support/mounts.js';
import { findProgram, requires } from './support/requires.js';

/** Seen from dist/test/, where the compiled file is. */
const ADDON = fileURLToPath(
  new URL('../../native-bindings/build/Release/native.node', import.meta.url),
);
const TIMED = { timeout: DEADLINE };

const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;
const FUSE_INIT = 26;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_SET = 0;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

/** The descriptors of a test, closed at its end. */
class Descriptors {
  readonly #open = new Set<number>();

  /** @param fd the result of a call that has to succeed */
  own(fd: number): number {
    assert.ok(fd >= 0, `errno ${-fd}`);
    this.#open.add(fd);
    return fd;
  }

  pair(nonblocking = false): [number, number] {
    const out = new Int32Array(2);
    assert.equal(native.socketpair(out), 0);
    const [one = -1, other = -1] = out;
    this.own(one);
    this.own(other);
    if (nonblocking) {
      assert.equal(native.setNonblocking(one, true), 0);
      assert.equal(native.setNonblocking(other, true), 0);
    }
    return [one, other];
  }

  drop(fd: number): void {
    this.#open.delete(fd);
    assert.equal(native.close(fd), 0);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#open) native.close(fd);
  }
}

/** The next event of a descriptor: status and events. The watcher is closed in its own callback. */
function nextEvent(fd: number, events: number): Promise<[number, number]> {
  return new Promise((resolve) => {
    const watcher = new native.PollWatcher(fd, (status, seen) => {
      watcher.close();
      resolve([status, seen]);
    });
    watcher.start(events);
  });
}

/** Calls with arguments that the types forbid. */
function call(name: keyof Native, ...args: unknown[]): unknown {
  const functions = native as unknown as Record<string, (...args: unknown[]) => unknown>;
  return functions[name]?.(...args);
}

/** What the open descriptors of this process lead to. */
function openLinks(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return []; // the folder itself, closed by now
    }
  });
}

function openSockets(): number {
  return openLinks().filter((link) => link.startsWith('socket:')).length;
}

function flagsOf(fd: number): number {
  return parseInt(
    /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '',
    8,
  );
}

function write(fd: number, text: string): number {
  const bytes = Buffer.from(text);
  return native.write(fd, bytes, 0, bytes.length);
}

function read(fd: number, most = 64): string {
  const bytes = Buffer.alloc(most);
  const count = native.read(fd, bytes, 0, most);
  assert.ok(count >= 0, `errno ${-count}`);
  return bytes.toString('latin1', 0, count);
}

describe('reading and writing', TIMED, () => {
  it('moves bytes from a place to a place', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    assert.equal(native.write(one, Buffer.from('..hello..'), 2, 5), 5);
    const bytes = Buffer.from('__________');
    assert.equal(native.read(other, bytes, 3, 7), 5);
    assert.equal(bytes.toString(), '___hello__');
  });

  it('takes any Uint8Array, also a view of a larger buffer, and shared memory', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    const memory = new Uint8Array(new SharedArrayBuffer(16));
    memory.set([1, 2, 3, 4], 8);
    assert.equal(native.write(one, memory.subarray(8, 12), 1, 3), 3);
    const small = new Uint8Array(4);
    assert.equal(native.read(other, small.subarray(1), 0, 3), 3);
    assert.deepEqual([...small], [0, 2, 3, 4]);
  });

  it('moves nothing where nothing is asked for, and gives 0 at the end of a stream', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    assert.equal(native.write(one, Buffer.alloc(4), 4, 0), 0);
    fds.drop(one);
    assert.equal(native.read(other, Buffer.alloc(4), 0, 4), 0);
  });

  it('gives what the system says, negated', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair(true);
    const bytes = Buffer.alloc(4);
    const ranges = new Uint32Array([0, 4]);
    assert.equal(native.read(-1, bytes, 0, 4), -errno.EBADF);
    assert.equal(native.write(-1, bytes, 0, 4), -errno.EBADF);
    assert.equal(native.readv(-1, [bytes], ranges, 0, 1), -errno.EBADF);
    assert.equal(native.writev(-1, [bytes], ranges, 0, 1), -errno.EBADF);
    assert.equal(native.read(one, bytes, 0, 4), -errno.EAGAIN);
    assert.equal(native.readv(one, [bytes], ranges, 0, 1), -errno.EAGAIN);
    fds.drop(other);
    assert.equal(native.write(one, bytes, 0, 4), -errno.EPIPE);
    assert.equal(native.writev(one, [bytes], ranges, 0, 1), -errno.EPIPE);
  });

  it('scatters and gathers, from any part on', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    const from = [Buffer.from('not me'), Buffer.from('-hello-'), Buffer.from(' world')];
    const ranges = new Uint32Array([0, 6, 1, 5, 0, 6]);
    assert.equal(native.writev(one, from, ranges, 1, 2), 11);
    const to = [Buffer.alloc(4, '.'), Buffer.alloc(0), Buffer.alloc(9, '.')];
    assert.equal(native.readv(other, to, new Uint32Array([1, 3, 0, 0, 0, 9]), 0, 3), 11);
    assert.deepEqual(to.map(String), ['.hel', '', 'lo world.']);
  });

  it('moves 1024 parts at once, as many bytes as there is room for', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair(true);
    const PARTS = 1024;
    const SIZE = 4093;
    const sent = Buffer.from(Array.from({ length: PARTS * SIZE }, (_, i) => i % 251));
    const received = Buffer.alloc(sent.length);
    // The part that starts at a byte, and those behind it.
    const rangesFrom = (start: number): [Uint32Array, number] => {
      const ranges = new Uint32Array(2 * PARTS);
      const first = Math.floor(start / SIZE);
      for (let i = first; i < PARTS; i++) ranges.set([i * SIZE, SIZE], 2 * i);
      ranges.set([start, (first + 1) * SIZE - start], 2 * first);
      return [ranges, first];
    };
    const move = (how: 'readv' | 'writev', fd: number, bytes: Buffer, start: number): number => {
      const [ranges, first] = rangesFrom(start);
      const buffers = Array<Buffer>(PARTS).fill(bytes);
      const count = native[how](fd, buffers, ranges, first, PARTS - first);
      if (count === -errno.EAGAIN) return start;
      assert.ok(count > 0, `errno ${-count}`);
      return start + count;
    };
    let written = move('writev', one, sent, 0);
    assert.ok(written < sent.length, 'more than the socket can hold');
    assert.equal(move('writev', one, sent, written), written, 'it is full');
    let taken = 0;
    while (taken < sent.length) {
      taken = move('readv', other, received, taken);
      if (written < sent.length) written = move('writev', one, sent, written);
    }
    assert.ok(received.equals(sent));
  });

  it('throws at arguments of the wrong type', () => {
    const bytes = new Uint8Array(8);
    const ranges = new Uint32Array(4);
    const wrong: [keyof Native, ...unknown[]][] = [
      ['read'],
      ['read', 0, bytes, 0],
      ['read', '0', bytes, 0, 0],
      ['read', 0n, bytes, 0, 0],
      ['read', 0, bytes, null, 0],
      ['read', 0, bytes, 0, undefined],
      ...[undefined, null, 5, 'text', {}, [], new ArrayBuffer(8), new DataView(bytes.buffer)].map(
        (place): ['read', ...unknown[]] => ['read', 0, place, 0, 0],
      ),
      ['write', 0, new Uint32Array(8), 0, 8],
      ['readv', 0, undefined, ranges, 0, 1],
      ['readv', 0, { 0: bytes }, ranges, 0, 1],
      ['readv', 0, new Proxy([bytes], {}), ranges, 0, 1],
      ['writev', 0, [], ranges, 0, 1],
      ['writev', 0, [bytes, {}], ranges, 0, 2],
      ['writev', 0, [bytes], new Int32Array(4), 0, 1],
      ['writev', 0, [bytes], [0, 0], 0, 1],
      ['close', undefined],
      ['setNonblocking', 0, 1],
      ['unixListen', Buffer.from('path'), 1],
      ['tcpListen', '::1', '80', 1],
      ['vsockListen', '2', 80, 1],
      ['vsockConnect', 2],
      ['vsockConnect', 2n, 80],
      ['socketpair', new Uint32Array(2)],
      ['sendTo', 0, 5, bytes, 0, 8],
      ['sendTo', 0, '/nowhere', 'bytes', 0, 5],
      ['dup2', 0],
      ['execve', '/nowhere', 'sh', []],
      ['execve', '/nowhere', ['sh', 5], []],
      ['execve', '/nowhere', ['sh'], undefined],
      ['peerCredentials', 0, new Uint32Array(2)],
      ['peerCredentials', '0', new Int32Array(2)],
      ['mount', 'none', '/nowhere', 'fuse', 0],
      ['umount', null, 0],
      ['fallocate', 0, 0, 0, 0n],
      ['lseek', 0, 0, 0],
      ['lockShared', 0, 0, 1n],
      ['isLocked', 0n, 0n, 1n],
      ['truncate', '/nowhere', 0],
      ['preadNow', 0, bytes, 0, 8, 0],
      ['preadNow', 0, [bytes], 0, 8, 0n],
      ['pwrites', 0, bytes, ranges, new BigInt64Array(1), new Int32Array(1)],
      ['pwrites', 0, new Proxy([bytes], {}), ranges, new BigInt64Array(1), new Int32Array(1)],
      ['pwrites', 0, [bytes, {}], ranges, new BigInt64Array(2), new Int32Array(2)],
      ['pwrites', 0, [bytes], [0, 8], new BigInt64Array(1), new Int32Array(1)],
      ['pwrites', 0, [bytes], ranges, [0n], new Int32Array(1)],
      ['pwrites', 0, [bytes], ranges, new BigInt64Array(1), new Uint32Array(1)],
      ['receiveDescriptor', '3'],
    ];
    for (const [name, ...args] of wrong) {
      assert.throws(() => call(name, ...args), TypeError, `${name} ${String(args.length)}`);
    }
  });

  it('throws at places outside their buffer, and at numbers that do not fit', () => {
    const bytes = new Uint8Array(8);
    const detached = new Uint8Array(8);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    const ranges = new Uint32Array([0, 8, 8, 1]);
    const wrong: [keyof Native, ...unknown[]][] = [
      ['read', 0, bytes, 0, 9],
      ['read', 0, bytes, 9, 0],
      ['read', 0, bytes, 4, 5],
      ['read', 0, bytes, 0xffffffff, 2],
      ['read', 0, bytes, 2, 0xffffffff],
      ['read', 0, bytes, -1, 1],
      ['read', 0, bytes, 0.5, 1],
      ['read', 0, bytes, 0, NaN],
      ['read', 0, bytes, 0, 2 ** 32],
      ['read', 2 ** 31, bytes, 0, 1],
      ['read', 0.5, bytes, 0, 1],
      ['read', 0, detached, 0, 1],
      ['write', 0, bytes.subarray(4), 0, 5],
      ['readv', 0, [bytes], ranges, 0, 0],
      ['readv', 0, [bytes], new Uint32Array(4096), 0, 1025],
      ['readv', 0, [bytes, bytes], ranges, 1, 2],
      ['readv', 0, [bytes, bytes], ranges, 0, 3],
      ['readv', 0, [bytes], ranges, 0xffffffff, 1],
      ['writev', 0, [bytes, bytes], ranges, 0, 2],
      ['vsockListen', 2, 2 ** 32, 1],
      ['vsockConnect', -1, 80],
      ['socketpair', new Int32Array(1)],
      ['sendTo', 0, '/nowhere', bytes, 4, 5],
      ['peerCredentials', 0, new Int32Array(1)],
      ['lseek', 0, 2n ** 63n, 0],
      ['lockShared', 0, 0n, 2n ** 63n],
      ['truncate', '/nowhere', -(2n ** 63n) - 1n],
      ['preadNow', 0, bytes, 1, 8, 0n],
      ['preadNow', 0, bytes, 0, 8, 2n ** 63n],
      ['pwrites', 0, [], ranges, new BigInt64Array(1), new Int32Array(1)],
      ['pwrites', 0, [bytes, bytes], ranges, new BigInt64Array(2), new Int32Array(2)],
      ['pwrites', 0, [bytes], new Uint32Array(1), new BigInt64Array(1), new Int32Array(1)],
      ['pwrites', 0, [bytes], ranges, new BigInt64Array(0), new Int32Array(1)],
      ['pwrites', 0, [bytes], ranges, new BigInt64Array(1), new Int32Array(0)],
    ];
    for (const [name, ...args] of wrong) {
      assert.throws(() => call(name, ...args), RangeError, `${name} ${args.slice(2).join(' ')}`);
    }
  });

  it('looks at no memory that an element of the list takes away', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair(true);
    const bytes = new Uint8Array(4096).fill(1);
    const last = new Uint8Array(8);
    let ranges = new Uint32Array([0, 4096, 0, 8]);
    const listed = [bytes, last];
    const get = (): Uint8Array => {
      structuredClone([bytes.buffer, ranges.buffer], { transfer: [bytes.buffer, ranges.buffer] });
      return last;
    };
    Object.defineProperty(listed, 1, { get });
    assert.throws(() => native.writev(one, listed, ranges, 0, 2), RangeError);
    ranges = new Uint32Array([0, 0, 0, 8]);
    assert.throws(() => native.readv(one, [last, last], new Uint32Array(0), 0, 2), RangeError);
    const failing = Object.defineProperty([last], 0, {
      get: () => {
        throw new SyntaxError('thrown by an element');
      },
    });
    assert.throws(() => native.writev(one, failing, ranges, 0, 1), SyntaxError);
    assert.equal(native.read(other, last, 0, 8), -errno.EAGAIN, 'nothing was written');
  });
});

describe('descriptors', () => {
  it('are closed once', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    fds.drop(one);
    assert.equal(native.close(one), -errno.EBADF);
    assert.equal(read(other), '');
  });

  it('are copied', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    const copy = fds.own(native.dup(one));
    assert.notEqual(copy, one);
    fds.drop(one);
    assert.equal(write(copy, 'still there'), 11);
    assert.equal(read(other), 'still there');
    assert.equal(native.dup(-1), -errno.EBADF);
  });

  it('have their flags set and cleared', () => {
    using fds = new Descriptors();
    const [fd] = fds.pair();
    const isSet = (flag: number): boolean => (flagsOf(fd) & flag) !== 0;
    for (const on of [true, true, false, false, true]) {
      assert.equal(native.setNonblocking(fd, on), 0);
      assert.equal(native.setCloseOnExec(fd, !on), 0);
      assert.equal(isSet(O_NONBLOCK), on);
      assert.equal(isSet(O_CLOEXEC), !on);
    }
    assert.equal(native.setNonblocking(-1, true), -errno.EBADF);
    assert.equal(native.setCloseOnExec(-1, true), -errno.EBADF);
  });

  it('do not reach a child, whatever made them', TIMED, async () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    const name = `\0${randomUUID()}`;
    const listener = fds.own(native.unixListen(name, 1));
    const client = fds.own(native.unixConnect(name));
    const tcpListener = fds.own(native.tcpListen('127.0.0.1', 0, 1));
    const tcpClient = fds.own(native.tcpConnect('127.0.0.1', native.tcpPort(tcpListener)));
    await nextEvent(tcpListener, READABLE);
    const sockets = [
      listener,
      client,
      fds.own(native.accept(listener)),
      tcpListener,
      tcpClient,
      fds.own(native.accept(tcpListener)),
    ];
    for (const fd of sockets) assert.equal(flagsOf(fd) & O_NONBLOCK, O_NONBLOCK);
    const all = [one, other, fds.own(native.dup(one)), ...sockets];
    const inherited = fds.own(native.dup(native.tcpPort(tcpListener) < 0 ? -1 : tcpListener));
    const place = await Workplace.create();
    try {
      const seen = async (): Promise<string> => place.ok('ls', ['-l', '/proc/self/fd']);
      const listing = await seen();
      for (const fd of all) {
        assert.equal(flagsOf(fd) & O_CLOEXEC, O_CLOEXEC);
        assert.ok(!listing.includes(readlinkSync(`/proc/self/fd/${fd}`)), listing);
      }
      // One that is meant to be seen shows that the others would have been.
      assert.equal(native.setCloseOnExec(inherited, false), 0);
      const link = readlinkSync(`/proc/self/fd/${inherited}`);
      assert.ok((await seen()).includes(`${inherited} -> ${link}`));
    } finally {
      await place.remove();
    }
  });
});

describe('dup2', () => {
  it('puts a copy in the place of another descriptor', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    const [third, fourth] = fds.pair(true);
    assert.equal(native.dup2(one, third), third);
    write(third, 'through the copy');
    assert.equal(read(other), 'through the copy');
    const byte = new Uint8Array(1);
    assert.equal(native.read(fourth, byte, 0, 1), 0, 'what was there is closed');
    assert.equal(native.dup2(-1, third), -errno.EBADF);
  });
});

describe('PollWatcher', () => {
  it('tells what can be done', TIMED, async () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    assert.deepEqual(await nextEvent(one, READABLE | WRITABLE), [0, WRITABLE]);
    write(other, 'x');
    assert.deepEqual(await nextEvent(one, READABLE), [0, READABLE]);
    assert.deepEqual(await nextEvent(one, READABLE | WRITABLE), [0, READABLE | WRITABLE]);
    assert.equal(flagsOf(one) & O_NONBLOCK, O_NONBLOCK, 'what is watched does not block');
  });

  it('tells of the end of a stream as of something to read', TIMED, async () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    fds.drop(other);
    assert.deepEqual(await nextEvent(one, READABLE), [0, READABLE]);
    assert.equal(read(one), '');
  });

  it('tells of an error state once, and can be started again', TIMED, async () => {
    using fds = new Descriptors();
    const refused = fds.own(native.tcpConnect('127.0.0.1', closedPort()));
    const calls: [number, number][] = [];
    await new Promise<void>((resolve) => {
      const watcher = new native.PollWatcher(refused, (status, events) => {
        calls.push([Math.sign(status), events]);
        if (calls.length === 1) {
          // Nothing more comes by itself.
          void turn()
            .then(() => turn())
            .then(() => {
              assert.equal(calls.length, 1);
              watcher.start(WRITABLE);
            });
        } else {
          watcher.close();
          resolve();
        }
      });
      watcher.start(WRITABLE);
    });
    assert.deepEqual(calls, [
      [-1, 0],
      [-1, 0],
    ]);
    assert.equal(native.socketError(refused), -errno.ECONNREFUSED);
  });

  it('watches for the events of the last start, and for none after stop', TIMED, async () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    const seen: number[] = [];
    let readable = (): void => undefined;
    const watcher = new native.PollWatcher(one, (_status, events) => {
      seen.push(events);
      readable();
    });
    watcher.start(WRITABLE);
    watcher.start(READABLE | WRITABLE);
    watcher.start(READABLE);
    watcher.start(READABLE);
    const arrived = new Promise<void>((resolve) => (readable = resolve));
    write(other, 'x');
    await arrived;
    watcher.stop();
    watcher.stop();
    assert.ok(seen.every((events) => events === READABLE));
    const before = seen.length;
    // A copy is told in the same turn as it would have been.
    await nextEvent(fds.own(native.dup(one)), READABLE);
    watcher.start(WRITABLE);
    watcher.start(0);
    await nextEvent(fds.own(native.dup(one)), WRITABLE);
    assert.equal(seen.length, before);
    const again = new Promise<void>((resolve) => (readable = resolve));
    watcher.start(READABLE);
    await again;
    watcher.close();
  });

  it('is closed for good, also twice, and by its own callback', TIMED, async () => {
    using fds = new Descriptors();
    const [one] = fds.pair();
    let calls = 0;
    await new Promise<void>((resolve) => {
      const watcher = new native.PollWatcher(one, () => {
        calls++;
        watcher.close();
        watcher.close();
        watcher.start(WRITABLE);
        watcher.stop();
        resolve();
      });
      watcher.start(WRITABLE);
    });
    const unused = new native.PollWatcher(fds.pair()[0], () => calls++);
    unused.close();
    unused.start(WRITABLE);
    await nextEvent(fds.pair()[0], WRITABLE);
    assert.equal(calls, 1);
    assert.deepEqual(await nextEvent(one, WRITABLE), [0, WRITABLE], 'another watcher can follow');
  });

  it(
    'may be closed by the callback of another one that is told in the same turn',
    TIMED,
    async () => {
      using fds = new Descriptors();
      const told: number[] = [];
      await new Promise<void>((resolve) => {
        const watchers = [0, 1].map(
          (i) =>
            new native.PollWatcher(fds.pair()[0], () => {
              told.push(i);
              for (const watcher of watchers) watcher.close();
              resolve();
            }),
        );
        for (const watcher of watchers) watcher.start(WRITABLE);
      });
      await turn();
      await turn();
      assert.equal(told.length, 1);
    },
  );

  it('runs what a callback put off before the next callback', TIMED, async () => {
    using fds = new Descriptors();
    const order: string[] = [];
    await Promise.all(
      ['one', 'two'].map(
        (name) =>
          new Promise<void>((resolve) => {
            const watcher = new native.PollWatcher(fds.pair()[0], () => {
              watcher.close();
              order.push(name);
              queueMicrotask(() => order.push(`microtask of ${name}`));
              process.nextTick(() => order.push(`tick of ${name}`));
              resolve();
            });
            watcher.start(WRITABLE);
          }),
      ),
    );
    const [first = '', , , second = ''] = order;
    assert.deepEqual(
      order,
      [first, second].flatMap((name) => [name, `tick of ${name}`, `microtask of ${name}`]),
    );
  });

  it('refuses what cannot be watched', () => {
    using fds = new Descriptors();
    const nothing = (): undefined => undefined;
    const make =
      (...args: unknown[]) =>
      (): unknown =>
        Reflect.construct(native.PollWatcher, args);
    const [fd] = fds.pair();
    assert.throws(make(-1, nothing), { code: 'EBADF' });
    const regular = fds.own(openSync(ADDON, 'r'));
    assert.throws(make(regular, nothing), { code: 'EPERM' });
    assert.throws(make(fd), TypeError);
    assert.throws(make(fd, 'no function'), TypeError);
    assert.throws(make('0', nothing), TypeError);
    assert.throws(() => call('PollWatcher', fd, nothing), TypeError);
    const watcher = new native.PollWatcher(fd, nothing);
    assert.throws(() => watcher.start(4), RangeError);
    watcher.start(READABLE);
    assert.throws(make(fd, nothing), { code: 'EEXIST' });
    assert.throws(() => Reflect.apply(watcher.start.bind({}), {}, [1]), TypeError);
    watcher.close();
  });

  describe('in a process of its own', () => {
    let place: Workplace;
    before(async () => {
      place = await Workplace.create();
    });
    after(() => place.remove());

    const script = (body: string): string => `
      const native = require(process.argv[1]);
      const pair = () => {
        const out = new Int32Array(2);
        native.socketpair(out);
        return out;
      };
      ${body}`;

    it('makes an exception of a callback an uncaught one, and goes on', TIMED, async () => {
      const body = script(`
        const said = [];
        let calls = 0;
        process.on('uncaughtException', (error, origin) => said.push([error.message, origin]));
        const watcher = new native.PollWatcher(pair()[0], () => {
          calls++;
          if (calls === 2) {
            watcher.close();
            setImmediate(() => console.log(JSON.stringify(said)));
          }
          throw new Error('call ' + calls);
        });
        watcher.start(2);`);
      const said: unknown = JSON.parse(await place.ok(process.execPath, ['-e', body, ADDON]));
      assert.deepEqual(said, [
        ['call 1', 'uncaughtException'],
        ['call 2', 'uncaughtException'],
      ]);
    });

    it('ends the process by an exception that nobody handles', TIMED, async () => {
      const body = script(`
        new native.PollWatcher(pair()[0], () => {
          throw new Error('nobody handles it');
        }).start(2);`);
      const result = await place.run(process.execPath, ['-e', body, ADDON]);
      assert.equal(result.status, 1);
      assert.match(result.stderr, /Error: nobody handles it\n\s+at /);
    });

    it('holds the event loop open while it is started', TIMED, async () => {
      // The timer alone does not.
      const body = script(`
        const started = new native.PollWatcher(pair()[0], () => {});
        started.start(1);
        new native.PollWatcher(pair()[0], () => {});
        setTimeout(() => {
          console.log('held');
          started.stop();
        }, 20).unref();`);
      assert.equal(await place.ok(process.execPath, ['-e', body, ADDON]), 'held\n');
    });

    it('lets the process exit from a callback', TIMED, async () => {
      const body = script(`
        new native.PollWatcher(pair()[0], () => process.exit(7)).start(2);`);
      assert.equal((await place.run(process.execPath, ['-e', body, ADDON])).status, 7);
    });

    it('lets the process exit while a descriptor is waited for', TIMED, async () => {
      // The test's own deadline is the shorter one.
      const body = script(`
        native.receiveDescriptor(pair()[0]);
        setImmediate(() => process.exit(7));`);
      assert.equal((await place.run(process.execPath, ['-e', body, ADDON])).status, 7);
    });

    it('stays while it is started, and else is collected like any object', TIMED, async () => {
      const body = script(`
        const TURNS = 1000;
        const turn = () => new Promise((resolve) => setImmediate(resolve));
        const make = (prepare) => {
          // Its callback knows it, as callbacks do.
          const ends = pair();
          const watcher = new native.PollWatcher(ends[0], () => {
            console.log('called');
            watcher.close();
          });
          prepare(watcher);
          return { ref: new WeakRef(watcher), ends };
        };
        const gone = async (refs) => {
          for (let i = 0; i < TURNS; i++) {
            await turn();
            gc();
            if (refs.every((ref) => ref.deref() === undefined)) return true;
          }
          return false;
        };
        (async () => {
          const started = make((watcher) => watcher.start(1));
          const others = [];
          for (let i = 0; i < 50; i++) {
            others.push(make(() => {}));
            others.push(make((watcher) => (watcher.start(1), watcher.stop())));
            others.push(make((watcher) => (watcher.start(1), watcher.close())));
          }
          console.log(await gone(others.map(({ ref }) => ref)));
          console.log(started.ref.deref() !== undefined);
          native.write(started.ends[1], Buffer.from('x'), 0, 1);
          console.log(await gone([started.ref]));
        })();`);
      const said = await place.ok(process.execPath, ['--expose-gc', '-e', body, ADDON]);
      assert.equal(said, 'true\ntrue\ncalled\ntrue\n');
    });
  });
});

describe('busyPoll', () => {
  let place: Workplace;
  before(async () => {
    place = await Workplace.create();
  });
  after(() => place.remove());

  /** What a program prints whose event loop looks for events before it sleeps, when it has ended by itself. */
  const run = (body: string): Promise<string> =>
    place.ok(process.execPath, [
      '-e',
      `const native = require(process.argv[1]);
       const inFlight = new Int32Array(1);
       console.log(native.busyPoll(100, inFlight, 1));
       ${body}`,
      ADDON,
    ]);

  it(
    'loses no event, whether it looks for them or sleeps, and holds no event loop open',
    TIMED,
    async () => {
      // Two threads send a number to and fro, at once, so that sleeps are short, and now and then late.
      const said = await run(`
      const { Worker } = require('node:worker_threads');
      const ROUNDS = 3000;
      const out = new Int32Array(2);
      native.socketpair(out);
      const echo = (fd, next) => {
        const bytes = Buffer.alloc(4);
        const watcher = new native.PollWatcher(fd, () => {
          if (native.read(fd, bytes, 0, 4) !== 4) throw new Error('short');
          const answer = next(bytes.readUInt32LE());
          if (answer === undefined) return watcher.close();
          bytes.writeUInt32LE(answer);
          native.write(fd, bytes, 0, 4);
          if (answer > ROUNDS) watcher.close();
        });
        watcher.start(1);
      };
      const code = \`
        const { workerData } = require('node:worker_threads');
        const native = require(workerData.addon);
        native.busyPoll(100, new Int32Array(1), 1);
        (\${echo})(workerData.fd, (number) => {
          if (number % 500 === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
          return number + 1;
        });\`.replace('ROUNDS', String(ROUNDS));
      new Worker(code, { eval: true, workerData: { addon: process.argv[1], fd: out[1] } });
      let last = 0;
      echo(out[0], (number) => {
        if (number !== last + 1) throw new Error(number + ' after ' + last);
        last = number + 1;
        // With too much under way it sleeps at once.
        inFlight[0] = number % 100 < 20 ? 2 : 0;
        return number > ROUNDS ? undefined : last;
      });
      native.write(out[0], Buffer.alloc(4), 0, 4);
      process.on('exit', () => console.log(last > ROUNDS));`);
      assert.equal(said, '0\ntrue\n');
    },
  );

  it('leaves timers and other work their turns', TIMED, async () => {
    const said = await run(`
      let ticks = 0;
      const timer = setInterval(() => {
        if (++ticks === 20) clearInterval(timer);
      }, 1);
      require('node:fs').readFile('/proc/self/comm', () => setImmediate(() => console.log('read')));
      process.on('exit', () => console.log(ticks));`);
    assert.equal(said, '0\nread\n20\n');
  });

  it('wants its arguments as they should be', () => {
    const word = new Int32Array(1);
    assert.throws(() => call('busyPoll'), TypeError);
    assert.throws(() => call('busyPoll', 1, [0], 1), TypeError);
    assert.throws(() => call('busyPoll', 1, new Uint8Array(4), 1), TypeError);
    assert.throws(() => call('busyPoll', 1, new Int32Array(0), 1), RangeError);
    assert.throws(() => call('busyPoll', -1, word, 1), RangeError);
    assert.throws(() => call('busyPoll', '1', word, 1), TypeError);
    assert.throws(() => call('busyPoll', 1, word, 2 ** 31), RangeError);
  });
});

describe('Unix sockets', () => {
  let place: Workplace;
  before(async () => {
    place = await Workplace.create();
  });
  after(() => place.remove());

  const talk = async (fds: Descriptors, path: string): Promise<void> => {
    const listener = fds.own(native.unixListen(path, 5));
    assert.equal(native.accept(listener), -errno.EAGAIN);
    const client = fds.own(native.unixConnect(path));
    assert.deepEqual(await nextEvent(listener, READABLE), [0, READABLE]);
    const server = fds.own(native.accept(listener));
    assert.equal(write(client, 'question'), 8);
    assert.equal(read(server), 'question');
    assert.equal(write(server, 'answer'), 6);
    assert.equal(read(client), 'answer');
    assert.equal(native.socketError(client), 0);
    assert.equal(native.tcpPort(client), -errno.EAFNOSUPPORT);
  };

  it('connect by a path', TIMED, async () => {
    using fds = new Descriptors();
    const path = place.join('socket');
    await talk(fds, path);
    assert.ok((await stat(path)).isSocket());
    assert.equal(native.unixListen(path, 1), -errno.EADDRINUSE, 'nothing is unlinked');
  });

  it('connect by an abstract name, which is as long as it is', TIMED, async () => {
    using fds = new Descriptors();
    const name = `\0tsnbdfuse ${randomUUID()}`;
    await talk(fds, `${name}\0\0more`);
    assert.equal(native.unixConnect(name), -errno.ECONNREFUSED);
    assert.equal(native.unixConnect(`${name}\0\0more\0`), -errno.ECONNREFUSED);
    // 108 bytes are all there is.
    await talk(fds, name.padEnd(108, 'x'));
    assert.equal(native.unixListen(name.padEnd(109, 'x'), 1), -errno.ENAMETOOLONG);
  });

  it('take paths of 107 bytes, and no longer ones', TIMED, async () => {
    using fds = new Descriptors();
    const path = (length: number): string => place.join('é').padEnd(length - 1, 'x');
    await talk(fds, path(107));
    for (const length of [108, 109, 200, 5000]) {
      assert.equal(native.unixListen(path(length), 1), -errno.ENAMETOOLONG);
      assert.equal(native.unixConnect(path(length)), -errno.ENAMETOOLONG);
    }
  });

  it('are not made where it fails', () => {
    const before = openSockets();
    assert.equal(native.unixConnect(place.join('nobody')), -errno.ENOENT);
    assert.equal(native.unixListen(place.join('no/folder'), 1), -errno.ENOENT);
    assert.equal(native.unixListen('', 1), -errno.EINVAL);
    assert.equal(native.unixConnect(place.join('a\0b')), -errno.EINVAL);
    assert.equal(openSockets(), before);
  });

  it('do not wait for room in the backlog', () => {
    using fds = new Descriptors();
    const path = place.join('backlog');
    const listener = fds.own(native.unixListen(path, 1));
    let fd = 0;
    for (let i = 0; i < 10 && fd >= 0; i++) {
      fd = native.unixConnect(path);
      if (fd >= 0) fds.own(fd);
    }
    const before = openSockets();
    assert.equal(native.unixConnect(path), -errno.EAGAIN);
    assert.equal(openSockets(), before);
    fds.own(native.accept(listener));
    fds.own(native.unixConnect(path));
  });

  it('come in pairs', () => {
    using fds = new Descriptors();
    const [one, other] = fds.pair();
    for (const fd of [one, other]) assert.equal(flagsOf(fd) & O_NONBLOCK, 0);
    write(one, 'there');
    write(other, 'back');
    assert.equal(read(other), 'there');
    assert.equal(read(one), 'back');
  });
});

/** Prints each datagram that comes to an address, as a JSON text in a line. */
const RECEIVE = `
import json, socket, sys
place = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = json.loads(sys.argv[1])
place.bind(name.encode())
print('bound', flush=True)
while True:
    print(json.dumps(place.recv(65536).decode()), flush=True)
`;

describe('Unix datagrams', { ...TIMED, ...requires({ programs: ['python3'] }) }, () => {
  let place: Workplace;
  before(async () => {
    place = await Workplace.create();
  });
  after(() => place.remove());

  const send = (fd: number, path: string, text: string): number => {
    const bytes = Buffer.from(`--${text}--`);
    return native.sendTo(fd, path, bytes, 2, bytes.length - 4);
  };

  for (const [kind, name] of [
    ['a path', () => place.join('datagrams')],
    ['an abstract name', () => `\0tsnbdfuse ${randomUUID()}`],
  ] as const) {
    it(`go to ${kind}, each for itself`, async () => {
      using fds = new Descriptors();
      const path = name();
      const receiver = place.start('python3', ['-u', '-c', RECEIVE, JSON.stringify(path)]);
      await until('it is bound', () => receiver.stdout.includes('bound'));
      const fd = fds.own(native.unixDatagram());
      assert.equal(flagsOf(fd) & O_CLOEXEC, O_CLOEXEC);
      assert.equal(send(fd, path, 'READY=1\nSTATUS=é'), 17);
      assert.equal(send(fd, path, 'two'), 3);
      await until('both are there', () => receiver.stdout.includes('two'));
      assert.equal(receiver.stdout, 'bound\n"READY=1\\nSTATUS=\\u00e9"\n"two"\n');
      process.kill(receiver.pid);
      await receiver.ended;
      assert.equal(send(fd, path, 'three'), -errno.ECONNREFUSED);
    });
  }

  it('are not waited for, nor sent to what is none', () => {
    using fds = new Descriptors();
    const fd = fds.own(native.unixDatagram());
    assert.equal(send(fd, place.join('nobody'), 'x'), -errno.ENOENT);
    assert.equal(send(fd, '', 'x'), -errno.EINVAL);
    assert.equal(send(fd, 'x'.repeat(200), 'x'), -errno.ENAMETOOLONG);
    fds.own(native.unixListen(place.join('stream'), 1));
    assert.equal(send(fd, place.join('stream'), 'x'), -errno.EPROTOTYPE);
  });
});

describe('the process', TIMED, () => {
  const inNode = (script: string): string =>
    execFileSync(
      process.execPath,
      ['-e', `const native = require(${JSON.stringify(ADDON)}); ${script}`],
      { encoding: 'utf8', env: { PATH: process.env['PATH'] } },
    );

  it('becomes another program, with the arguments and the environment it is given', () => {
    const words = ['sh', '-c', 'echo "$$ $1,$2 $A ${PATH:-none}"', 'x', 'é  b', ''];
    const said = inNode(
      `require('fs').writeSync(1, process.pid + ' ');
       native.setCloseOnExec(1, false);
       native.execve('/bin/sh', ${JSON.stringify(words)}, ['A=5', 'PATH=']);`,
    );
    const [before, after, ...rest] = said.split(' ');
    assert.equal(before, after);
    assert.equal(rest.join(' '), 'é  b, 5 none\n');
  });

  it('goes on where it cannot', () => {
    assert.equal(native.execve('/nowhere', [], []), -errno.ENOENT);
    assert.equal(native.execve('/bin/sh', ['a\0b'], []), -errno.EINVAL);
    assert.equal(native.execve('/tmp', ['x'], ['A=\0']), -errno.EINVAL);
  });

  it('hears of the death of its parent, if it wants to', async () => {
    const addon = `require(${JSON.stringify(ADDON)})`;
    const wait = `setInterval(() => undefined, 1000)`;
    const child = `
      process.on('SIGHUP', () => { require('fs').writeSync(1, 'heard'); process.exit(); });
      if (${addon}.setParentDeathSignal(1) === 0) require('fs').writeSync(1, 'set '); ${wait};`;
    const parent = spawn('sh', ['-c', '"$@" & wait', 'sh', process.execPath, '-e', child]);
    let said = '';
    parent.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    await until('it is set', () => said === 'set ');
    parent.kill('SIGKILL');
    await until('it has heard', () => said === 'set heard');
    assert.equal(native.setParentDeathSignal(1000), -errno.EINVAL);
  });

  it('leaves its session once', () => {
    const script = `const stat = () => require('fs').readFileSync('/proc/self/stat', 'latin1').split(' ');
      const first = native.setsid();
      console.log(first === process.pid, stat()[5] === String(process.pid), native.setsid());`;
    assert.equal(inNode(script), `true true ${-errno.EPERM}\n`);
  });
});

/** A port that nobody listens on. */
function closedPort(): number {
  const listener = native.tcpListen('127.0.0.1', 0, 1);
  const port = native.tcpPort(listener);
  native.close(listener);
  return port;
}

describe('TCP sockets', () => {
  const six = native.tcpListen('::1', 0, 1);
  if (six >= 0) native.close(six);
  const ipv6 = six >= 0 ? {} : { skip: 'there is no IPv6' };

  const talk = async (address: string, listenAt = address): Promise<void> => {
    using fds = new Descriptors();
    const listener = fds.own(native.tcpListen(listenAt, 0, 5));
    const port = native.tcpPort(listener);
    assert.ok(port > 0, `port ${port}`);
    assert.equal(native.accept(listener), -errno.EAGAIN);
    const client = fds.own(native.tcpConnect(address, port));
    assert.deepEqual(await nextEvent(client, WRITABLE), [0, WRITABLE]);
    assert.equal(native.socketError(client), 0);
    await nextEvent(listener, READABLE);
    const server = fds.own(native.accept(listener));
    assert.equal(native.tcpPort(server), port);
    assert.equal(write(client, 'question'), 8);
    await nextEvent(server, READABLE);
    assert.equal(read(server), 'question');
  };

  it('connect over IPv4', TIMED, () => talk('127.0.0.1'));
  it('connect over IPv6', { ...TIMED, ...ipv6 }, () => talk('::1'));
  it('take a scope by its name and by its number', { ...TIMED, ...ipv6 }, async () => {
    await talk('::1%lo');
    await talk('::1%1', '::1');
  });

  it('of both families share a port', ipv6, () => {
    using fds = new Descriptors();
    const port = native.tcpPort(fds.own(native.tcpListen('::', 0, 1)));
    fds.own(native.tcpListen('0.0.0.0', port, 1));
    assert.equal(native.tcpListen('0.0.0.0', port, 1), -errno.EADDRINUSE);
  });

  it('refuse what is no numeric address', () => {
    const before = openSockets();
    const wrong = [
      '',
      'localhost',
      '1.2.3',
      '127.0.0.1%lo',
      '::g',
      '[::1]',
      '::1%',
      '::1%nosuchinterface',
      '::1%1x',
      '::1%4294967297',
      '127.0.0.1\0',
      '1'.repeat(1000),
    ];
    for (const address of wrong) {
      assert.equal(native.tcpListen(address, 0, 1), -errno.EINVAL, address);
      assert.equal(native.tcpConnect(address, 1), -errno.EINVAL, address);
    }
    assert.equal(native.tcpConnect('127.0.0.1', 65536), -errno.EINVAL);
    // Of a documentation prefix, and so nobody's.
    assert.equal(native.tcpListen('192.0.2.1', 0, 1), -errno.EADDRNOTAVAIL);
    assert.equal(openSockets(), before);
  });

  it('tell of a refused connection', TIMED, async () => {
    using fds = new Descriptors();
    const fd = fds.own(native.tcpConnect('127.0.0.1', closedPort()));
    const [status] = await nextEvent(fd, WRITABLE);
    assert.ok(status < 0);
    assert.equal(native.socketError(fd), -errno.ECONNREFUSED);
    assert.equal(native.socketError(fd), 0, 'told once');
  });

  it('can be listened on again at once', TIMED, async () => {
    using fds = new Descriptors();
    const listener = fds.own(native.tcpListen('127.0.0.1', 0, 5));
    const port = native.tcpPort(listener);
    const client = fds.own(native.tcpConnect('127.0.0.1', port));
    await nextEvent(listener, READABLE);
    // The side that closes first waits for stray packets of this port, for a minute.
    fds.drop(fds.own(native.accept(listener)));
    fds.drop(listener);
    fds.drop(client);
    fds.own(native.tcpListen('127.0.0.1', port, 5));
  });

  it(
    'send without delay, and notice when the peer is gone',
    { ...TIMED, ...requires({ programs: ['python3'] }) },
    async () => {
      using fds = new Descriptors();
      const listener = fds.own(native.tcpListen('127.0.0.1', 0, 1));
      const client = fds.own(native.tcpConnect('127.0.0.1', native.tcpPort(listener)));
      await nextEvent(listener, READABLE);
      const look = `
import socket, sys
tcp = lambda option: connection.getsockopt(socket.IPPROTO_TCP, option)
connection = socket.socket(fileno=3)
asked = [tcp(socket.TCP_NODELAY), connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
sys.exit(0 if all(asked) and 0 < tcp(socket.TCP_USER_TIMEOUT) <= 60000 else 9)`;
      for (const fd of [client, fds.own(native.accept(listener))]) {
        assert.equal(await python(look, [], fd), 0);
      }
    },
  );

  it('give what the system says of other descriptors', () => {
    using fds = new Descriptors();
    const file = fds.own(openSync('/dev/null', 'r+'));
    for (const name of ['accept', 'tcpPort', 'socketError'] as const) {
      assert.equal(native[name](file), -errno.ENOTSOCK, name);
      assert.equal(native[name](-1), -errno.EBADF, name);
    }
    assert.equal(native.accept(fds.pair()[0]), -errno.EINVAL);
  });
});

describe('sockets of virtual machines', () => {
  const ANY = 0xffff_ffff;
  const LOCAL = 1;
  const HYPERVISOR = 0;
  /** High enough to be nobody's. */
  const port = 0x4000_0000 + process.pid;
  const here = native.vsockListen(ANY, port, 1);
  if (here >= 0) native.close(here);
  const known = here !== -errno.EAFNOSUPPORT;

  it('are made by the numbers of machine and port', () => {
    using fds = new Descriptors();
    if (!known) {
      assert.equal(native.vsockConnect(LOCAL, port), -errno.EAFNOSUPPORT);
      return;
    }
    const listener = fds.own(native.vsockListen(ANY, port, 1));
    assert.equal(flagsOf(listener) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC | O_NONBLOCK);
    assert.equal(native.vsockListen(ANY, port, 1), -errno.EADDRINUSE);
    assert.equal(native.vsockListen(HYPERVISOR, port, 1), -errno.EADDRNOTAVAIL);
    assert.equal(native.tcpPort(listener), -errno.EAFNOSUPPORT);
    assert.equal(native.accept(listener), -errno.EAGAIN);
  });

  it('talk, or tell that there is no such machine', TIMED, async () => {
    using fds = new Descriptors();
    const listener = native.vsockListen(LOCAL, port, 1);
    if (listener < 0) {
      // Without vsock, or without its loopback: no machine has this number.
      const problem = known ? errno.EADDRNOTAVAIL : errno.EAFNOSUPPORT;
      assert.equal(listener, -problem);
      const client = native.vsockConnect(ANY, port);
      if (client < 0) return;
      fds.own(client);
      await nextEvent(client, WRITABLE);
      assert.ok(native.socketError(client) < 0);
      return;
    }
    fds.own(listener);
    const client = fds.own(native.vsockConnect(LOCAL, port));
    assert.equal(flagsOf(client) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC | O_NONBLOCK);
    assert.deepEqual(await nextEvent(client, WRITABLE), [0, WRITABLE]);
    assert.equal(native.socketError(client), 0);
    await nextEvent(listener, READABLE);
    const server = fds.own(native.accept(listener));
    assert.equal(write(client, 'question'), 8);
    await nextEvent(server, READABLE);
    assert.equal(read(server), 'question');
    assert.equal(write(server, 'answer'), 6);
    await nextEvent(client, READABLE);
    assert.equal(read(client), 'answer');
  });
});

/** Runs Python with a socket as its descriptor 3. @returns the exit status */
async function python(code: string, args: readonly string[], fd: number): Promise<number | null> {
  const child = spawn('python3', ['-c', code, ...args], {
    stdio: ['ignore', 'ignore', 'inherit', fd],
    timeout: DEADLINE,
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', resolve);
  });
}

/** Sends the files that are named, as descriptors, with one byte. */
const SEND = `
import socket, sys
files = [open(path) for path in sys.argv[1:]]
socket.send_fds(socket.socket(fileno=3), [b'x'], [file.fileno() for file in files])`;

describe('receiveDescriptor', () => {
  const withPython = { ...TIMED, ...requires({ programs: ['python3'] }) };
  let place: Workplace;
  before(async () => {
    place = await Workplace.create();
  });
  after(() => place.remove());

  it('gives the descriptor of another process', withPython, async () => {
    using fds = new Descriptors();
    const [ours, theirs] = fds.pair();
    const path = await place.file('sent', 'content');
    const received = native.receiveDescriptor(ours);
    assert.equal(await python(SEND, [path], theirs), 0);
    const fd = fds.own(await received);
    assert.equal(read(fd), 'content');
    assert.equal(flagsOf(fd) & O_CLOEXEC, O_CLOEXEC);
  });

  it('closes those beyond the first', withPython, async () => {
    using fds = new Descriptors();
    const [ours, theirs] = fds.pair();
    const surplus = await place.file('surplus');
    // More than fit into the message, too.
    for (const count of [1, 2, 15, 16, 100]) {
      const first = await place.file('first', String(count));
      const args = [first, ...Array<string>(count).fill(surplus)];
      assert.equal(await python(SEND, args, theirs), 0);
      assert.equal(read(fds.own(await native.receiveDescriptor(ours))), String(count));
      assert.ok(!openLinks().includes(surplus), `${count} more`);
    }
  });

  it('tells of a message without one, and of the end of the stream', TIMED, async () => {
    using fds = new Descriptors();
    const [ours, theirs] = fds.pair();
    write(theirs, 'xy');
    assert.equal(await native.receiveDescriptor(ours), -errno.EPROTO);
    assert.equal(read(ours), 'y', 'only one byte is taken');
    const waiting = native.receiveDescriptor(ours);
    fds.drop(theirs);
    assert.equal(await waiting, -errno.ENODATA);
    assert.equal(await native.receiveDescriptor(-1), -errno.EBADF);
    const file = fds.own(openSync(ADDON, 'r'));
    assert.equal(await native.receiveDescriptor(file), -errno.ENOTSOCK);
  });

  it(
    'takes /dev/fuse from fusermount3',
    { ...TIMED, ...requires({ programs: ['fusermount3'], fuse: true }) },
    async () => {
      using fds = new Descriptors();
      const [ours, theirs] = fds.pair();
      const path = await place.file('mountpoint');
      const child = spawn(
        findProgram('fusermount3') ?? '',
        ['-o', 'fsname=test,subtype=native-test', '--', path],
        {
          stdio: ['ignore', 'ignore', 'inherit', theirs],
          env: { ...process.env, _FUSE_COMMFD: '3' },
          timeout: DEADLINE,
        },
      );
      const exited = new Promise((resolve) => child.on('exit', resolve));
      fds.drop(theirs);
      const fd = fds.own(await native.receiveDescriptor(ours));
      assert.equal(await exited, 0);
      assert.equal(native.setNonblocking(fd, true), 0);
      await expectInit(fd);
      const unmounted = spawn(findProgram('fusermount3') ?? '', ['-u', '-z', '--', path], {
        stdio: 'ignore',
        timeout: DEADLINE,
      });
      await new Promise((resolve) => unmounted.on('exit', resolve));
      await expectUnmounted(fd);
    },
  );
});

/** The kernel's first request, which is left unanswered. */
async function expectInit(fd: number): Promise<void> {
  assert.deepEqual(await nextEvent(fd, READABLE), [0, READABLE]);
  const request = Buffer.alloc(1 << 20);
  const length = native.read(fd, request, 0, request.length);
  assert.ok(length > 40, `errno ${-length}`);
  assert.equal(request.readUInt32LE(0), length);
  assert.equal(request.readUInt32LE(4), FUSE_INIT);
  assert.equal(native.read(fd, request, 0, request.length), -errno.EAGAIN);
}

async function expectUnmounted(fd: number): Promise<void> {
  const [status] = await nextEvent(fd, READABLE);
  assert.ok(status < 0, 'an error state');
  const bytes = Buffer.alloc(1 << 16);
  assert.equal(native.read(fd, bytes, 0, bytes.length), -errno.ENODEV);
}

describe('mounting', { ...TIMED, ...requires({ root: true, fuse: true }) }, () => {
  let place: Workplace;
  before(async () => {
    place = await Workplace.create();
  });
  after(() => place.remove());

  const options = (fd: number, rootmode: string): string =>
    `fd=${fd},rootmode=${rootmode},user_id=0,group_id=0`;

  for (const [what, rootmode] of [
    ['file', '100000'],
    ['folder', '40000'],
  ] as const) {
    it(`shows a file system at a ${what}, until it is unmounted`, async () => {
      using fds = new Descriptors();
      const path = place.join(what);
      await (what === 'file' ? place.file(what) : mkdir(path));
      const fd = fds.own(native.openFuse());
      assert.equal(flagsOf(fd) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC | O_NONBLOCK);
      assert.equal(native.mount('test', path, 'fuse.native-test', 0, options(fd, rootmode)), 0);
      try {
        assert.deepEqual(await place.mounts(), [path]);
        await expectInit(fd);
      } finally {
        assert.equal(await native.umount(path, MNT_DETACH | UMOUNT_NOFOLLOW), 0);
      }
      assert.deepEqual(await place.mounts(), []);
      await expectUnmounted(fd);
    });
  }

  it('ends with its descriptor', async () => {
    using fds = new Descriptors();
    const path = await place.file('abandoned');
    const fd = fds.own(native.openFuse());
    assert.equal(native.mount('test', path, 'fuse', 0, options(fd, '100000')), 0);
    fds.drop(fd);
    assert.equal(await native.umount(path, MNT_DETACH), 0);
  });

  it('gives what the system says', async () => {
    using fds = new Descriptors();
    const fd = fds.own(native.openFuse());
    const path = await place.file('plain');
    const long = `/${'x'.repeat(5000)}`;
    const data = options(fd, '100000');
    assert.equal(native.mount('test', place.join('none'), 'fuse', 0, data), -errno.ENOENT);
    assert.equal(native.mount('test', path, 'no-such-type', 0, data), -errno.ENODEV);
    assert.equal(native.mount('test', path, 'fuse', 0, 'nonsense'), -errno.EINVAL);
    assert.equal(native.mount('test', long, 'fuse', 0, data), -errno.ENAMETOOLONG);
    assert.equal(native.mount('test', `${path}\0`, 'fuse', 0, data), -errno.EINVAL);
    assert.equal(await native.umount(path, 0), -errno.EINVAL);
    assert.equal(await native.umount(place.join('none'), 0), -errno.ENOENT);
    assert.equal(await native.umount(long, 0), -errno.ENAMETOOLONG);
    assert.equal(await native.umount(`${path}\0`, 0), -errno.EINVAL);
    assert.deepEqual(await place.mounts(), []);
  });
});

describe('files', () => {
  const SIZE = 1 << 20;
  const HOLE = 256 << 10;
  const HOLE_LENGTH = 512 << 10;
  let place: Workplace;
  before(async () => {
    place = await Workplace.create();
  });
  after(() => place.remove());

  it('have holes punched, which are found again', TIMED, async (test) => {
    using fds = new Descriptors();
    // A tmpfs has holes, whatever the file system of temporary files is.
    const folder = mkdtempSync('/dev/shm/tsnbdfuse-test-');
    test.after(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'holes');
    writeFileSync(path, Buffer.alloc(SIZE, 'x'));
    const fd = fds.own(openSync(path, 'r+'));
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const result = await native.fallocate(fd, mode, BigInt(HOLE), BigInt(HOLE_LENGTH));
    assert.equal(result, 0);
    const content = await readFile(path);
    assert.equal(content.length, SIZE);
    assert.ok(content.subarray(HOLE, HOLE + HOLE_LENGTH).every((byte) => byte === 0));
    assert.equal(content.subarray(0, HOLE).toString(), 'x'.repeat(HOLE));
    assert.equal(await native.lseek(fd, 0n, SEEK_HOLE), BigInt(HOLE));
    assert.equal(await native.lseek(fd, BigInt(HOLE), SEEK_DATA), BigInt(HOLE + HOLE_LENGTH));
    assert.equal(await native.lseek(fd, BigInt(SIZE), SEEK_DATA), BigInt(-errno.ENXIO));
  });

  it('are locked by the open file, and not by the process', TIMED, async () => {
    const path = await place.file('locked', 'x');
    using fds = new Descriptors();
    const [one, two] = [fds.own(openSync(path, 'r')), fds.own(openSync(path, 'r'))];
    const far = 2n ** 53n + 1n;
    assert.equal(await native.isLocked(two, far, 1n), 0);
    assert.equal(await native.lockShared(one, far, 1n), 0);
    assert.equal(await native.isLocked(two, far, 1n), 1);
    assert.equal(await native.isLocked(two, far - 1n, 1n), 0);
    assert.equal(await native.isLocked(one, far, 1n), 0);
    // It is shared.
    assert.equal(await native.lockShared(two, far, 1n), 0);
    assert.equal(await native.isLocked(one, far, 1n), 1);
    assert.equal(await native.lockShared(one, -1n, 1n), -errno.EINVAL);
    assert.equal(await native.isLocked(-1, 0n, 1n), -errno.EBADF);
  });

  it('have offsets beyond 2^53', TIMED, async () => {
    using fds = new Descriptors();
    const path = await place.file('large', 'x');
    const fd = fds.own(openSync(path, 'r+'));
    const far = 2n ** 62n + 1n;
    assert.equal(await native.lseek(fd, far, SEEK_DATA), BigInt(-errno.ENXIO));
    assert.equal(await native.lseek(fd, -far, SEEK_SET), BigInt(-errno.EINVAL));
    assert.equal(await native.fallocate(fd, 0, -far, 1n), -errno.EINVAL);
    assert.ok([-errno.EFBIG, -errno.EINVAL].includes(await native.fallocate(fd, 0, far, far)));
    // It lets one seek anywhere.
    const memory = fds.own(openSync('/proc/self/mem', 'r'));
    assert.equal(await native.lseek(memory, far, SEEK_SET), far);
    assert.equal(await native.lseek(-1, 0n, SEEK_SET), BigInt(-errno.EBADF));
    assert.equal(await native.fallocate(-1, 0, 0n, 1n), -errno.EBADF);
  });

  it('are cut and grown', TIMED, async () => {
    const path = await place.file('cut', 'content');
    assert.equal(await native.truncate(path, 4n), 0);
    assert.equal(await readFile(path, 'latin1'), 'cont');
    assert.equal(await native.truncate(path, 1n << 33n), 0);
    assert.equal((await stat(path)).size, 2 ** 33);
    assert.equal(await native.truncate(path, -1n), -errno.EINVAL);
    assert.equal(await native.truncate(place.join('none'), 0n), -errno.ENOENT);
    assert.equal(await native.truncate(place.path, 0n), -errno.EISDIR);
    assert.equal(await native.truncate(`${path}\0`, 0n), -errno.EINVAL);
    assert.equal(await native.truncate('x'.repeat(5000), 0n), -errno.ENAMETOOLONG);
  });

  it('are read where nothing has to be waited for', async (test) => {
    using fds = new Descriptors();
    const fd = fds.own(openSync(await place.file('now', 'content'), 'r'));
    const bytes = Buffer.from('..........');
    const count = native.preadNow(fd, bytes, 1, 4, 2n);
    if (count === -errno.EOPNOTSUPP) {
      test.diagnostic('the file system cannot tell what it has in memory');
    } else {
      assert.equal(count, 4);
      assert.equal(bytes.toString(), '.nten.....');
      assert.equal(native.preadNow(fd, bytes, 0, 10, 4n), 3);
      assert.equal(native.preadNow(fd, bytes, 0, 10, 2n ** 62n), 0);
    }
    assert.equal(native.preadNow(fd, bytes, 0, 1, -1n), -errno.EINVAL);
    assert.equal(native.preadNow(-1, bytes, 0, 1, 0n), -errno.EBADF);
    const [pipe] = fds.pair();
    assert.equal(native.preadNow(pipe, bytes, 0, 1, 0n), -errno.ESPIPE);
  });

  it('are written in several pieces, each with its result', TIMED, async () => {
    using fds = new Descriptors();
    const path = await place.file('pieces', '0123456789');
    const fd = fds.own(openSync(path, 'r+'));
    const results = new Int32Array(5);
    const one = Buffer.from('abcdef');
    const buffers = [one, Buffer.from('xyz'), one, one, Buffer.from('-')];
    const ranges = new Uint32Array([0, 2, 1, 2, 0, 0, 0, 3, 0, 1]);
    const offsets = new BigInt64Array([8n, 0n, 3n, -1n, 2n ** 33n]);
    const written = native.pwrites(fd, buffers, ranges, offsets, results);
    // What was handed over is kept, whatever becomes of the lists.
    buffers.length = 0;
    ranges.fill(0xffffffff);
    offsets.fill(-1n);
    assert.equal(await written, 0);
    assert.deepEqual([...results], [2, 2, 0, -errno.EINVAL, 1]);
    assert.equal((await stat(path)).size, 2 ** 33 + 1);
    const begin = Buffer.alloc(10);
    readSync(fd, begin, 0, 10, 0);
    assert.equal(begin.toString(), 'yz234567ab');
    const readOnly = fds.own(openSync(path, 'r'));
    await native.pwrites(
      readOnly,
      [one],
      new Uint32Array([0, 1]),
      new BigInt64Array(1),
      results.subarray(0, 1),
    );
    assert.equal(results[0], -errno.EBADF);
  });

  it('are worked on many at a time', TIMED, async () => {
    using fds = new Descriptors();
    const fd = fds.own(openSync(await place.file('many', Buffer.alloc(100)), 'r'));
    const offsets = Array.from({ length: 100 }, (_, i) => BigInt(i));
    const found = await Promise.all(offsets.map((at) => native.lseek(fd, at, SEEK_DATA)));
    assert.deepEqual(found, offsets);
  });
});

describe('worker threads', () => {
  /** Leaves a bit of everything behind, tells that it is ready, and goes on until it is ended. */
  const BODY = `
    const { parentPort, workerData } = require('node:worker_threads');
    const native = require(workerData.addon);
    const pair = () => {
      const out = new Int32Array(2);
      native.socketpair(out);
      return out;
    };
    const watch = (events, callback = () => {}) => {
      const watcher = new native.PollWatcher(pair()[0], callback);
      if (events !== 0) watcher.start(events);
      return watcher;
    };
    let calls = 0;
    const kept = [];
    native.busyPoll(50, new Int32Array(1), 1);
    for (let i = 0; i < 10; i++) {
      kept.push(watch(1), watch(0));
      watch(0);
      watch(1).stop();
    }
    const ends = pair();
    const watchers = { busy: 0 };
    // Told again in every turn.
    kept.push(watch(2, () => {
      if (++calls === 3) parentPort.postMessage({ fd: ends[1] });
      native.lseek(ends[0], 0n, 0);
      for (let i = 0; i < 1000; i++) JSON.parse('[1, 2, 3]');
    }));
    native.receiveDescriptor(ends[0]).then(() => parentPort.postMessage('never'));
    for (let i = 0; i < 50; i++) {
      native.truncate('/nonexistent/' + i, 0n).then(() => {});
      native.pwrites(-1, [new Uint8Array(64)], new Uint32Array([0, 64]), new BigInt64Array(1),
        new Int32Array(1)).then(() => {});
    }
    watch(1).close();
    process.on('exit', () => watch(1));
    kept.push(watch(1));
    watch(2).close();
  `;

  const start = (): Worker => new Worker(BODY, { eval: true, workerData: { addon: ADDON } });
  const ready = (worker: Worker): Promise<number> =>
    new Promise((resolve, reject) => {
      worker.once('message', ({ fd }: { fd: number }) => resolve(fd));
      worker.once('error', reject);
    });

  it('load it side by side, and end with all they left open', TIMED, async () => {
    for (let round = 0; round < 3; round++) {
      const workers = Array.from({ length: 6 }, start);
      const messages: unknown[] = [];
      await Promise.all(
        workers.map(async (worker) => {
          const fd = await ready(worker);
          worker.on('message', (message: unknown) => messages.push(message));
          assert.equal(await worker.terminate(), 1);
          assert.equal(native.close(fd), 0);
        }),
      );
      assert.deepEqual(messages, []);
    }
    // This thread goes on as before.
    using fds = new Descriptors();
    assert.deepEqual(await nextEvent(fds.pair()[0], WRITABLE), [0, WRITABLE]);
  });

  it('and the process end in good order, whatever is open and under way', TIMED, async () => {
    const place = await Workplace.create();
    try {
      // The main thread leaves as much behind as the others do.
      const body = `
        const { Worker } = require('node:worker_threads');
        const addon = process.argv[1];
        const code = ${JSON.stringify(BODY)};
        const workers = Array.from({ length: 4 }, () =>
          new Worker(code, { eval: true, workerData: { addon } }));
        const ready = workers.map((worker) => new Promise((resolve, reject) => {
          worker.once('message', resolve);
          worker.once('error', reject);
        }));
        Promise.all(ready).then(async () => {
          // Two are ended, two are left to the end of the process.
          console.log(await workers[0].terminate(), await workers[1].terminate());
          const native = require(addon);
          const out = new Int32Array(2);
          native.socketpair(out);
          const watcher = new native.PollWatcher(out[0], () => {});
          watcher.start(1);
          new native.PollWatcher(native.dup(out[0]), () => {}).start(2);
          native.receiveDescriptor(out[1]);
          for (let i = 0; i < 50; i++) native.truncate('/nonexistent', 0n);
          process.exit(0);
        });`;
      for (let round = 0; round < 3; round++) {
        const result = await place.run(process.execPath, ['-e', body, ADDON]);
        const { status, signal, stdout, stderr } = result;
        assert.deepEqual(
          { status, signal, stdout, stderr },
          { status: 0, signal: null, stdout: '1 1\n', stderr: '' },
        );
      }
    } finally {
      await place.remove();
    }
  });

  it('end by an exception of a callback, which the parent is told', TIMED, async () => {
    const worker = new Worker(
      `const { workerData } = require('node:worker_threads');
       const native = require(workerData.addon);
       const out = new Int32Array(2);
       native.socketpair(out);
       new native.PollWatcher(out[0], () => { throw new Error('thrown in a worker'); }).start(2);`,
      { eval: true, workerData: { addon: ADDON } },
    );
    const failed = new Promise((resolve) => worker.once('error', resolve));
    const status = new Promise((resolve) => worker.once('exit', resolve));
    assert.match(String(await failed), /thrown in a worker/);
    assert.equal(await status, 1);
  });

  it(
    'leave no descriptor open that came when nobody could take it',
    { ...TIMED, ...requires({ programs: ['python3'] }) },
    async () => {
      using fds = new Descriptors();
      const [ours, theirs] = fds.pair();
      const place = await Workplace.create();
      try {
        const path = await place.file('late');
        assert.equal(await python(SEND, [path], theirs), 0);
        // It takes the descriptor off its event loop, which it then never comes back to.
        const worker = new Worker(
          `const { workerData } = require('node:worker_threads');
           const native = require(workerData.addon);
           native.receiveDescriptor(workerData.ours);
           Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);`,
          { eval: true, workerData: { addon: ADDON, ours } },
        );
        try {
          await until('the descriptor is here', () => openLinks().includes(path), DEADLINE / 2);
        } finally {
          assert.equal(await worker.terminate(), 1);
        }
        assert.ok(!openLinks().includes(path));
      } finally {
        await place.remove();
      }
    },
  );
});
