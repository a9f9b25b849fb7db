/** The entry point of bin/tsnbdfuse. */

// Before all others: some of them look at the standard streams when they are loaded.
import './daemon-output.js';
import { basename } from 'node:path';
import { traceMain } from '../trace.js';
import { main } from './main.js';

const [, calledAs = '', ...args] = process.argv;
// Milliseconds; and after a signal, whose sender wants no more than the end.
const LAST_RESORT = 1_000;
const LAST_RESORT_OF_SIGNAL = 100;
/** As a shell has it: what is more says which signal. */
const SIGNALLED = 128;

void main(args, basename(calledAs)).then((status) => {
  process.exitCode = status;
  // All that held the event loop is closed by now, so that the process ends by itself, unless a thread waits
  // for a file system that hangs. Were anything forgotten (a bug that this trace helps to find), a user should
  // not have to look at a command that has done its work and does not return. The timer itself holds nothing.
  const patience = status > SIGNALLED ? LAST_RESORT_OF_SIGNAL : LAST_RESORT;
  setTimeout(() => {
    traceMain('still holding the event loop: %o', process.getActiveResourcesInfo());
    void leave(status);
  }, patience).unref();
});

/** process.exit() waits for the threads of the pool, one of which may wait for a file system that hangs. */
async function leave(status: number): Promise<void> {
  try {
    const { becomeShell } = await import('./become.js');
    // It is the end all the same: who waits for ours is told how it is.
    process.emit('exit', status);
    becomeShell(['sh', '-c', `exit ${status}`], [], process.env);
  } catch {
    process.exit();
  }
}
