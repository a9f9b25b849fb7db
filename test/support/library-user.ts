/**
 * A program that uses the library, for tests to start: nobody may touch a mount of their own. It mounts a disk,
 * says so, and does what it is told on its standard input, a word a line.
 *
 *     node library-user.js '{"at": "disk.raw", "disk": "memory"}'
 */

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { connect, diskOf, memoryDisk, mount } from '../../src/index.js';
import type { DiskSource, MountOptions, MountedDisk } from '../../src/index.js';
import { within } from '../../src/deadline.js';
import type { Disk } from '../../src/disk/disk.js';
import { readDisk } from '../../src/disk/promises.js';

export interface Plan extends Omit<MountOptions, 'disk' | 'signal' | 'onWarning'> {
  /**
   * In memory, 16 MiB; one that takes no write; one that cannot flush; functions that are none; one that never answers a write, or
   * anything; or the export of a URI.
   */
  readonly disk: string;
  /** Milliseconds after which the attempt is given up. */
  readonly abortAfter?: number;
  /** It is given up when all is mounted, right after the last look at the signal. */
  readonly abortAtLast?: boolean;
}

const never = (): Promise<never> => new Promise(() => undefined);

async function open(kind: string): Promise<DiskSource> {
  const size = 16 * 1024 * 1024;
  const read = (_offset: number, length: number): Buffer => Buffer.alloc(length, 'r');
  switch (kind) {
    case 'memory':
      return memoryDisk(size);
    case 'full':
      return diskOf({
        size,
        read,
        write() {
          throw Object.assign(new Error('full'), { code: 'ENOSPC' });
        },
      });
    case 'no flush':
      return diskOf({
        size,
        read,
        write: () => undefined,
        flush() {
          throw Object.assign(new Error('no such call'), { code: 'ENOSYS' });
        },
      });
    case 'no write':
      return diskOf({ size, read, write: never });
    case 'forgotten':
      // As JavaScript lets one do it.
      return { size, read } as unknown as DiskSource;
    case 'no answer':
      return diskOf({ size, read: never, write: never });
    default:
      return connect(kind);
  }
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function tell(what: string, doing: Promise<unknown>): Promise<void> {
  try {
    await doing;
    say(what);
  } catch (error) {
    const { name, code, message } = error as NodeJS.ErrnoException;
    say(`${what} failed: ${name} ${code ?? ''}: ${message}`);
  }
}

async function obey(word: string, mounted: MountedDisk, disk: Disk): Promise<void> {
  switch (word) {
    case 'unmount':
      await tell('unmounted', mounted.unmount({ timeout: 300 }));
      break;
    case 'unmount-nan':
      await tell('unmounted', mounted.unmount({ timeout: Number.NaN }));
      break;
    case 'close':
      await tell('closed', mounted.close());
      break;
    case 'abort':
      stop.abort();
      await tell('ended', mounted.closed);
      break;
    case 'show':
      say(`content: ${(await readDisk(disk, 0n, 16)).toString('latin1')}`);
      break;
    default:
      throw new Error(`what is ${word}?`);
  }
}

const stop = new AbortController();
const {
  disk: kind,
  abortAfter,
  abortAtLast,
  ...options
} = JSON.parse(process.argv[2] ?? '') as Plan;
if (abortAfter !== undefined) setTimeout(() => stop.abort(), abortAfter);
if (abortAtLast === true) {
  const look = stop.signal.throwIfAborted.bind(stop.signal);
  stop.signal.throwIfAborted = () => {
    look();
    if (readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${options.at} `)) {
      queueMicrotask(() => stop.abort());
    }
  };
}
const before = process.eventNames().length;
const source = await open(kind);
const disk = 'disk' in source ? source.disk : source;
await tell(
  'over',
  (async () => {
    await using mounted = await mount({
      ...options,
      disk: source,
      signal: stop.signal,
      onWarning: (line) => say(`warning: ${line}`),
    });
    say(`handlers: ${process.eventNames().length - before}`);
    say(`mounted: ${mounted.path}`);
    const words = createInterface(process.stdin);
    const end = (): void => words.close();
    mounted.closed.then(end, end);
    for await (const word of words) await obey(word, mounted, disk);
  })(),
);
// A disk that does not answer is not waited for.
if ('close' in disk) await within(disk.close(), 500);
