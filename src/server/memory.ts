/** Memory, where there is any. */

import type { BufferPool, PooledBuffer } from '../buffer-pool.js';

/** At least `length` bytes, or undefined where there is no memory for them. */
export function takeFrom(pool: BufferPool, length: number): PooledBuffer | undefined {
  try {
    return pool.take(length);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}
