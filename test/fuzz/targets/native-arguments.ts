/**
 * The addon with arguments of any kind: it throws, or it does what was asked within the place that was
 * given, and touches nothing around it.
 */

import assert from 'node:assert/strict';
import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { native } from '../../../src/native.js';
import type { Target } from '../target.js';

type Name = 'read' | 'write' | 'readv' | 'writev' | 'preadNow' | 'pwrites';

type BareKind = 'descriptor' | 'detached' | 'undefined' | 'null' | 'object' | 'proxy' | 'view';

/** What stands for an argument: made anew for each case, as some kinds cannot be kept in a file. */
type Argument =
  | {
      readonly kind: 'bytes';
      readonly before: number;
      readonly length: number;
      readonly shared: boolean;
    }
  | { readonly kind: 'list'; readonly of: readonly Argument[] }
  | { readonly kind: 'ranges' | 'results' | 'offsets'; readonly values: readonly number[] }
  | { readonly kind: 'number'; readonly value: number | string }
  | { readonly kind: 'bigint'; readonly value: bigint }
  | {
      readonly kind: 'descriptor' | 'detached' | 'undefined' | 'null' | 'object' | 'proxy' | 'view';
    };

interface NativeInput {
  readonly name: Name;
  readonly args: readonly Argument[];
}

/** Of the memory that a place is a part of; what is not of the place holds this value. */
const ROOM = 4096;
const CANARY = 0xc5;

const count = fc.oneof(
  { arbitrary: fc.nat({ max: 80 }), weight: 8 },
  fc.constantFrom(4095, 4096, 4097, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1),
);
const number: fc.Arbitrary<Argument> = fc.oneof(
  { arbitrary: count.map((value) => ({ kind: 'number' as const, value })), weight: 6 },
  fc
    .constantFrom(-1, 0.5, 2 ** 32, 2 ** 53, -(2 ** 31) - 1, 'NaN', 'Infinity', '-Infinity')
    .map((value) => ({ kind: 'number' as const, value })),
);
const bytes: fc.Arbitrary<Argument> = fc.record({
  kind: fc.constant('bytes' as const),
  before: fc.nat({ max: 64 }),
  length: fc.nat({ max: 64 }),
  shared: fc.boolean(),
});
const wrong: fc.Arbitrary<Argument> = fc.oneof(
  fc
    .constantFrom<BareKind[]>(
      'detached',
      'undefined',
      'null',
      'object',
      'proxy',
      'view',
      'descriptor',
    )
    .map((kind) => ({ kind })),
  number,
  bytes,
  fc.bigInt().map((value) => ({ kind: 'bigint' as const, value })),
);
/** Mostly as it should be. */
const or = (right: fc.Arbitrary<Argument>): fc.Arbitrary<Argument> =>
  fc.oneof({ arbitrary: right, weight: 12 }, wrong);

const fd = or(fc.constant({ kind: 'descriptor' }));
const list = or(
  fc
    .array(fc.oneof({ arbitrary: bytes, weight: 12 }, wrong), { maxLength: 4 })
    .map((of) => ({ kind: 'list' as const, of })),
);
const numbers = (kind: 'ranges' | 'results' | 'offsets', most: number): fc.Arbitrary<Argument> =>
  or(fc.array(count, { maxLength: most }).map((values) => ({ kind, values })));
const offset = or(
  fc
    .oneof(fc.bigInt({ min: -2n, max: 100n }), fc.constantFrom(2n ** 63n - 1n, 2n ** 63n))
    .map((value) => ({ kind: 'bigint' as const, value })),
);

/** One too many and one too few, too. */
const call = (name: Name, ...args: fc.Arbitrary<Argument>[]): fc.Arbitrary<NativeInput> =>
  fc.tuple(fc.tuple(...args), fc.constantFrom(0, 0, 0, 0, 0, 0, -1, 1)).map(([all, more]) => ({
    name,
    args: more < 0 ? all.slice(0, -1) : more > 0 ? [...all, ...all.slice(0, 1)] : all,
  }));

