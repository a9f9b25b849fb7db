/**
 * A disk that forgets at a power cut what was not flushed, as real ones do. What is stable is in a file;
 * what was written since the last flush is in memory only, sector by sector with all its versions, and a
 * cut leaves of each sector any of them, whatever the order in which they were written.
 *
 * It takes what the protocol allows: a flush covers what was answered before it was asked and not a byte
 * more, FUA covers the sectors of its own request, and requests are answered in any order.
 */

import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { HEADROOM } from '../../src/disk/disk.js';
import type {
  Disk,
  DiskInfo,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from '../../src/disk/disk.js';

export const SECTOR = 512;
/** What is found where a range was trimmed: anything but what its user might hope for. */
const TRIMMED = 0xaa;
/** Milliseconds that an answer takes at the most. */
const SLOWEST = 4;
/** Much is written while a flush is under way, which it does not cover. */
const SLOWEST_FLUSH = 40;

interface Change {
  /** The count of the disk's answers when it was answered; none is larger until then. */
  answered: number;
}

interface Version {
  readonly data: Buffer;
  readonly change: Change;
}

export interface Forgotten {
  /** How many sectors had something to lose. */
  readonly volatile: number;
  /** How many of them did not get what was written last. */
  readonly lost: number;
}

export class PowerCutDisk implements Disk {
  readonly info: DiskInfo;
  readonly #image: number;
  readonly #content: Buffer;
  readonly #random: () => number;
  /** What a sector held since it was stable, oldest first; never empty. */
  readonly #volatile = new Map<number, Version[]>();
  #answers = 0;
  /** Called when a flush was answered. */
  onFlushed: (() => void) | undefined;

  /**
   * @param path of the image, a multiple of 512 bytes long
   * @param random numbers below 1, for the order of answers
   */
  constructor(path: string, random: () => number) {
    this.#image = openSync(path, 'r+');
    const { size } = fstatSync(this.#image);
    if (size === 0 || size % SECTOR !== 0) throw new Error(`${path} has ${size} bytes`);
    this.#content = Buffer.alloc(size);
    readSync(this.#image, this.#content, 0, size, 0);
    this.#random = random;
    this.info = {
      size: BigInt(size),
      readOnly: false,
      canFlush: true,
      canFua: true,
      canTrim: true,
      canZero: true,
      canExtents: false,
      canMultiConn: true,
      rotational: false,
      limits: { minimum: 1, preferred: 4096, maximum: 32 * 1024 * 1024 },
    };
  }

  /** At once, at the end of the turn, or some milliseconds later. */
  #later(answer: () => void, slowest = SLOWEST): void {
    const choice = this.#random();
    if (choice < 0.4) answer();
    else if (choice < 0.7) setImmediate(answer);
    else setTimeout(answer, this.#random() * slowest);
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    this.#later(() => {
      const bytes = Buffer.allocUnsafe(HEADROOM + length);
      this.#content.copy(bytes, HEADROOM, Number(offset), Number(offset) + length);
      reply.data(bytes, HEADROOM);
    });
  }

  write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    bytes.copy(this.#content, Number(offset), start, start + length);
    this.#changed(Number(offset), length, options, reply);
  }

  trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    this.#content.fill(TRIMMED, Number(offset), Number(offset + length));
    this.#changed(Number(offset), Number(length), options, reply);
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    this.#content.fill(0, Number(offset), Number(offset + length));
    this.#changed(Number(offset), Number(length), options, reply);
  }

  /** Notes a change of the content, and answers it. */
  #changed(offset: number, length: number, options: WriteOptions, reply: Reply): void {
    const first = Math.floor(offset / SECTOR);
    const end = Math.ceil((offset + length) / SECTOR);
    const change: Change = { answered: Infinity };
    const copy = Buffer.from(this.#content.subarray(first * SECTOR, end * SECTOR));
    for (let sector = first; sector < end; sector++) {
      const at = (sector - first) * SECTOR;
      const version = { data: copy.subarray(at, at + SECTOR), change };
      const versions = this.#volatile.get(sector);
      if (versions === undefined) this.#volatile.set(sector, [version]);
      else versions.push(version);
    }
    this.#later(() => {
      if (options.fua) this.#settle((version) => version.change === change);
      change.answered = ++this.#answers;
      reply.done(0);
    });
  }

  flush(reply: Reply): void {
    const covered = this.#answers;
    this.#later(() => {
      this.#settle(({ change }) => change.answered <= covered);
      reply.done(0);
      this.onFlushed?.();
    }, SLOWEST_FLUSH);
  }

  /** Makes the last version of each sector stable of which that is asked; what came later stays volatile. */
  #settle(isAsked: (version: Version) => boolean): void {
    const stable = new Map<number, Buffer>();
    for (const [sector, versions] of this.#volatile) {
      const index = versions.findLastIndex(isAsked);
      const version = versions[index];
      if (version === undefined) continue;
      stable.set(sector, version.data);
      if (index === versions.length - 1) this.#volatile.delete(sector);
      else versions.splice(0, index + 1);
    }
    this.#store(stable);
  }

  /** Neighbours go to the file in one piece. */
  #store(sectors: ReadonlyMap<number, Buffer>): void {
    let run: Buffer[] = [];
    let next = -1;
    const put = (): void => {
      const bytes = Buffer.concat(run);
      writeSync(this.#image, bytes, 0, bytes.length, next * SECTOR - bytes.length);
    };
    for (const [sector, data] of [...sectors].toSorted(([a], [b]) => a - b)) {
      if (sector !== next && run.length > 0) {
        put();
        run = [];
      }
      run.push(data);
      next = sector + 1;
    }
    if (run.length > 0) put();
  }

  /**
   * Leaves in the file what a power cut may leave. The disk must not be used afterwards.
   * @param kept which part of the sectors got any of the versions that were on their way, from 0 to 1
   */
  powerCut(kept: number): Forgotten {
    const stable = new Map<number, Buffer>();
    let lost = 0;
    for (const [sector, versions] of this.#volatile) {
      const chosen = Math.floor(this.#random() * versions.length);
      const version = this.#random() < kept ? versions[chosen] : undefined;
      if (version !== undefined) stable.set(sector, version.data);
      if (version === undefined || chosen < versions.length - 1) lost++;
    }
    this.#store(stable);
    return { volatile: this.#volatile.size, lost };
  }

  extents(_offset: bigint, length: bigint, reply: ExtentsReply): void {
    reply.extents([{ length, hole: false, zero: false }]);
  }

  close(): Promise<void> {
    closeSync(this.#image);
    return Promise.resolve();
  }
}
