/**
 * A server whose machine can lose its power: `node power-cut-server.js IMAGE PIDFILE SEED SOCKET`, or with
 * `ADDRESS PORT` in place of the socket. The line `cut` on its standard input, with a number from 0 to 1 as in
 * `PowerCutDisk.powerCut`, is the power cut: the process is gone with all its connections, and the image has
 * what was stable. SIGKILL is one that leaves nothing else. It serves again when it is started again.
 */

import { writeFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Listener } from '../../src/server/listen.js';
import { serve } from '../../src/server/server.js';
import { seeded } from './memory-disk.js';
import { PowerCutDisk } from './power-cut-disk.js';

const [image = '', pidfile = '', seed = '', address = '', port] = process.argv.slice(2);

const disk = new PowerCutDisk(image, seeded(Number(seed)));
serve(disk, [port === undefined ? Listener.unix(address) : Listener.tcp(address, Number(port))]);
writeFileSync(pidfile, `${process.pid}\n`);

createInterface(process.stdin).on('line', (line) => {
  const [command, kept] = line.split(' ');
  if (command !== 'cut') throw new Error(`${line} is not understood`);
  const { volatile, lost } = disk.powerCut(Number(kept));
  // Straight to the descriptor: nothing that waits in this process will leave it any more.
  writeSync(1, `${volatile} ${lost}\n`);
  process.kill(process.pid, 'SIGKILL');
});
