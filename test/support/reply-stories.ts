/** Random commands and what a server may answer to them, for property tests of the reply parser. */

import fc from 'fast-check';
import { errno, errnoName } from '../../src/errno.js';
import {
  cookieOf,
  data,
  errorChunk,
  extended,
  hole,
  none,
  simpleReply,
  status,
} from './nbd-replies.js';
import { CONTEXT, shown } from './reply-client.js';
import type { Asked, Form } from './reply-client.js';

/** What a disk holds at an offset, as a letter; a hole reads as zeroes. */
const letterAt = (offset: bigint): number => 97 + Number(offset % 26n);

export interface Story {
  readonly asked: Asked[];
  readonly form: Form;
  /** Chunks in the order in which they are sent, none of them broken. */
  readonly server: Buffer[];
  readonly answers: string[];
}

/** A read's answer in stretches of data and holes. */
const stretches = fc.array(
  fc.record({ length: fc.integer({ min: 1, max: 12 }), hole: fc.boolean() }),
  {
    minLength: 1,
    maxLength: 6,
  },
);
const wireError = fc.constantFrom(1, 5, 12, 22, 28, 75, 95, 200);
const ERRNO_OF = new Map([
  [1, errno.EPERM],
  [5, errno.EIO],
  [12, errno.ENOMEM],
  [22, errno.EINVAL],
  [28, errno.ENOSPC],
  [75, errno.EOVERFLOW],
  [95, errno.EOPNOTSUPP],
  [200, errno.EINVAL],
]);
const nameOfWire = (wire: number): string => errnoName(ERRNO_OF.get(wire) ?? 0);

interface Told {
  readonly type: Asked['type'];
  readonly offset: bigint;
  readonly stretches: { length: number; hole: boolean }[];
  readonly error: number | null;
  readonly order: number[];
  readonly closing: boolean;
  readonly simple: boolean;
}

const told = fc.record({
  type: fc.constantFrom<Asked['type'][]>(
    'read',
    'read',
    'read',
    'write',
    'flush',
    'zero',
    'status',
  ),
  offset: fc.bigInt({ min: 0n, max: 2n ** 63n - 100n }),
  stretches,
  error: fc.option(wireError, { freq: 4 }),
  /** Random keys: what is sorted by them is shuffled. */
  order: fc.array(fc.nat(), { minLength: 8, maxLength: 8 }),
  /** The end is told by an extra chunk. */
  closing: fc.boolean(),
  simple: fc.boolean(),
});

/** The chunks that answer one command, and the answer that it has to come to. */
function tell(cookie: bigint, one: Told, structured: boolean): [chunks: Buffer[], answer: string] {
  const { type, offset, error } = one;
  const length = one.stretches.reduce((sum, stretch) => sum + stretch.length, 0);
  if (!structured || (one.simple && type !== 'read' && (type !== 'status' || error !== null))) {
    if (error !== null) return [[simpleReply(cookie, error)], nameOfWire(error)];
    if (type !== 'read') return [[simpleReply(cookie)], 'done'];
    const content = Buffer.from(Array.from({ length }, (_, i) => letterAt(offset + BigInt(i))));
    return [[simpleReply(cookie, 0, content)], shown(content)];
  }
  const parts: ((done: boolean) => Buffer)[] = [];
  let answer = 'done';
  if (type === 'read') {
    const content = Buffer.alloc(length);
    let at = 0;
    for (const stretch of one.stretches) {
      const start = at;
      at += stretch.length;
      const from = offset + BigInt(start);
      if (stretch.hole) {
        parts.push((done) => hole(cookie, done, from, stretch.length));
      } else {
        for (let i = start; i < at; i++) content[i] = letterAt(offset + BigInt(i));
        const bytes = Buffer.from(content.subarray(start, at));
        parts.push((done) => data(cookie, done, from, bytes));
      }
    }
    answer = shown(content);
  } else if (type === 'status') {
    const extents = one.stretches.map((each) => [each.length, each.hole ? 3 : 0] as const);
    parts.push((done) => status(cookie, done, CONTEXT, extents));
    answer = extents.map(([size, flags]) => `${size}${flags === 3 ? ' hole zero' : ''}`).join(', ');
  }
  if (error !== null) {
    parts.push((done) => errorChunk(cookie, done, error, 'message', offset));
    answer = nameOfWire(error);
  }
  const shuffled = parts
    .map((part, i) => [one.order[i % one.order.length] ?? 0, part] as const)
    .toSorted(([a], [b]) => a - b)
    .map(([, part]) => part);
  const closing = one.closing || shuffled.length === 0;
  const chunks = shuffled.map((part, i) => part(!closing && i === shuffled.length - 1));
  return [closing ? [...chunks, none(cookie)] : chunks, answer];
}

export const form = fc.constantFrom<Form[]>('simple', 'structured', 'extended');

/** Commands and their replies, the chunks of different commands mixed. */
export const story: fc.Arbitrary<Story> = fc
  .tuple(
    fc.array(told, { minLength: 1, maxLength: 6 }),
    form,
    fc.array(fc.nat(), { minLength: 1, maxLength: 40 }),
  )
  .map(([all, agreed, choices]) => {
    const structured = agreed !== 'simple';
    const commands = structured ? all : all.filter(({ type }) => type !== 'status');
    const asked = commands.map(({ type, offset, stretches: parts }) => ({
      type,
      offset,
      length: parts.reduce((sum, { length }) => sum + length, 0),
    }));
    const queues = commands.map((one, i) => {
      const [compact, answer] = tell(cookieOf(i), one, structured);
      const chunks =
        agreed === 'extended' ? compact.map((each) => extended(each, one.offset)) : compact;
      return { chunks, answer: `${i}: ${answer}` };
    });
    const server: Buffer[] = [];
    const answers: string[] = [];
    for (let left = queues; left.length > 0;) {
      const choice = choices[server.length % choices.length] ?? 0;
      const next = left[choice % left.length];
      const sent = next?.chunks.shift();
      if (next === undefined || sent === undefined) break;
      server.push(sent);
      if (next.chunks.length === 0) answers.push(next.answer);
      left = left.filter(({ chunks }) => chunks.length > 0);
    }
    return { asked, form: agreed, server, answers };
  });
