/**
 * A disk in memory. It takes memory for what was written, in pages of 32 KiB, and gives it back for
 * what is trimmed or zeroed.
 */

import { BufferPool } from '../../buffer-pool.js';
import { HEADROOM } from '../../disk/disk.js';
import type {
  Disk,
  DiskInfo,
  Extent,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from '../../disk/disk.js';
import { errno } from '../../errno.js';
import { DEFAULT_MAX_PAYLOAD } from '../../nbd/constants.js';
import { parseSize } from '../../sizes.js';
import { DIRECTORY_BYTES, PAGE_BYTES, PageMap, ZERO_PAGE } from './page-map.js';
import { PluginError } from './index.js';
import type { PluginOptions } from './index.js';

/** For the data of reads on their way to clients. */
const KEPT_BYTES = 16 * 1024 * 1024;
/** In one answer. */
const MAX_EXTENTS = 1024;
/** How many directories one answer looks at, which is 128 GiB. */
const MAX_DIRECTORIES = 4096;

const DIRECTORY_SHIFT = BigInt(Math.log2(DIRECTORY_BYTES));
const DIRECTORY_MASK = BigInt(DIRECTORY_BYTES - 1);
const PAGE_SHIFT = Math.log2(PAGE_BYTES);

/** @param size as written on the command line @throws SizeError; PluginError */
export function openMemory(size: string, options: PluginOptions): Promise<MemoryDisk> {
  const bytes = parseSize(size);
  if (bytes === 0n) throw new PluginError('a disk of size 0 has no room for anything');
  return Promise.resolve(new MemoryDisk(bytes, options));
}

export class MemoryDisk implements Disk {
  readonly info: DiskInfo;
  readonly #pages = new PageMap();
  readonly #pool = new BufferPool(KEPT_BYTES);

  /** @param size in bytes, over 0 */
  constructor(size: bigint, options: PluginOptions = { readOnly: false }) {
    this.info = {
      size,
      readOnly: options.readOnly,
      // There is nothing that would be more durable: both succeed at once.
      canFlush: true,
      canFua: true,
      canTrim: true,
      canZero: true,
      canExtents: true,
      canMultiConn: true,
      rotational: false,
      limits: { minimum: 1, preferred: 4096, maximum: DEFAULT_MAX_PAYLOAD },
    };
  }

  /** How much memory the content takes, in bytes. */
  get allocatedBytes(): number {
    return this.#pages.allocated * PAGE_BYTES;
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    let memory;
    try {
      memory = this.#pool.take(HEADROOM + length);
    } catch (error) {
      reply.fail(noMemory(error));
      return;
    }
    const { bytes } = memory;
    eachPage(offset, length, (directory, number, from, to, at) => {
      const page = this.#pages.get(directory, number);
      const target = HEADROOM + at;
      if (page === undefined) bytes.fill(0, target, target + to - from);
      else page.copy(bytes, target, from, to);
    });
    reply.data(bytes, HEADROOM, memory);
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    _options: WriteOptions,
    reply: Reply,
  ): void {
    try {
      eachPage(offset, length, (directory, number, from, to, at) => {
        const source = start + at;
        const count = to - from;
        // Zeroes where there are zeroes already need no memory.
        if (bytes[source] === 0 && isZero(bytes, source, count)) {
          const page = this.#pages.get(directory, number);
          if (page === undefined || page === ZERO_PAGE) return;
        }
        const page = this.#pages.writable(directory, number, count === PAGE_BYTES);
        bytes.copy(page, from, source, source + count);
      });
    } catch (error) {
      reply.done(noMemory(error));
      return;
    }
    reply.done(0);
  }

  flush(reply: Reply): void {
    reply.done(0);
  }

  /** Frees the pages that lie in the range as a whole. */
  trim(offset: bigint, length: bigint, _options: WriteOptions, reply: Reply): void {
    this.#clear(offset, length, false, true);
    reply.done(0);
  }

  /**
   * Where no hole is wanted, pages without memory are marked as allocated, and reported so. They get
   * memory when something is written: as the system itself promises more memory than it has, taking
   * it now would not make a later write any safer, and zeroing a disk of 1 TiB would take 1 TiB.
   */
  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    try {
      this.#clear(offset, length, true, !options.noHole);
    } catch (error) {
      reply.done(noMemory(error));
      return;
    }
    reply.done(0);
  }

  /** @param edges whether pages of which only a part lies in the range are zeroed there */
  #clear(offset: bigint, length: bigint, edges: boolean, hole: boolean): void {
    const end = offset + length;
    const last = Number((end - 1n) >> DIRECTORY_SHIFT);
    let at = offset;
    while (at < end) {
      const directory = Number(at >> DIRECTORY_SHIFT);
      if ((at & DIRECTORY_MASK) === 0n && hole && last > directory) {
        // Whole directories at once.
        this.#pages.clearDirectories(directory, last);
        at = BigInt(last) << DIRECTORY_SHIFT;
        continue;
      }
      const base = BigInt(directory) << DIRECTORY_SHIFT;
      const from = Number(at - base);
      const to = directory === last ? Number(end - base) : DIRECTORY_BYTES;
      this.#clearPart(directory, from, to, edges, hole);
      at = base + BigInt(to);
    }
  }

  /** Clears the bytes of one directory from `from` to `to`. */
  #clearPart(directory: number, from: number, to: number, edges: boolean, hole: boolean): void {
    const first = Math.ceil(from / PAGE_BYTES);
    const end = Math.floor(to / PAGE_BYTES);
    if (first < end) this.#pages.clear(directory, first, end, hole);
    if (!edges) return;
    const firstByte = first * PAGE_BYTES;
    const endByte = end * PAGE_BYTES;
    if (from < firstByte) this.#zeroEdge(directory, from, Math.min(to, firstByte), hole);
    if (to > endByte && endByte >= from) this.#zeroEdge(directory, endByte, to, hole);
  }

  /** Zeroes a part of one page. */
  #zeroEdge(directory: number, from: number, to: number, hole: boolean): void {
    const number = from >>> PAGE_SHIFT;
    const page = this.#pages.get(directory, number);
    if (page === undefined) {
      if (!hole) this.#pages.clear(directory, number, number + 1, false);
    } else if (page !== ZERO_PAGE) {
      const start = number * PAGE_BYTES;
      page.fill(0, from - start, to - start);
    }
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    const end = offset + length;
    const found: { length: bigint; hole: boolean; zero: boolean }[] = [];
    const add = (count: bigint, page: Buffer | undefined): boolean => {
      const hole = page === undefined;
      const zero = hole || page === ZERO_PAGE;
      const before = found.at(-1);
      if (before?.hole === hole && before.zero === zero) {
        before.length += count;
        return true;
      }
      if (found.length === MAX_EXTENTS) return false;
      found.push({ length: count, hole, zero });
      return true;
    };
    let at = offset;
    for (let i = 0; i < MAX_DIRECTORIES && at < end; i++) {
      const number = at >> DIRECTORY_SHIFT;
      const base = number << DIRECTORY_SHIFT;
      const directoryEnd = base + BigInt(DIRECTORY_BYTES);
      const stop = directoryEnd < end ? directoryEnd : end;
      const pages = this.#pages.directory(Number(number));
      if (pages === undefined) {
        if (!add(stop - at, undefined)) break;
      } else if (!addPages(pages, Number(at - base), Number(stop - base), add)) {
        break;
      }
      at = stop;
    }
    reply.extents(found satisfies Extent[]);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Adds those of one directory, like ones together. @returns false if there is no room for more */
