/** A second reading of what a client asks and a server replies, as simple as can be. */

export interface Seen {
  readonly type: number;
  readonly length: number;
  /** With all of its payload; a request that is refused may be answered without. */
  readonly whole: boolean;
}

export interface Requests extends ReadonlyMap<bigint, Seen> {
  readonly ambiguous: boolean;
}

class Seens extends Map<bigint, Seen> implements Requests {
  ambiguous = false;
}

/**
 * The requests in a stream, up to the last one, which need not be whole.
 * @returns `broken` where it leaves the server no way but to hang up
 */
export function requestsIn(bytes: Buffer): { requests: Requests; broken: boolean } {
  const requests = new Seens();
  for (let at = 0; at + 28 <= bytes.length;) {
    if (bytes.readUInt32BE(at) !== 0x25609513) return { requests, broken: true };
    const type = bytes.readUInt16BE(at + 6);
    const cookie = bytes.readBigUInt64BE(at + 8);
    const length = bytes.readUInt32BE(at + 24);
    if (type === 2) return { requests, broken: false };
    const end = at + 28 + (type === 1 ? length : 0);
    if (requests.has(cookie)) requests.ambiguous = true;
    requests.set(cookie, { type, length, whole: end <= bytes.length });
    // Nobody skips as much.
    if (type === 1 && length > 64 * 1024 * 1024) return { requests, broken: true };
    at = end;
  }
  return { requests, broken: false };
}

/**
 * The cookies of the replies, in order; the last reply may be cut short.
 * @returns undefined where requests cannot be told apart
 * @throws Error for what is no reply
 */
export function repliesIn(
  bytes: Buffer,
  requests: Requests,
  structured: boolean,
): bigint[] | undefined {
  if (requests.ambiguous) return undefined;
  const cookies: bigint[] = [];
  for (let at = 0; at + 16 <= bytes.length;) {
    const magic = bytes.readUInt32BE(at);
    const cookie = bytes.readBigUInt64BE(at + 8);
    const one = requests.get(cookie);
    if (one === undefined) throw new Error(`a reply to nothing, cookie ${cookie}`);
    if (magic === 0x67446698) {
      if (structured && one.type === 0) throw new Error('a simple reply to a structured read');
      at += 16 + (one.type === 0 && bytes.readUInt32BE(at + 4) === 0 ? one.length : 0);
    } else if (magic === 0x668e33ef && structured) {
      if (at + 20 > bytes.length) break;
      if (bytes.readUInt16BE(at + 4) !== 1) throw new Error('a chunk that is not the last one');
      at += 20 + bytes.readUInt32BE(at + 16);
    } else {
      throw new Error(`a reply with the magic ${magic.toString(16)}`);
    }
    cookies.push(cookie);
  }
  return cookies;
}
