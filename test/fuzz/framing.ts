/** Streams of NBD cut into their messages, as far as they are right; what is left at the end is one more. */

import { IHAVEOPT } from '../../src/nbd/constants.js';
import type { Asked } from '../support/reply-client.js';

/** Takes as many bytes of a stream as one message has, by turns. */
function cut(bytes: Buffer, lengthAt: (at: number) => number): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = Math.min(bytes.length, at + Math.max(1, lengthAt(at)));
    frames.push(bytes.subarray(at, end));
    at = end;
  }
  return frames;
}

/**
 * What a server of the fixed newstyle sends.
 * @param handshakeBytes how long its handshake is
 * @param asked in the transmission phase, with the cookies of first use
 */
export function serverFrames(
  bytes: Buffer,
  handshakeBytes: number,
  asked: readonly Asked[],
): Buffer[] {
  return cut(bytes, (at) => {
    if (at < handshakeBytes) return at === 0 ? 18 : 20 + bytes.readUInt32BE(at + 16);
    switch (bytes.readUInt32BE(at)) {
      case 0x668e33ef:
        return 20 + bytes.readUInt32BE(at + 16);
      case 0x6e8a278c:
        return 32 + bytes.readUInt32BE(at + 28);
      default: {
        const one = asked[bytes.readUInt32BE(at + 12)];
        const hasData = one?.type === 'read' && bytes.readUInt32BE(at + 4) === 0;
        return 16 + (hasData ? (one.length ?? 0) : 0);
      }
    }
  });
}

/** What a client sends from its flags on. */
export function clientFrames(bytes: Buffer): Buffer[] {
  return cut(bytes, (at) => {
    if (at === 0) return 4;
    if (bytes.length - at >= 16 && bytes.readBigUInt64BE(at) === IHAVEOPT) {
      return 16 + bytes.readUInt32BE(at + 12);
    }
    if (bytes.length - at < 28) return bytes.length - at;
    return 28 + (bytes.readUInt16BE(at + 6) === 1 ? bytes.readUInt32BE(at + 24) : 0);
  });
}
