/**
 * A disk that takes every request, made of one that is particular: requests below the minimum block
 * size are done by read-modify-write at the edges, those over the maximum in parts, and zeroing is
 * done by writing zeroes where the disk cannot do it.
 */

import { errno } from '../errno.js';
import { HEADROOM } from './disk.js';
import type {
  Disk,
  DiskInfo,
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from './disk.js';
import { eachPart, inTurn } from './parts.js';
import { RangeLock } from './range-lock.js';

/** How much is zeroed with one write where the disk cannot zero. */
const ZERO_WRITE_BYTES = 1024 * 1024;

/**
 * @param most the longest read or write that will be asked for
 * @returns a disk that takes any request up to that, and can zero any range
 */
export function fitDisk(disk: Disk, most: number): Disk {
  return new FittedDisk(disk, most);
}

class FittedDisk implements Disk {
  readonly info: DiskInfo;
  readonly #disk: Disk;
  readonly #block: bigint;
  /** A multiple of the block size. */
  readonly #most: number;
  /** No request is below the block size, so that those that are not too long go straight on. */
  readonly #anyAlignment: boolean;
  readonly #lock = new RangeLock();

  constructor(disk: Disk, most: number) {
    const { info } = disk;
    this.#disk = disk;
    this.#block = BigInt(info.limits.minimum);
    this.#most = info.limits.maximum;
    this.#anyAlignment = info.limits.minimum === 1;
    this.info = {
      ...info,
      canZero: true,
      limits: { ...info.limits, minimum: 1, maximum: Math.max(most, info.limits.maximum) },
    };
  }

  #down(offset: bigint): bigint {
    return offset - (offset % this.#block);
  }

  /** A disk may end in the middle of a block: the end counts as aligned. */
  #up(offset: bigint): bigint {
    const up = this.#down(offset + this.#block - 1n);
    return up > this.info.size ? this.info.size : up;
  }

  read(offset: bigint, length: number, reply: ReadReply): void {
    if (this.#anyAlignment && length <= this.#most) {
      this.#disk.read(offset, length, reply);
      return;
    }
    const start = this.#down(offset);
    const end = this.#up(offset + BigInt(length));
    const whole = Number(end - start);
    const skip = Number(offset - start);
    if (whole > this.#most) {
      this.#readParts(start, whole, skip, reply);
    } else if (whole === length) {
      this.#disk.read(offset, length, reply);
    } else {
      this.#disk.read(start, whole, {
        data: (bytes, at, owner) => reply.data(bytes, at + skip, owner),
        fail: (code) => reply.fail(code),
      });
    }
  }

  #readParts(start: bigint, whole: number, skip: number, reply: ReadReply): void {
    const place = Buffer.allocUnsafeSlow(HEADROOM + whole);
    const done: Reply = {
      done(code) {
        if (code === 0) reply.data(place, HEADROOM + skip);
        else reply.fail(code);
      },
    };
    eachPart(start, BigInt(whole), this.#most, done, (offset, length, partReply) => {
      this.#disk.read(offset, length, {
        data(bytes, at, owner) {
          bytes.copy(place, HEADROOM + Number(offset - start), at, at + length);
          owner?.release();
          partReply.done(0);
        },
        fail: (code) => partReply.done(code),
      });
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
    if (this.#anyAlignment && length <= this.#most) {
      this.#disk.write(offset, bytes, start, length, options, reply);
      return;
    }
    this.#locked(offset, BigInt(length), reply, (first, end, unlocked) => {
      const whole = Number(end - first);
      if (whole === length) {
        // The payload is that of whoever asked.
        this.#writeParts(offset, bytes, start, length, options, {
          done: (code) => unlocked.done(code),
          keep: () => reply.keep?.(),
        });
        return;
      }
      const place = Buffer.allocUnsafeSlow(HEADROOM + whole);
      const into = HEADROOM + Number(offset - first);
      this.#readEdges(first, end, offset, offset + BigInt(length), place, (code) => {
        if (code !== 0) {
          unlocked.done(code);
          return;
        }
        bytes.copy(place, into, start, start + length);
        this.#writeParts(first, place, HEADROOM, whole, options, unlocked);
      });
    });
  }

  /** One part after the other: the headroom of each is the end of the one before. */
  #writeParts(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    eachPart(offset, BigInt(length), this.#most, reply, (partOffset, partLength, partReply) => {
      const at = start + Number(partOffset - offset);
      this.#disk.write(partOffset, bytes, at, partLength, options, partReply);
    });
  }

  /**
   * Reads the blocks of a range that a change covers in part: the first and the last.
   * @param place gets them, HEADROOM bytes from its start, at the distance they have on the disk
   */
  #readEdges(
    first: bigint,
    end: bigint,
    changeStart: bigint,
    changeEnd: bigint,
    place: Buffer,
    done: (code: number) => void,
  ): void {
    const edges: bigint[] = [];
    if (changeStart !== first) edges.push(first);
    const last = this.#down(end - 1n);
    if (changeEnd !== end && (last !== first || edges.length === 0)) edges.push(last);
    const next = (code: number): void => {
      const edge = edges.shift();
      if (code !== 0 || edge === undefined) {
        done(code);
        return;
      }
      const length = Number(this.#up(edge + 1n) - edge);
      this.#disk.read(edge, length, {
        data(bytes, at, owner) {
          bytes.copy(place, HEADROOM + Number(edge - first), at, at + length);
          owner?.release();
          next(0);
        },
        fail: next,
      });
    };
    next(0);
  }

  /**
   * Runs a change when nothing else changes the blocks it touches: a write between the read and the
   * write of another's read-modify-write would be undone.
   */
  #locked(
    offset: bigint,
    length: bigint,
    reply: Reply,
    run: (first: bigint, end: bigint, reply: Reply) => void,
  ): void {
    const first = this.#down(offset);
    const end = this.#up(offset + length);
    if (this.#anyAlignment) {
      run(first, end, reply);
      return;
    }
    this.#lock.whenFree(first, end, (release) =>
      run(first, end, {
        done(code) {
          release();
          reply.done(code);
        },
      }),
    );
  }

  flush(reply: Reply): void {
    this.#disk.flush(reply);
  }

  /** Trimming promises nothing, so that the parts of blocks at the edges are just left alone. */
  trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    const end = offset + length;
    const first = this.#down(offset + this.#block - 1n);
    const last = end === this.info.size ? end : this.#down(end);
    if (last <= first) reply.done(0);
    else this.#disk.trim(first, last - first, options, reply);
  }

  zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    this.#locked(offset, length, reply, (first, end, unlocked) => {
      const changeEnd = offset + length;
      // What covers whole blocks can be zeroed; a part of a block at either end is written.
      const headEnd = first === offset ? offset : min(this.#up(first + 1n), changeEnd);
      const tailStart = end === changeEnd ? changeEnd : max(this.#down(changeEnd), headEnd);
      const steps: ((reply: Reply) => void)[] = [];
      if (headEnd > offset) {
        steps.push((step) => this.#zeroInBlock(offset, headEnd, options, step));
      }
      if (tailStart > headEnd) {
        steps.push((step) => this.#zeroBlocks(headEnd, tailStart - headEnd, options, step));
      }
      if (changeEnd > tailStart) {
        steps.push((step) => this.#zeroInBlock(tailStart, changeEnd, options, step));
      }
      inTurn(steps, (step, next) => step(next), unlocked);
    });
  }

  /** Zeroes a part of one block. */
  #zeroInBlock(start: bigint, end: bigint, options: WriteOptions, reply: Reply): void {
    const first = this.#down(start);
    const whole = Number(this.#up(end) - first);
    const place = Buffer.allocUnsafeSlow(HEADROOM + whole);
    this.#readEdges(first, first + BigInt(whole), start, end, place, (code) => {
      if (code !== 0) {
        reply.done(code);
        return;
      }
      place.fill(0, HEADROOM + Number(start - first), HEADROOM + Number(end - first));
      this.#disk.write(first, place, HEADROOM, whole, options, reply);
    });
  }

  #zeroBlocks(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    if (!this.#disk.info.canZero) {
      this.#writeZeroes(offset, length, options, reply);
      return;
    }
    const tried: Reply = {
      done: (code) => {
        // A server may be able to zero some ranges and not others.
        if (code === errno.EOPNOTSUPP) this.#writeZeroes(offset, length, options, reply);
        else reply.done(code);
      },
    };
    this.#disk.zero(offset, length, options, tried);
  }

  #writeZeroes(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    const most = Math.min(this.#most, ZERO_WRITE_BYTES - (ZERO_WRITE_BYTES % Number(this.#block)));
    const size = length < BigInt(most) ? Number(length) : most;
    const zeroes = Buffer.alloc(HEADROOM + size);
    eachPart(offset, length, most, reply, (partOffset, partLength, partReply) => {
      this.#disk.write(partOffset, zeroes, HEADROOM, partLength, options, partReply);
    });
  }

  extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    const start = this.#down(offset);
    const skip = offset - start;
    this.#disk.extents(start, this.#up(offset + length) - start, {
      extents(found) {
        if (skip === 0n) {
          reply.extents(found);
          return;
        }
        // The server's extents are whole blocks, so that the first reaches beyond what is skipped,
        // unless it breaks that rule.
        const [first, ...rest] = found;
        if (first === undefined || first.length <= skip) reply.fail(errno.EIO);
        else reply.extents([{ ...first, length: first.length - skip }, ...rest]);
      },
      fail: (code) => reply.fail(code),
    });
  }

  close(): Promise<void> {
    return this.#disk.close();
  }
}

function min(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
