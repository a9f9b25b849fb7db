/**
 * Serves a Buffer over NBD on a port of this machine, until SIGINT or SIGTERM: for a test of something that wants
 * a disk, say. Prints the URI.
 *
 *     node dist/examples/serve-memory.js &
 *     qemu-img info nbd://127.0.0.1:40123/
 */

import { once } from 'node:events';
import { diskOf, serve } from 'tsnbdfuse';

const content = Buffer.alloc(64 * 1024 * 1024);

const disk = diskOf({
  size: content.length,
  read: (offset, length) => content.subarray(offset, offset + length),
  write: (offset, data) => void data.copy(content, offset),
  zero: (offset, length) => void content.fill(0, offset, offset + length),
});

const stop = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
await using server = await serve(disk, { on: 0 });
console.log(server.uri);
await stop;
