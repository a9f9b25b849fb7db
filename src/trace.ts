/**
 * Debug output, by the `debug` package: DEBUG=tsnbdfuse:* or -v on the command line. A message that
 * costs something to make is made only when somebody listens: `if (traceNbd.enabled) ...`.
 */

import createDebug from 'debug';

export type Trace = createDebug.Debugger;

/** A line for each FUSE request and reply. */
export const traceFuse: Trace = createDebug('tsnbdfuse:fuse');
/** A line for each NBD option, command and reply of the client. */
export const traceNbd: Trace = createDebug('tsnbdfuse:nbd');
/** Mounting, the captive server, the life of the process. */
export const traceMain: Trace = createDebug('tsnbdfuse:main');
/** The embedded server. */
export const traceServer: Trace = createDebug('tsnbdfuse:server');

/** A line for each error of a disk that is made of functions. */
export const traceDisk: Trace = createDebug('tsnbdfuse:disk');

/** Turns all of them on, as -v does. */
export function enableTrace(): void {
  const set = process.env['DEBUG'];
  createDebug.enable(set === undefined || set === '' ? 'tsnbdfuse:*' : `${set},tsnbdfuse:*`);
}
