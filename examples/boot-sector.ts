/**
 * Prints the first 512 bytes of a remote disk, as hexdump -C does.
 *
 *     node dist/examples/boot-sector.js nbd://server.example/export
 */

import { connect } from 'tsnbdfuse';

const [uri] = process.argv.slice(2);
if (uri === undefined) throw new Error('give the URI of a disk');

await using client = await connect(uri, { signal: AbortSignal.timeout(10_000) });
const sector = await client.pread(512, 0);
for (let at = 0; at < sector.length; at += 16) {
  const line = sector.subarray(at, at + 16);
  const hex = Array.from(line, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  const text = line.toString('latin1').replace(/[^ -~]/g, '.');
  console.log(`${at.toString(16).padStart(8, '0')}  ${hex}  |${text}|`);
}
