/** The first words of a handshake, which are the same whatever a client wants (doc/proto.md, "Handshake phase"). */

import { ByteWriter } from '../bytes.js';
import { traceNbd } from '../trace.js';
import { say, take } from '../transport/dialogue.js';
import type { Dialogue } from '../transport/dialogue.js';
import {
  CLISERV_MAGIC,
  IHAVEOPT,
  NBDMAGIC,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
} from './constants.js';
import { ProtocolError } from './errors.js';

/** @returns the handshake flags; undefined for a server of the oldest kind */
export function* greeting(): Dialogue<number | undefined> {
  // Not all 16 bytes at once: a server of another kind may have a shorter greeting, and then wait.
  const first = yield* take(8);
  if (first.readBigUInt64BE() !== NBDMAGIC) {
    throw new ProtocolError(`does not speak NBD; it sent "${escaped(first)}"`);
  }
  const magic = (yield* take(8)).readBigUInt64BE();
  if (magic === CLISERV_MAGIC) return undefined;
  if (magic !== IHAVEOPT) {
    throw new ProtocolError(`sent a greeting of no known kind (0x${magic.toString(16)})`);
  }
  const offered = (yield* take(2)).readUInt16BE();
  if (traceNbd.enabled) traceNbd('rx greeting, handshake flags 0x%s', offered.toString(16));
  return offered;
}

/** Agrees to what of it is known here. */
export function* answerGreeting(offered: number): Dialogue<{ fixed: boolean; zeroes: boolean }> {
  const echoed = offered & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  yield* say(new ByteWriter('big').u32(echoed).finish());
  return {
    fixed: (offered & NBD_FLAG_FIXED_NEWSTYLE) !== 0,
    zeroes: (offered & NBD_FLAG_NO_ZEROES) === 0,
  };
}

const ESCAPES: ReadonlyMap<number, string> = new Map([
  [0x09, '\\t'],
  [0x0a, '\\n'],
  [0x0d, '\\r'],
]);

/** Bytes of any kind, as one would write them in a string: `y\ny\n`. */
function escaped(bytes: Buffer): string {
  const one = (byte: number): string =>
    ESCAPES.get(byte) ??
    (byte >= 0x20 && byte < 0x7f
      ? String.fromCharCode(byte)
      : `\\x${byte.toString(16).padStart(2, '0')}`);
  return Array.from(bytes, one).join('');
}
