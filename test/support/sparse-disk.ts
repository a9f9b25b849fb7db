/** The content of a disk of any size, of which only pages that were written take memory. */

const PAGE = 4096n;

/** A stretch of a disk; without data it is a hole, which reads as zeroes. */
export interface Stretch {
  readonly offset: bigint;
  readonly length: bigint;
  readonly data: Buffer | undefined;
}

export class SparseDisk {
  readonly #pages = new Map<bigint, Buffer>();

  /** The parts of a range, each within one page. */
  static *#parts(offset: bigint, length: bigint): Generator<{ at: bigint; count: number }> {
    const end = offset + length;
    for (let at = offset; at < end;) {
      const next = (at / PAGE + 1n) * PAGE;
      const stop = next < end ? next : end;
      yield { at, count: Number(stop - at) };
      at = stop;
    }
  }

  write(offset: bigint, data: Buffer): void {
    for (const { at, count } of SparseDisk.#parts(offset, BigInt(data.length))) {
      const page = this.#pages.get(at / PAGE) ?? Buffer.alloc(Number(PAGE));
      const from = Number(at - offset);
      data.copy(page, Number(at % PAGE), from, from + count);
      this.#pages.set(at / PAGE, page);
    }
  }

  /** Its pages are few, whatever the range. */
  zero(offset: bigint, length: bigint): void {
    const end = offset + length;
    for (const [index, page] of this.#pages) {
      const start = index * PAGE;
      const from = start < offset ? offset - start : 0n;
      const to = start + PAGE > end ? end - start : PAGE;
      if (to <= from) continue;
      if (from === 0n && to === PAGE) this.#pages.delete(index);
      else page.fill(0, Number(from), Number(to));
    }
  }

  read(offset: bigint, length: number): Stretch[] {
    return Array.from(SparseDisk.#parts(offset, BigInt(length)), ({ at, count }) => {
      const from = Number(at % PAGE);
      const data = this.#pages.get(at / PAGE)?.subarray(from, from + count);
      return { offset: at, length: BigInt(count), data: data && Buffer.from(data) };
    });
  }

  /** What is data and what is a hole from an offset on, neighbours of one kind as one. */
  extents(offset: bigint, length: bigint): { length: bigint; hole: boolean }[] {
    const end = offset + length;
    const found: { length: bigint; hole: boolean }[] = [];
    const add = (to: bigint, hole: boolean, from: bigint): void => {
      const last = found.at(-1);
      if (last?.hole === hole) last.length += to - from;
      else if (to > from) found.push({ length: to - from, hole });
    };
    let at = offset;
    for (const index of [...this.#pages.keys()].toSorted((a, b) => (a < b ? -1 : 1))) {
      const start = index * PAGE;
      if (start + PAGE <= at || start >= end) continue;
      if (start > at) {
        add(start, true, at);
        at = start;
      }
      const stop = start + PAGE < end ? start + PAGE : end;
      add(stop, false, at);
      at = stop;
    }
    add(end, true, at);
    return found;
  }
}
