/**
 * How long things took: counts in buckets whose bounds grow by a sixteenth of a power of two, so that any
 * quantile is known to about 3 %, in a fixed piece of memory, at the cost of a few instructions for each value.
 */

/** Of the fraction of a number, so many bits tell its bucket: 16 of them for each power of two. */
const FRACTION_BITS = 4;
const PER_OCTAVE = 2 ** FRACTION_BITS;
/** Up to 2^32 µs, which is more than an hour; what takes longer counts as that. */
const OCTAVES = 32;
const BUCKETS = OCTAVES * PER_OCTAVE;
/** Of the upper half of a double: its fraction has 20 bits there, and its exponent stands above them. */
const SHIFT = 20 - FRACTION_BITS;
const EXPONENT_BIAS = 1023;
const FIRST = EXPONENT_BIAS << FRACTION_BITS;

/** To look at the bits of a number. */
const double = new Float64Array(1);
const halves = new Uint32Array(double.buffer);
const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
const UPPER = isLittleEndian ? 1 : 0;

function bucketOf(microseconds: number): number {
  double[0] = microseconds;
  const bucket = ((halves[UPPER] ?? 0) >>> SHIFT) - FIRST;
  // Below a microsecond, where a clock that goes backwards leads as well, the exponent is negative.
  if (!(microseconds >= 1)) return 0;
  return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/** The lower bound of a bucket, in microseconds. */
function boundOf(bucket: number): number {
  return 2 ** Math.floor(bucket / PER_OCTAVE) * (1 + (bucket % PER_OCTAVE) / PER_OCTAVE);
}

export class Histogram {
  /** Doubles, which count exactly to 2^53. */
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sum = 0;

  /** @param milliseconds 0 or more */
  add(milliseconds: number): void {
    const bucket = bucketOf(milliseconds * 1000);
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#count++;
    this.#sum += milliseconds;
  }

  get count(): number {
    return this.#count;
  }

  /** Milliseconds, of all together. */
  get sum(): number {
    return this.#sum;
  }

  /**
   * The value that a part of all values does not exceed, to about 3 %.
   * @param part from 0 to 1
   * @returns milliseconds, or undefined where there are no values
   */
  quantile(part: number): number | undefined {
    if (this.#count === 0) return undefined;
    const rank = Math.max(1, Math.ceil(part * this.#count));
    let seen = 0;
    let bucket = 0;
    for (; bucket < BUCKETS - 1; bucket++) {
      seen += this.#counts[bucket] ?? 0;
      if (seen >= rank) break;
    }
    // The middle, by which it is off by the same factor on either side.
    return Math.sqrt(boundOf(bucket) * boundOf(bucket + 1)) / 1000;
  }

  /**
   * How many values are below 2^k microseconds, exactly, for each k from `first` to `last`: powers of two are
   * bounds of buckets.
   */
  below(first: number, last: number): number[] {
    const counts: number[] = [];
    let seen = 0;
    let bucket = 0;
    for (let k = first; k <= last; k++) {
      for (; bucket < Math.min(k * PER_OCTAVE, BUCKETS); bucket++)
        seen += this.#counts[bucket] ?? 0;
      counts.push(seen);
    }
    return counts;
  }
}
