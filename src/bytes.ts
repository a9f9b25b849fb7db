/**
 * A bounds-checked cursor over received bytes, and one that makes messages, in either byte order:
 * NBD is big-endian, FUSE has the machine's order, which is little-endian on all we run on.
 *
 * They are for handshakes and rare messages. The data path reads its fixed headers through a
 * DataView that is made once for a buffer.
 */

export class ShortReadError extends Error {
  override readonly name = 'ShortReadError';

  constructor(wanted: number, left: number) {
    super(`message too short: ${wanted} bytes wanted, ${left} left`);
  }
}

/** A DataView on exactly the bytes of a Buffer. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export class ByteReader {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  readonly #little: boolean;
  #at: number;
  readonly #end: number;

  constructor(bytes: Buffer, order: 'big' | 'little', start = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
    this.#little = order === 'little';
    this.#at = start;
    this.#end = end;
  }

  /** How many bytes are left. */
  get left(): number {
    return this.#end - this.#at;
  }

  #advance(count: number): number {
    if (count > this.left) throw new ShortReadError(count, this.left);
    const at = this.#at;
    this.#at += count;
    return at;
  }

  u8(): number {
    return this.#view.getUint8(this.#advance(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#advance(2), this.#little);
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4), this.#little);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#advance(8), this.#little);
  }

  /** The next bytes themselves, not a copy. */
  bytes(count: number): Buffer {
    const at = this.#advance(count);
    return this.#bytes.subarray(at, at + count);
  }

  utf8(count: number): string {
    return this.bytes(count).toString('utf8');
  }

  skip(count: number): void {
    this.#advance(count);
  }
}

/** Makes a message; grows as needed. */
export class ByteWriter {
  #bytes: Buffer;
  #view: DataView;
  readonly #little: boolean;
  #length = 0;

  constructor(order: 'big' | 'little', capacity = 64) {
    this.#bytes = Buffer.alloc(capacity);
    this.#view = viewOf(this.#bytes);
    this.#little = order === 'little';
  }

  #advance(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(this.#length, 2 * this.#bytes.length));
      this.#bytes.copy(grown, 0, 0, at);
      this.#bytes = grown;
      this.#view = viewOf(grown);
    }
    return at;
  }

  u8(value: number): this {
    // In two steps: #advance may put another view in place.
    const at = this.#advance(1);
    this.#view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.#advance(2);
    this.#view.setUint16(at, value, this.#little);
    return this;
  }

  u32(value: number): this {
    const at = this.#advance(4);
    this.#view.setUint32(at, value, this.#little);
    return this;
  }

  u64(value: bigint): this {
    const at = this.#advance(8);
    this.#view.setBigUint64(at, value, this.#little);
    return this;
  }

  bytes(value: Uint8Array): this {
    const at = this.#advance(value.length);
    this.#bytes.set(value, at);
    return this;
  }

  utf8(value: string): this {
    return this.bytes(Buffer.from(value, 'utf8'));
  }

  zeroes(count: number): this {
    this.#advance(count);
    return this;
  }

  /** What was written so far. */
  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}