function addPages(
  pages: readonly (Buffer | undefined)[],
  from: number,
  to: number,
  add: (count: bigint, page: Buffer | undefined) => boolean,
): boolean {
  let at = from;
  while (at < to) {
    const kind = kindOf(pages[at >>> PAGE_SHIFT]);
    const page = pages[at >>> PAGE_SHIFT];
    let next = (at >>> PAGE_SHIFT) + 1;
    while (next * PAGE_BYTES < to && kindOf(pages[next]) === kind) next++;
    const end = Math.min(next * PAGE_BYTES, to);
    if (!add(BigInt(end - at), page)) return false;
    at = end;
  }
  return true;
}

function kindOf(page: Buffer | undefined): 'hole' | 'zero' | 'data' {
  if (page === undefined) return 'hole';
  return page === ZERO_PAGE ? 'zero' : 'data';
}

/**
 * Goes through a range page by page.
 * @param visit gets where the page is, which of its bytes are in the range, and where these are in it
 */
function eachPage(
  offset: bigint,
  length: number,
  visit: (directory: number, number: number, from: number, to: number, at: number) => void,
): void {
  let directory = Number(offset >> DIRECTORY_SHIFT);
  let within = Number(offset & DIRECTORY_MASK);
  let at = 0;
  while (at < length) {
    const number = within >>> PAGE_SHIFT;
    const from = within & (PAGE_BYTES - 1);
    const to = Math.min(PAGE_BYTES, from + length - at);
    visit(directory, number, from, to, at);
    at += to - from;
    within += to - from;
    if (within === DIRECTORY_BYTES) {
      within = 0;
      directory++;
    }
  }
}

/** @param count at most that of a page */
function isZero(bytes: Buffer, start: number, count: number): boolean {
  return ZERO_PAGE.compare(bytes, start, start + count, 0, count) === 0;
}

/** @returns ENOMEM @throws the error, where it is another one */
function noMemory(error: unknown): number {
  if (error instanceof RangeError) return errno.ENOMEM;
  throw error;
}
