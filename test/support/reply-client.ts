/**
 * A reply parser with commands in flight, and scripts of what a server sends it: each is replayed in
 * one piece, byte by byte, and split in two at every point, and has to give the same answers in the
 * same order.
 */

import assert from 'node:assert/strict';
import { viewOf } from '../../src/bytes.js';
import { HEADROOM } from '../../src/disk/disk.js';
import type { Extent } from '../../src/disk/disk.js';
import { errno, errnoName } from '../../src/errno.js';
import { Command } from '../../src/nbd/constants.js';
import { ProtocolError } from '../../src/nbd/errors.js';
import { InFlight } from '../../src/nbd/in-flight.js';
import { ReplyParser } from '../../src/nbd/reply-parser.js';

/** The id of base:allocation. */
export const CONTEXT = 7;
/** No reply is longer than the longest block status, or the data of the longest read here. */
const MOST_WANTED = 32 + 8 + 16 * 1024 * 1024;

/** What was agreed on: simple replies only, replies in chunks, or extended headers. */
export type Form = 'simple' | 'structured' | 'extended';

export interface Asked {
  readonly type: 'read' | 'write' | 'flush' | 'trim' | 'zero' | 'status';
  readonly offset?: bigint;
  readonly length?: number;
}

export const READ_8: Asked = { type: 'read', offset: 4096n, length: 8 };
export const FLUSH: Asked = { type: 'flush' };
export const WRITE: Asked = { type: 'write', offset: 0n, length: 512 };
export const STATUS: Asked = { type: 'status', offset: 0n, length: 8192 };

const TYPES = {
  read: Command.READ,
  write: Command.WRITE,
  flush: Command.FLUSH,
  trim: Command.TRIM,
  zero: Command.WRITE_ZEROES,
  status: Command.BLOCK_STATUS,
} as const;

/** Bytes as text: a zero as a dot. */
export const shown = (bytes: Buffer): string => bytes.toString('latin1').replaceAll('\0', '.');

function extentText({ length, hole: isHole, zero }: Extent): string {
  return `${length.toString()}${isHole ? ' hole' : ''}${zero ? ' zero' : ''}`;
}

/** A parser with commands in flight, and what they were answered: `0: abcd`, `1: EIO`, `2: done`. */
export class Client {
  readonly inFlight = new InFlight();
  readonly parser: ReplyParser;
  readonly answers: string[] = [];
  /** The data of reads that were answered with some, by their names. */
  readonly reads = new Map<number, Buffer>();
  /** Answers that were lent in the buffer they came in. */
  inPlace = 0;
  #asked = 0;
  #bytes = Buffer.alloc(0);
  #rest = Buffer.alloc(0);

  constructor(form: Form, allocationId: number | undefined = CONTEXT) {
    this.parser = new ReplyParser(this.inFlight, {
      structuredReplies: form !== 'simple',
      extendedHeaders: form === 'extended',
      allocationId,
    });
  }

  ask({ type, offset = 0n, length = 0 }: Asked): void {
    const name = this.#asked++;
    const answer = (text: string): void => void this.answers.push(`${name}: ${text}`);
    const command = this.inFlight.add(TYPES[type], 0, offset, length);
    if (type === 'read') {
      command.readReply = {
        data: (bytes, start) => {
          const read = Buffer.from(bytes.subarray(start, start + length));
          answer(shown(read));
          this.reads.set(name, read);
          if (bytes === this.#bytes) this.inPlace++;
          // It may be overwritten, the room before it as well; no other answer may suffer from it.
          assert.ok(start >= HEADROOM, 'headroom');
          bytes.fill('!', start - HEADROOM, start + length);
        },
        fail: (code) => answer(errnoName(code)),
      };
    } else if (type === 'status') {
      command.extentsReply = {
        extents: (extents) => answer(extents.map(extentText).join(', ')),
        fail: (code) => answer(errnoName(code)),
      };
    } else {
      command.reply = { done: (code) => answer(code === 0 ? 'done' : errnoName(code)) };
    }
  }

  /** @throws what the parser throws */
  feed(piece: Buffer): void {
    this.#bytes = Buffer.concat([Buffer.alloc(HEADROOM), this.#rest, piece]);
    const end = this.#bytes.length;
    const start = this.parser.parse(this.#bytes, viewOf(this.#bytes), HEADROOM, end);
    assert.ok(start >= HEADROOM && start <= end);
    this.#rest = Buffer.from(this.#bytes.subarray(start));
    // It never waits for what is there already, and never for something absurd.
    assert.ok(this.parser.wanted > this.#rest.length, `waits for ${this.parser.wanted} bytes`);
    assert.ok(this.parser.wanted <= MOST_WANTED, `wants ${this.parser.wanted} bytes`);
  }

  /** Bytes that were not used up. */
  get left(): number {
    return this.#rest.length;
  }

  /** As when the connection ends: what is in flight gets EIO. Every command has one answer then. */
  end(): void {
    this.inFlight.failAll(errno.EIO);
    assert.equal(this.inFlight.count, 0);
    const answered = this.answers.map((answer) => Number.parseInt(answer, 10));
    assert.deepEqual(
      answered.toSorted((a, b) => a - b),
      Array.from({ length: this.#asked }, (_, i) => i),
    );
  }
}

export interface Fixture {
  readonly name: string;
  /** `structured` unless told. */
  readonly form?: Form;
  /** Undefined: base:allocation was not agreed on. */
  readonly allocationId?: number | undefined;
  readonly asked: readonly Asked[];
  readonly server: readonly Buffer[];
  readonly answers: readonly string[];
}

export interface Violation extends Fixture {
  readonly message: string;
}

/** One piece, single bytes, and two pieces in all ways that there are; of long scripts, some. */
export function* splits(whole: Buffer): Generator<Buffer[]> {
  yield [whole];
  const stride = whole.length < 1000 ? 1 : Math.ceil(whole.length / 10);
  if (stride === 1) yield Array.from(whole, (byte) => Buffer.of(byte));
  for (let at = 1; at < whole.length; at += stride) {
    yield [whole.subarray(0, at), whole.subarray(at)];
  }
}

function clientOf(fixture: Fixture): Client {
  const id = 'allocationId' in fixture ? fixture.allocationId : CONTEXT;
  const client = new Client(fixture.form ?? 'structured', id);
  for (const one of fixture.asked) client.ask(one);
  return client;
}

export function checkSuccess(fixture: Fixture): void {
  for (const pieces of splits(Buffer.concat(fixture.server))) {
    const client = clientOf(fixture);
    for (const piece of pieces) client.feed(piece);
    assert.deepEqual(client.answers, fixture.answers);
    assert.equal(client.left, 0);
    assert.equal(client.parser.wanted, fixture.form === 'extended' ? 32 : 16);
    client.end();
  }
}

export function checkViolation(fixture: Violation): void {
  for (const pieces of splits(Buffer.concat(fixture.server))) {
    const client = clientOf(fixture);
    assert.throws(
      () => {
        for (const piece of pieces) client.feed(piece);
      },
      (error) => {
        assert.ok(error instanceof ProtocolError, String(error));
        assert.equal(error.message, fixture.message);
        return true;
      },
    );
    client.end();
    assert.deepEqual(client.answers, fixture.answers);
  }
}
