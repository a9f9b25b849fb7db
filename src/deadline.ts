/** Waits that end. */

/** Milliseconds: as long as a timer of Node can be, for waits that need not end. */
export const LONGEST_WAIT = 2 ** 31 - 1;

export const TOO_LATE = Symbol('too late');

/**
 * What a promise gives, or TOO_LATE when it has not settled in so many milliseconds.
 * @param milliseconds what is over LONGEST_WAIT counts as that
 * @param signal ends the wait early
 * @throws the signal's reason
 */
export async function within<T>(
  promise: Promise<T>,
  milliseconds: number,
  signal?: AbortSignal,
): Promise<T | typeof TOO_LATE> {
  let timer: NodeJS.Timeout | undefined;
  let abort: () => void = () => undefined;
  const late = new Promise<typeof TOO_LATE>((resolve, reject) => {
    // What is too long for a timer, as a sum of two waits may be, Node would take for 1 ms.
    timer = setTimeout(() => resolve(TOO_LATE), Math.min(milliseconds, LONGEST_WAIT));
    abort = () => reject(signal?.reason as Error);
    if (signal?.aborted === true) abort();
  });
  signal?.addEventListener('abort', abort);
  try {
    return await Promise.race([late, promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}
