/**
 * What a server has sent of each read: a second reading of its bytes, as simple as can be, to hold the real
 * one against. It knows no rules but those that say where data belong.
 */

import type { Asked, Form } from '../support/reply-client.js';

interface Place {
  readonly offset: bigint;
  readonly content: Buffer;
  /** Which bytes of it have come. */
  readonly come: Set<number>;
  /** Some of it came twice, so that nobody knows what is right. */
  twice: boolean;
  /** The last of it has come: what follows is for nobody. */
  over: boolean;
}

/** Commands have the cookies of their first use. @returns the reads of which all has come, once, by their index */
export function readsIn(bytes: Buffer, asked: readonly Asked[], form: Form): Map<number, Buffer> {
  const places = new Map<number, Place>();
  asked.forEach(({ type, offset = 0n, length = 0 }, index) => {
    if (type === 'read')
      places.set(index, {
        offset,
        content: Buffer.alloc(length),
        come: new Set(),
        twice: false,
        over: false,
      });
  });
  const headerBytes = form === 'extended' ? 32 : 20;
  for (let at = 0; at + 16 <= bytes.length;) {
    const magic = bytes.readUInt32BE(at);
    const place =
      bytes.readUInt32BE(at + 8) === 1 ? places.get(bytes.readUInt32BE(at + 12)) : undefined;
    if (magic === 0x67446698) {
      const fails = bytes.readUInt32BE(at + 4) !== 0;
      at += 16;
      if (place === undefined || fails) continue;
      const data = bytes.subarray(at, at + place.content.length);
      if (data.length === place.content.length) put(place, place.offset, data);
      place.over = true;
      at += place.content.length;
      continue;
    }
    if (form === 'simple' || (magic !== 0x668e33ef && magic !== 0x6e8a278c)) break;
    if (at + headerBytes > bytes.length) break;
    const type = bytes.readUInt16BE(at + 6);
    const length = bytes.readUInt32BE(at + headerBytes - 4);
    const done = (bytes.readUInt16BE(at + 4) & 1) !== 0;
    const payload = bytes.subarray(at + headerBytes, at + headerBytes + length);
    at += headerBytes + length;
    if (place === undefined || payload.length < length || length < 8) continue;
    const from = payload.readBigUInt64BE();
    if (type === 1) put(place, from, payload.subarray(8));
    // A hole of more than the read has cannot be right.
    if (type === 2 && length === 12 && payload.readUInt32BE(8) <= place.content.length) {
      put(place, from, Buffer.alloc(payload.readUInt32BE(8)));
    }
    place.over ||= done;
  }
  const whole = [...places].filter(
    ([, { content, come, twice }]) => !twice && come.size === content.length,
  );
  return new Map(whole.map(([index, { content }]) => [index, content]));
}

function put(place: Place, from: bigint, data: Buffer): void {
  const { content, come, over } = place;
  if (over) return;
  const start = from - place.offset;
  if (start < 0n || start + BigInt(data.length) > BigInt(content.length)) return;
  data.forEach((byte, i) => {
    const at = Number(start) + i;
    if (come.has(at)) place.twice = true;
    content[at] = byte;
    come.add(at);
  });
}
