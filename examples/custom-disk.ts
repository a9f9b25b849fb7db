/**
 * A disk made of a function: 1 TiB in which each sector of 512 bytes begins with its own number. It is shown as
 * a file until SIGINT or SIGTERM.
 *
 *     node dist/examples/custom-disk.js disk.raw &
 *     hexdump -C disk.raw | head
 */

import { once } from 'node:events';
import { diskOf, mount } from 'tsnbdfuse';

const [at] = process.argv.slice(2);
if (at === undefined) throw new Error('give a file or a directory to mount on');

const disk = diskOf({
  size: 2 ** 40,
  blockSize: 512,
  read(offset, length) {
    const bytes = Buffer.alloc(length);
    for (let i = 0; i < length; i += 512) {
      bytes.writeBigUInt64LE(BigInt((offset + i) / 512), i);
    }
    return bytes;
  },
});

const stop = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
await using mounted = await mount({ disk, at });
console.log(`mounted: ${mounted.path}`);
await Promise.race([stop, mounted.closed]);
