/** Listening on this machine alone, whichever version of IP a client takes. */

import { ErrnoError } from '../errno.js';
import { traceServer } from '../trace.js';
import { Listener } from './listen.js';

/** Where there is no IPv6. */
const ABSENT: readonly string[] = ['EADDRNOTAVAIL', 'EAFNOSUPPORT'];

/**
 * @param port 0 for one that is free, the same for both
 * @returns a listener for 127.0.0.1, and one for ::1 where there is that
 * @throws ErrnoError
 */
export function listenOnLoopback(port: number): [Listener, ...Listener[]] {
  const first = Listener.tcp('127.0.0.1', port);
  try {
    return [first, Listener.tcp('::1', first.port)];
  } catch (error) {
    if (error instanceof ErrnoError && ABSENT.includes(error.code)) {
      traceServer('not on ::1: %s', error.code);
      return [first];
    }
    first.close();
    throw error;
  }
}
