/** Numbers and texts as somebody chooses them who means ill. */

import fc from 'fast-check';

const MIB = 1024 * 1024;

export const u16: fc.Arbitrary<number> = fc.oneof(
  fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 14, 0x100, 0x7fff, 0x8000, 0x8001, 0x8002, 0xffff),
  fc.nat({ max: 0xffff }),
);

export const u32: fc.Arbitrary<number> = fc.oneof(
  fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 14, 16, 20, 28, 32, 511, 512, 513),
  fc.constantFrom(4095, 4096, 4097, 8192, 8257, 65535, 65536, 65537, MIB, MIB + 1, 32 * MIB),
  fc.constantFrom(32 * MIB + 1, 64 * MIB, 64 * MIB + 1, 0x7fffffff, 0x80000000, 0x80000001),
  fc.constantFrom(0x80000005, 0x80000007, 0xfffffffe, 0xffffffff),
  fc.nat({ max: 0xffffffff }),
);

export const u64: fc.Arbitrary<bigint> = fc.oneof(
  fc.constantFrom(0n, 1n, 2n, 511n, 512n, 4096n, 65536n, 2n ** 20n, 2n ** 31n, 2n ** 32n - 1n),
  fc.constantFrom(2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 62n, 2n ** 63n - 1n, 2n ** 63n),
  fc.constantFrom(2n ** 63n + 1n, 2n ** 64n - 4096n, 2n ** 64n - 1n),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);

export const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));

/** What a terminal would obey, what is no UTF-8, and what is only long. */
export const text: fc.Arbitrary<Buffer> = fc
  .oneof(
    fc.constantFrom('', 'no', '\x1b[2J\x1b]0;title\x07', 'a\r\nb', '\u202egnp.exe', '\u2028', '\0'),
    fc.constantFrom('\x9b31m', 'x'.repeat(5000), '%s%n', 'base:allocation', 'base:'),
    fc.string({ maxLength: 40, unit: 'binary' }),
  )
  .map((value) => Buffer.from(value, value.startsWith('\x9b') ? 'latin1' : 'utf8'));
