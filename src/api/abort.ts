/** Giving up what is waited for, by an AbortSignal. */

/**
 * What a promise gives, or the signal's reason as soon as it is aborted: then the promise goes on by itself, and
 * what becomes of it is dropped.
 */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const aborted = (): void => reject(signal.reason as Error);
    if (signal.aborted) aborted();
    else signal.addEventListener('abort', aborted);
    void promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted));
  });
}
