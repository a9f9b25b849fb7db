/** Asks a running mount how it does. */

import { within, TOO_LATE } from '../deadline.js';
import { errno, errnoText } from '../errno.js';
import type { MountStatus } from '../observe/mount-status.js';
import { traceMain } from '../trace.js';
import { Connection } from './connection.js';
import { decodeMessage } from './messages.js';

/** Milliseconds; an answer takes less than one. */
export const ANSWER_DEADLINE = 2_000;

export type Answer =
  | { readonly kind: 'status'; readonly status: MountStatus }
  /** Nobody listens, or somebody who is not to be believed: the process is gone. */
  | { readonly kind: 'deserted' }
  | {
      readonly kind: 'silent';
      /** The end of a sentence about the mount. */
      readonly why: string;
      /** Of the process, where it could be connected to. */
      readonly pid: number | null;
    };

const GONE = new Set<number>([-errno.ECONNREFUSED, -errno.EACCES]);

/**
 * @param name of its control socket
 * @param owner of the process; nobody else but root is believed
 * @param deadline milliseconds
 * @returns never rejects
 */
export async function askStatus(
  name: string,
  owner: number,
  deadline = ANSWER_DEADLINE,
): Promise<Answer> {
  const connection = Connection.open(name, owner);
  if (typeof connection === 'number') {
    if (GONE.has(connection)) return { kind: 'deserted' };
    return silent(name, `cannot be asked: ${errnoText(-connection)}`, null);
  }
  const { pid } = connection;
  try {
    const line = new Promise<string>((resolve) => {
      connection.heard = resolve;
    });
    connection.ask('status');
    const said = await within(
      Promise.race([line, connection.closed.then(() => undefined)]),
      deadline,
    );
    if (said === TOO_LATE) return silent(name, `does not answer within ${deadline / 1000} s`, pid);
    if (said === undefined) return silent(name, 'gives no answer', pid);
    const message = decodeMessage(said);
    // Its own number may be another one, in a container, or a lie.
    if (message?.kind === 'status') return { kind: 'status', status: { ...message.status, pid } };
    return silent(name, 'gives an answer that is not understood', pid);
  } finally {
    connection.close();
  }
}

function silent(name: string, why: string, pid: number | null): Answer {
  traceMain('the mount of %s %s', name, why);
  return { kind: 'silent', why, pid };
}
