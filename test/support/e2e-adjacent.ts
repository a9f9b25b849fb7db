/**
 * A program: writes every STRIDE-th piece of a file from the FIRST on, as many at a time as there are threads
 * in libuv's pool, each filled with its number.
 *
 *     node e2e-adjacent.js FILE PIECE_BYTES PIECES STRIDE FIRST
 */

import { open } from 'node:fs/promises';

const [file = '', ...numbers] = process.argv.slice(2);
const [bytes = 0, pieces = 0, stride = 1, first = 0] = numbers.map(Number);

const handle = await open(file, 'r+');
const writes: Promise<unknown>[] = [];
for (let piece = first; piece < pieces; piece += stride) {
  const data = Buffer.alloc(bytes);
  data.fill(`${piece};`);
  writes.push(handle.write(data, 0, bytes, piece * bytes));
}
await Promise.all(writes);
await handle.close();
