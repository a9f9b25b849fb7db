/**
 * Shows files, one behind the other, as one read-only file: an image that was split for a transport, without
 * putting it together. Until SIGINT or SIGTERM.
 *
 *     node dist/examples/pieces.js whole.img image.part1 image.part2 image.part3
 */

import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { diskOf, mount } from 'tsnbdfuse';

const [at, ...paths] = process.argv.slice(2);
if (at === undefined || paths.length === 0) throw new Error('give a mountpoint, and the pieces');

let size = 0;
const pieces = await Promise.all(
  paths.map(async (path) => {
    const file = await open(path);
    return { file, length: (await file.stat()).size };
  }),
);
const placed = pieces.map(({ file, length }) => ({ file, start: size, end: (size += length) }));

const disk = diskOf({
  size,
  async read(offset, length) {
    const bytes = Buffer.alloc(length);
    for (const { file, start, end } of placed) {
      const from = Math.max(offset, start);
      const count = Math.min(offset + length, end) - from;
      if (count > 0) await file.read(bytes, from - offset, count, from - start);
    }
    return bytes;
  },
  async close() {
    await Promise.all(pieces.map(({ file }) => file.close()));
  },
});

try {
  const stop = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  // Nobody changes the pieces meanwhile, so that what the kernel has read stays true.
  await using mounted = await mount({ disk, at, exclusive: true });
  console.log(`mounted: ${mounted.path}`);
  await Promise.race([stop, mounted.closed]);
} finally {
  await disk.close();
}
