/**
 * Answers whoever connects to an abstract socket with a line, as the process of a mount would:
 *
 *     node pretender.js NAME LINE
 */

import { Socket } from 'node:net';
import { Listener } from '../../src/server/listen.js';

const [name = '', line = ''] = process.argv.slice(2);
const listener = Listener.unix(`\0${name}`);
listener.start({
  accepted: (fd) => {
    const asker = new Socket({ fd, readable: true, writable: true });
    // Who does not believe us has gone.
    asker.on('error', () => undefined);
    asker.end(line);
    console.log('was asked');
  },
  failed: (error) => {
    throw error;
  },
});
console.log('listens');
