import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { libcOf } from '../src/libc.js';

const PT_LOAD = 1;
const PT_INTERP = 3;

/** A 64-bit ELF file of two program headers, of which the second names the loader. */
function elf(loader: string, at = 64 + 2 * 56): Buffer {
  const bytes = Buffer.alloc(at + loader.length + 1);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(2, 56);
  bytes.writeUInt32LE(PT_LOAD, 64);
  bytes.writeUInt32LE(PT_INTERP, 64 + 56);
  bytes.writeBigUInt64LE(BigInt(at), 64 + 56 + 8);
  bytes.writeBigUInt64LE(BigInt(loader.length + 1), 64 + 56 + 32);
  bytes.write(loader, at, 'latin1');
  return bytes;
}

describe('libcOf', () => {
  let folder = '';
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
  });
  after(() => rm(folder, { recursive: true }));

  const of = async (content: Uint8Array | string): Promise<string> => {
    await writeFile(join(folder, 'program'), content);
    return libcOf(join(folder, 'program'));
  };

  it('is told by the loader', async () => {
    assert.equal(await of(elf('/lib/ld-musl-x86_64.so.1')), 'musl');
    assert.equal(await of(elf('/lib/ld-musl-aarch64.so.1')), 'musl');
    assert.equal(await of(elf('/lib64/ld-linux-x86-64.so.2')), 'glibc');
    assert.equal(await of(elf('/nix/store/abc-glibc-2.38-27/lib/ld-linux-aarch64.so.1')), 'glibc');
  });
  it('is told wherever the name of the loader lies', async () => {
    assert.equal(
      await of(elf('/nix/store/abc-musl-1.2.4/lib/ld-musl-x86_64.so.1', 1 << 20)),
      'musl',
    );
  });
  it('is glibc where nothing tells', async () => {
    const musl = elf('/lib/ld-musl-x86_64.so.1');
    const wrong = Buffer.from(musl);
    // A table behind the end of all files.
    wrong.writeBigUInt64LE((1n << 64n) - 1n, 32);
    const bigEndian = Buffer.from(musl);
    bigEndian[5] = 2;
    for (const content of [
      ...['', '#!/bin/sh\n', 'ld-musl-'],
      ...[wrong, bigEndian, ...[10, 63, 64, 100, 130].map((end) => musl.subarray(0, end))],
    ]) {
      assert.equal(await of(content), 'glibc');
    }
    assert.equal(libcOf(folder), 'glibc');
    assert.equal(libcOf(join(folder, 'none')), 'glibc');
  });
  it('is glibc for this Node.js, where the system says so', () => {
    const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
    const libc = header.glibcVersionRuntime === undefined ? 'musl' : 'glibc';
    assert.equal(libcOf(process.execPath), libc);
  });
});
