/**
 * A tiny process that ends a program of ours when we are killed: SIGKILL leaves us no chance to do so,
 * and a program that waits for its far side, as ssh does for nc, does not end with the stream. The
 * server would keep the connection, and perhaps take no other one.
 */

import { spawn } from 'node:child_process';
import { checkResult } from '../errno.js';
import { native } from '../native.js';

// A line from us says that all is well; the end of the stream without one, that we are gone.
const SCRIPT = 'exec <&3 3<&-; IFS= read -r line || kill -TERM "$1"';

/**
 * @returns what sends it away, to be called once, when the program has ended and before its process
 *   id may be another's
 * @throws ErrnoError
 */
export function guardChild(pid: number): () => void {
  const ends = new Int32Array(2);
  checkResult(native.socketpair(ends), 'socketpair');
  const [ours, theirs] = ends as unknown as [number, number];
  try {
    // In a session of its own, where no Ctrl-C reaches it.
    spawn('/bin/sh', ['-c', SCRIPT, 'tsnbdfuse-guardian', String(pid)], {
      stdio: ['ignore', 'ignore', 'ignore', theirs],
      cwd: '/',
      detached: true,
    }).on('error', () => undefined); // without it, everything else works as well
  } catch (error) {
    native.close(ours);
    throw error;
  } finally {
    native.close(theirs);
  }
  return () => {
    const line = Buffer.from('\n');
    native.write(ours, line, 0, line.length);
    native.close(ours);
  };
}
