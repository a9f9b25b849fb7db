/**
 * Copies a part of a remote disk to a file, and leaves out what the server knows to be zeroes: the file is
 * sparse there.
 *
 *     node dist/examples/copy-range.js nbd://server.example/export 1048576 104857600 part.img
 */

import { open } from 'node:fs/promises';
import { connect } from 'tsnbdfuse';

const CHUNK = 1024 * 1024;

const [uri, start, length, path] = process.argv.slice(2);
if (uri === undefined || start === undefined || length === undefined || path === undefined) {
  throw new Error('give the URI of a disk, an offset, a length and the name of a file');
}

await using client = await connect(uri);
await using file = await open(path, 'w');
await file.truncate(Number(length));
for await (const extent of client.extents(BigInt(length), BigInt(start))) {
  if (extent.zero) continue;
  const end = extent.offset + extent.length;
  for (let at = extent.offset; at < end; at += BigInt(CHUNK)) {
    const data = await client.pread(Math.min(CHUNK, Number(end - at)), at);
    await file.write(data, 0, data.length, Number(at - BigInt(start)));
  }
}
await file.sync();
