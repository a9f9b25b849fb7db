/**
 * A handshake as a generator that does no I/O: it yields what it sends and how many bytes it needs
 * next, and is resumed with exactly those. The client's and the embedded server's handshakes are both
 * written so, and tested without a socket.
 */

import { errno, ErrnoError } from '../errno.js';
import type { Transport } from './transport.js';

export type Step = { readonly need: number } | { readonly send: Buffer };
export type Dialogue<T> = Generator<Step, T, Buffer>;

const NOTHING = Buffer.alloc(0);
/** How often one wake-up receives before others get their turn. */
const RECEIVES_PER_WAKE = 32;

/** The peer closed the stream in the middle of a dialogue. */
export class EndOfStreamError extends Error {
  override readonly name = 'EndOfStreamError';

  constructor(
    /** Not a single byte came before the end. */
    readonly atStart: boolean,
  ) {
    super('closed the connection');
  }
}

/** A dialogue did not end in time. */
export class DeadlineError extends Error {
  override readonly name = 'DeadlineError';

  constructor(milliseconds: number) {
    super(`no answer within ${milliseconds / 1000} s`);
  }
}

/** To yield for `count` bytes: `const magic = yield* take(8)`. */
export function* take(count: number): Generator<Step, Buffer, Buffer> {
  if (count === 0) return NOTHING;
  return yield { need: count };
}

/** To yield for something to be sent. */
export function* say(message: Buffer): Generator<Step, void, Buffer> {
  yield { send: message };
}

/**
 * Holds a dialogue over a transport. Not a byte more than the dialogue asks for is received, so that
 * the transport can go on to its next owner; it stays open, also when the dialogue fails.
 *
 * @param deadline milliseconds for the whole dialogue
 * @param signal ends it early
 * @throws what the dialogue throws; EndOfStreamError; DeadlineError; ErrnoError of the transport; the
 *   signal's reason
 */
export function converse<T>(
  transport: Transport,
  dialogue: Dialogue<T>,
  deadline: number,
  signal?: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let place = NOTHING;
    let filled = 0;
    let received = 0;
    let over = false;

    const end = (settle: () => void): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
      transport.pause();
      settle();
    };
    const fail = (error: unknown): void =>
      end(() => reject(error instanceof Error ? error : new Error(String(error))));
    const timer = setTimeout(() => fail(new DeadlineError(deadline)), deadline);
    const aborted = (): void => fail(signal?.reason);
    if (signal?.aborted === true) {
      aborted();
      return;
    }
    signal?.addEventListener('abort', aborted);

    /** Resumes the dialogue with what it asked for, until it needs something again. */
    const advance = (input: Buffer): void => {
      try {
        let step = dialogue.next(input);
        while (step.done !== true && 'send' in step.value) {
          transport.send(step.value.send, 0, step.value.send.length);
          step = dialogue.next(NOTHING);
        }
        if (step.done === true) {
          const { value } = step;
          end(() => resolve(value));
          return;
        }
        place = Buffer.alloc((step.value as { need: number }).need);
        filled = 0;
      } catch (error) {
        fail(error);
      }
    };

    const readable = (most: number): void => {
      for (let i = 0; i < most && !over; i++) {
        const count = transport.receive(place, filled, place.length - filled);
        if (count === -errno.EAGAIN) return;
        if (count === 0) {
          fail(new EndOfStreamError(received === 0));
          return;
        }
        if (count < 0) {
          fail(new ErrnoError(-count, 'receive'));
          return;
        }
        filled += count;
        received += count;
        if (filled === place.length) advance(place);
      }
    };

    transport.open({
      readable: () => readable(RECEIVES_PER_WAKE),
      sendFailed: (code) => {
        // What the peer said before it hung up tells more than the failure to send.
        readable(Number.POSITIVE_INFINITY);
        fail(new ErrnoError(code, 'send'));
      },
      drained: () => undefined,
    });
    transport.resume();
    advance(NOTHING);
  });
}
