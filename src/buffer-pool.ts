/** Memory that is used again, in sizes of powers of two. */

/** Told when somebody is done with memory that was handed over. */
export interface Owner {
  /** It is not used any more. */
  release(): void;
}

export interface PooledBuffer extends Owner {
  /** At least as long as was asked. */
  readonly bytes: Buffer;
}

/** Less is not worth telling apart. */
const SMALLEST_CLASS = 12;

export class BufferPool {
  readonly #classes: PooledBuffer[][] = [];
  readonly #mostKept: number;
  #kept = 0;

  /** @param mostKept how many bytes that nobody uses are kept for the next one */
  constructor(mostKept: number) {
    this.#mostKept = mostKept;
  }

  /** @param length in bytes, at most 2^31. @throws RangeError if there is no memory */
  take(length: number): PooledBuffer {
    if (length > 2 ** 31) throw new RangeError(`${length} bytes are more than a buffer has`);
    const order = Math.max(SMALLEST_CLASS, 32 - Math.clz32(Math.max(length, 1) - 1));
    const kept = this.#classes[order]?.pop();
    if (kept !== undefined) {
      this.#kept -= kept.bytes.length;
      return kept;
    }
    const bytes = Buffer.allocUnsafeSlow(2 ** order);
    const buffer: PooledBuffer = { bytes, release: () => this.#give(order, buffer) };
    return buffer;
  }

  #give(order: number, buffer: PooledBuffer): void {
    if (this.#kept + buffer.bytes.length > this.#mostKept) return;
    this.#kept += buffer.bytes.length;
    (this.#classes[order] ??= []).push(buffer);
  }
}