/** A file without a name, for all cases: what is in it matters to none of them. */
let file: number | undefined;

function openFile(): number {
  const folder = mkdtempSync(join(tmpdir(), 'tsnbdfuse-native-'));
  writeFileSync(join(folder, 'file'), Buffer.alloc(8192));
  const fd = openSync(join(folder, 'file'), 'r+');
  rmSync(folder, { recursive: true });
  return fd;
}

/** Descriptors to read from or write to, which never make anybody wait. */
class Descriptors {
  readonly #out = new Int32Array(2);

  constructor() {
    assert.equal(native.socketpair(this.#out), 0);
    for (const one of this.#out) assert.equal(native.setNonblocking(one, true), 0);
    native.write(this.#out[1] ?? -1, new Uint8Array(8192), 0, 8192);
  }

  of(name: Name): number {
    if (name === 'preadNow' || name === 'pwrites') return (file ??= openFile());
    return this.#out[0] ?? -1;
  }

  close(): void {
    for (const one of this.#out) native.close(one);
  }
}

/** Makes arguments, and sees what became of the memory around them. */
class Arguments {
  readonly #rooms: { readonly all: Uint8Array; readonly from: number; readonly to: number }[] = [];
  readonly #fd: number;

  constructor(descriptor: number) {
    this.#fd = descriptor;
  }

  make(one: Argument): unknown {
    switch (one.kind) {
      case 'bytes': {
        const all = new Uint8Array(
          one.shared ? new SharedArrayBuffer(ROOM) : new ArrayBuffer(ROOM),
        );
        all.fill(CANARY);
        const to = one.before + one.length;
        this.#rooms.push({ all, from: one.before, to });
        return all.subarray(one.before, to);
      }
      case 'list':
        return one.of.map((each) => this.make(each));
      case 'ranges':
        return new Uint32Array(one.values);
      case 'results':
        return new Int32Array(one.values);
      case 'offsets':
        return new BigInt64Array(one.values.map(BigInt));
      case 'number':
        return Number(one.value);
      case 'bigint':
        return one.value;
      case 'descriptor':
        return this.#fd;
      case 'detached': {
        const gone = new Uint8Array(8);
        structuredClone(gone.buffer, { transfer: [gone.buffer] });
        return gone;
      }
      case 'undefined':
        return undefined;
      case 'null':
        return null;
      case 'object':
        return {};
      case 'proxy':
        return new Proxy([new Uint8Array(8)], {});
      case 'view':
        return new DataView(new ArrayBuffer(8));
    }
  }

  check(): void {
    for (const { all, from, to } of this.#rooms) {
      const around = all.every((byte, at) => (at >= from && at < to) || byte === CANARY);
      assert.ok(around, `the memory around the place from ${from} to ${to}`);
    }
  }
}

export const nativeTarget: Target<NativeInput> = {
  name: 'native-arguments',
  inputs: fc.oneof(
    call('read', fd, or(bytes), number, number),
    call('write', fd, or(bytes), number, number),
    call('readv', fd, list, numbers('ranges', 8), number, number),
    call('writev', fd, list, numbers('ranges', 8), number, number),
    call('preadNow', fd, or(bytes), number, number, offset),
    call('pwrites', fd, list, numbers('ranges', 8), numbers('offsets', 4), numbers('results', 4)),
  ),
  frames: () => 1,

  async run({ name, args }) {
    // A number in its place may be any descriptor of this process: only those that are none are used.
    const [first] = args;
    if (first?.kind === 'number' && Number(first.value) >= 0 && Number(first.value) < 2 ** 20)
      return;
    const descriptors = new Descriptors();
    try {
      const made = new Arguments(descriptors.of(name));
      const functions = native as unknown as Record<Name, (...all: unknown[]) => unknown>;
      try {
        const result = await functions[name](...args.map((one) => made.make(one)));
        assert.ok(Number.isInteger(result), String(result));
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        assert.ok(error instanceof TypeError || error instanceof RangeError, String(error));
      }
      made.check();
    } finally {
      descriptors.close();
    }
  },
};
