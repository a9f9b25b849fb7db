/** Messages that were right, made wrong: the second half of structured fuzzing. */

import fc from 'fast-check';
import { bytes, u32, u64 } from './numbers.js';

export type Mutation =
  | { readonly kind: 'byte' | 'word'; readonly frame: number; at: number; value: number }
  | { readonly kind: 'long'; readonly frame: number; at: number; value: bigint }
  | { readonly kind: 'nudge'; readonly frame: number; at: number; width: number; by: number }
  | { readonly kind: 'cut'; readonly frame: number; at: number }
  | { readonly kind: 'insert'; readonly frame: number; at: number; value: Buffer }
  | { readonly kind: 'drop'; readonly frame: number }
  | { readonly kind: 'double'; readonly frame: number; times: number }
  | { readonly kind: 'swap'; readonly frame: number; other: number };

/** Where numbers are that decide something: mostly in the first bytes of a message. */
const place = fc.oneof({ arbitrary: fc.nat({ max: 40 }), weight: 3 }, fc.nat());
/** Where the fields of messages are, in all of the protocols. */
const field = fc.constantFrom(0, 4, 6, 8, 12, 16, 18, 20, 22, 24, 28, 30, 32, 40, 48, 56);
const frame = fc.nat();

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({ kind: fc.constant('byte'), frame, at: place, value: fc.nat({ max: 255 }) }),
  fc.record({ kind: fc.constant('word'), frame, at: place, value: u32 }),
  fc.record({ kind: fc.constant('long'), frame, at: place, value: u64 }),
  // What is only just wrong.
  {
    arbitrary: fc.record({
      kind: fc.constant('nudge'),
      frame,
      at: field,
      width: fc.constantFrom(2, 4, 8),
      by: fc.oneof(fc.integer({ min: -9, max: 9 }), fc.constantFrom(-4096, -512, 512, 4096)),
    }),
    weight: 3,
  },
  fc.record({ kind: fc.constant('cut'), frame, at: place }),
  fc.record({ kind: fc.constant('insert'), frame, at: place, value: bytes(40) }),
  fc.record({ kind: fc.constant('drop'), frame }),
  fc.record({ kind: fc.constant('double'), frame, times: fc.constantFrom(1, 1, 1, 2, 2, 3, 100) }),
  fc.record({ kind: fc.constant('swap'), frame, other: frame }),
);

/** Several of them; none at all, too, which shows that what was recorded is right. */
export const mutations: fc.Arbitrary<Mutation[]> = fc.array(mutation, { maxLength: 5 });

/** @returns other frames; those that were given stay as they are */
export function mutate(frames: readonly Buffer[], changes: readonly Mutation[]): Buffer[] {
  const all = [...frames];
  for (const change of changes) {
    if (all.length === 0) break;
    const index = change.frame % all.length;
    const old = all[index] ?? Buffer.alloc(0);
    switch (change.kind) {
      case 'drop':
        all.splice(index, 1);
        break;
      case 'double':
        all.splice(index, 0, ...Array.from({ length: change.times }, () => old));
        break;
      case 'swap': {
        const other = change.other % all.length;
        all[index] = all[other] ?? old;
        all[other] = old;
        break;
      }
      default:
        all[index] = changed(old, change);
    }
  }
  return all;
}

function changed(
  old: Buffer,
  change: Exclude<Mutation, { kind: 'drop' | 'double' | 'swap' }>,
): Buffer {
  const at = change.at % (old.length + 1);
  if (change.kind === 'cut') return old.subarray(0, at);
  if (change.kind === 'insert') {
    return Buffer.concat([old.subarray(0, at), change.value, old.subarray(at)]);
  }
  const fresh = Buffer.from(old);
  const left = old.length - at;
  if (change.kind === 'nudge' && left >= change.width) nudge(fresh.subarray(at), change);
  if (change.kind === 'byte' && left >= 1) fresh.writeUInt8(change.value, at);
  if (change.kind === 'word' && left >= 4) fresh.writeUInt32BE(change.value, at);
  if (change.kind === 'long' && left >= 8) fresh.writeBigUInt64BE(change.value, at);
  return fresh;
}

/** Adds to a number at the start, which wraps. */
function nudge(bytes: Buffer, { width, by }: { width: number; by: number }): void {
  let value = BigInt(by);
  for (let i = 0; i < width; i++) value += BigInt(bytes[i] ?? 0) << BigInt(8 * (width - 1 - i));
  for (let i = width - 1; i >= 0; i--) {
    bytes[i] = Number(value & 0xffn);
    value >>= 8n;
  }
}

/** Lengths of the pieces in which a stream arrives, over and over; 0 is all that is left. */
export const pieceLengths: fc.Arbitrary<number[]> = fc.oneof(
  { arbitrary: fc.constant<number[]>([0]), weight: 3 },
  fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 8 }),
);

/** A stream of these bytes in such pieces; what would be too many of them comes at once. */
export function inPieces(whole: Buffer, lengths: readonly number[]): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < whole.length;) {
    const length = lengths[pieces.length % lengths.length] ?? 0;
    const end = length === 0 || pieces.length > 500 ? whole.length : at + length;
    pieces.push(whole.subarray(at, end));
    at = end;
  }
  return pieces;
}
