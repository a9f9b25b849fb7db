/**
 * A server whose machine can lose its power: `node power-cut-server.js IMAGE PIDFILE SEED SOCKET`, or with
 * `ADDRESS PORT` in place of the socket. A line `cut KEPT WHEN` on its standard input is the power cut: the
 * process is gone with all its connections, and the image has what was stable, and of the rest what is kept (see
 * `PowerCutDisk.powerCut`). That is `now`, or `flushed`: right after the next flush was answered, when a client
 * relies on it. SIGKILL is a power cut that leaves nothing else. It serves again when it is started again.
 */

import { writeFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Listener } from '../../src/server/listen.js';
import { serve } from '../../src/server/server.js';
import { seeded } from './memory-disk.js';
import { PowerCutDisk } from './power-cut-disk.js';

/** Milliseconds in which a flush may come. */
const FLUSH_PATIENCE = 200;

const [image = '', pidfile = '', seed = '', address = '', port] = process.argv.slice(2);

const disk = new PowerCutDisk(image, seeded(Number(seed)));
serve(disk, [port === undefined ? Listener.unix(address) : Listener.tcp(address, Number(port))]);
writeFileSync(pidfile, `${process.pid}\n`);

function cut(kept: number): void {
  const { volatile, lost } = disk.powerCut(kept);
  // Straight to the descriptor: nothing that waits in this process will leave it any more.
  writeSync(1, `${volatile} ${lost}\n`);
  process.kill(process.pid, 'SIGKILL');
}

createInterface(process.stdin).on('line', (line) => {
  const [command, kept = '', when] = line.split(' ');
  if (command !== 'cut') throw new Error(`${line} is not understood`);
  if (when === 'flushed') {
    // Its answer leaves at the end of the turn.
    disk.onFlushed = () => setImmediate(cut, Number(kept));
    setTimeout(cut, FLUSH_PATIENCE, Number(kept));
  } else {
    cut(Number(kept));
  }
});
