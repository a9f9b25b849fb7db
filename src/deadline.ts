/** Waits that end. */

export const TOO_LATE = Symbol('too late');

/** What a promise gives, or TOO_LATE when it has not settled in so many milliseconds. */
export async function within<T>(
  promise: Promise<T>,
  milliseconds: number,
): Promise<T | typeof TOO_LATE> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<typeof TOO_LATE>((resolve) => {
    timer = setTimeout(() => resolve(TOO_LATE), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
