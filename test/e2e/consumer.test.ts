/** The package as a program that depends on it sees it: its types, strictly, and by each way to load it. */

import assert from 'node:assert/strict';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Workplace } from '../support/mounts.js';
import type { Result } from '../support/mounts.js';

const PROJECT = fileURLToPath(new URL('../../..', import.meta.url));
/** Milliseconds: a compiler takes its time on a machine that is busy. */
const PATIENCE = { deadline: 300_000 };

/** What a user might write, with all that is special about the types. */
const PROGRAM = `
import { connect, diskOf, listExports, mount, serve, memoryDisk, ErrnoError } from 'tsnbdfuse';
import type { Bytes, CustomDisk, Disk, ExtentAt, MountOptions, NbdClient } from 'tsnbdfuse';
import { fitDisk, readDisk } from 'tsnbdfuse/disk';

class Zeroes implements CustomDisk<bigint> {
  readonly size = 1n << 62n;
  read(_offset: bigint, length: number): Uint8Array {
    return new Uint8Array(length);
  }
}

const numbers: Disk = diskOf({
  size: 4096,
  read: (offset, length) => Buffer.alloc(length, offset.toFixed(0)),
  async write(offset, data) {
    if (offset + data.length > 4096) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
    await Promise.resolve();
  },
});
const bigints: Disk = diskOf({ size: 4096n, read: (offset, length) => Buffer.alloc(Number(offset - offset) + length) });
const zeroes: Disk = diskOf(new Zeroes());

export async function all(client: NbdClient, at: Bytes): Promise<ExtentAt[]> {
  const found: ExtentAt[] = [];
  for await (const extent of client.extents(client.size, at)) found.push(extent);
  return found;
}

export async function show(options: MountOptions): Promise<void> {
  await using mounted = await mount({ cache: 'none', ...options });
  await mounted.closed;
}

// @ts-expect-error a length in memory is a number
void ((client: NbdClient) => client.pread(1n, 0));
// @ts-expect-error a disk has a read
void (() => diskOf({ size: 1 }));

await using server = await serve(numbers, { on: 0, signal: undefined });
await using client = await connect(server.uri, { signal: AbortSignal.timeout(10_000) });
const text: string = (await client.pread(4, 0n)).toString();
try {
  await client.pread(1, 4096);
} catch (error) {
  if (error instanceof ErrnoError) throw error;
}
const first: Buffer = await readDisk(fitDisk(zeroes, 4096), 1n << 61n, 2);
const exports = await listExports(server.uri);
console.log(text, first.length, exports.length, bigints.info.size, (await memoryDisk(1n)).info.size);
`;

const CONFIG = {
  compilerOptions: {
    target: 'es2022',
    module: 'nodenext',
    moduleResolution: 'nodenext',
    strict: true,
    exactOptionalPropertyTypes: true,
    // Our declarations are checked as well.
    skipLibCheck: false,
    types: ['node'],
    outDir: 'out',
  },
  include: ['*.ts'],
};

describe('a program that depends on the package', () => {
  let place: Workplace;

  before(async () => {
    place = await Workplace.create();
    await mkdir(place.join('node_modules/@types'), { recursive: true });
    await symlink(PROJECT, place.join('node_modules/tsnbdfuse'));
    await symlink(
      join(PROJECT, 'node_modules/@types/node'),
      place.join('node_modules/@types/node'),
    );
    await place.file('package.json', '{ "type": "module" }');
  });
  after(() => place.finish());

  const node = (...args: string[]): Promise<Result> => place.run(process.execPath, args, PATIENCE);

  it('compiles against the declarations, and runs', async () => {
    await place.file('program.ts', PROGRAM);
    // What the README has is compiled as well, and not run: there is no such server.
    const readme = await readFile(join(PROJECT, 'README.md'), 'utf8');
    const [, block] = /^```ts\n(import .*?)^```$/ms.exec(readme) ?? [];
    assert.ok(block !== undefined);
    await place.file('readme.ts', block);
    await place.file('tsconfig.json', JSON.stringify(CONFIG));
    const compiled = await node(join(PROJECT, 'node_modules/typescript/bin/tsc'));
    assert.equal(compiled.stdout, '');
    assert.equal(compiled.status, 0);
    const { status, stdout, stderr } = await node('out/program.js');
    assert.equal(stderr, '');
    assert.equal(stdout, '0000 2 1 4096n 1n\n');
    assert.equal(status, 0);
  });

  it('may be plain JavaScript', async () => {
    await place.file(
      'plain.mjs',
      `import { memoryDisk, serve } from 'tsnbdfuse';
       import { HEADROOM } from 'tsnbdfuse/disk';
       const server = await serve(await memoryDisk(512), { on: 0 });
       try { console.log(HEADROOM, server.uri.startsWith('nbd://')); } finally { await server.close(); }`,
    );
    assert.equal((await node('plain.mjs')).stdout, '32 true\n');
  });

  it('may be CommonJS', async () => {
    await place.file(
      'old.cjs',
      `const { memoryDisk } = require('tsnbdfuse');
       void memoryDisk(512).then((disk) => console.log(disk.info.size));`,
    );
    await place.file(
      'late.cjs',
      `void import('tsnbdfuse').then(({ memoryDisk }) => memoryDisk(512)).then((disk) => console.log(disk.info.size));`,
    );
    for (const name of ['old.cjs', 'late.cjs']) {
      const { stdout, status } = await node(name);
      assert.deepEqual({ stdout, status }, { stdout: '512n\n', status: 0 });
    }
  });

  it('gets no handlers of signals, and nothing that holds it', async () => {
    await place.file(
      'quiet.mjs',
      `const before = process.eventNames().join();
       await import('tsnbdfuse');
       await import('tsnbdfuse/disk');
       console.log(before === process.eventNames().join());`,
    );
    const { stdout, status } = await node('quiet.mjs');
    assert.deepEqual({ stdout, status }, { stdout: 'true\n', status: 0 });
  });

  it('finds what package.json says', async () => {
    const { exports } = JSON.parse(await readFile(join(PROJECT, 'package.json'), 'utf8')) as {
      exports: Record<string, string | { types: string; default: string }>;
    };
    for (const target of Object.values(exports)) {
      const files = typeof target === 'string' ? [target] : Object.values(target);
      for (const file of files) assert.ok((await readFile(join(PROJECT, file))).length > 0, file);
    }
  });
});
