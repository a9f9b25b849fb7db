/**
 * Which files an image leads to, read by us and by qemu: what qemu opens for an image that we take is what we have
 * looked at and nothing else, whatever stands in the image.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { ImageError } from '../../src/images/errors.js';
import { openImage } from '../../src/images/open-image.js';
import { makeImage, qemuImg } from '../support/images.js';
import { requires } from '../support/requires.js';

const RUNS = Number(process.env['TSNBDFUSE_STEPS'] ?? '60');
const TIMED = { timeout: 600_000 };

/** Lines that are right, each, though seldom together. */
const LINES = [
  'version=1\nCID=00000001\nparentCID=ffffffff\n',
  ...['monolithicFlat', 'twoGbMaxExtentFlat', 'monolithicSparse', 'vmfs', 'custom'].map(
    (type) => `createType="${type}"\n`,
  ),
  'RW 128 FLAT "disk-flat.vmdk" 0\n',
  'RW 128 FLAT "disk-flat.vmdk"\n',
  'RW 128 VMFS "disk-flat.vmdk"\n',
  'RW 128 ZERO\n',
  'RW 128 SPARSE "disk-s001.vmdk"\n',
  'RW 128 VMFSSPARSE "disk-s001.vmdk"\n',
];
/** What they are made of, and what a reader may take for that. */
const PIECES = [
  ...[
    'RW',
    'RDONLY',
    'NOACCESS',
    '128',
    '0x10',
    '-1',
    '+4',
    '0',
    ' ',
    '  ',
    '\t',
    '\v',
    '\f',
    '\xa0',
  ],
  ...['FLAT', 'SPARSE', 'ZERO', 'VMFS', 'VMFSSPARSE', 'SESPARSE', 'FLATFLATFL', '\n', '\r', '\r\n'],
  ...[
    '"',
    '"disk-flat.vmdk"',
    '"disk-s001.vmdk"',
    '"secret"',
    '"secret',
    'secret"',
    '#',
    '\0',
    '=',
    '\xff',
  ],
  ...[
    'parentFileNameHint',
    'parentFileNameHint="secret"',
    'parentCID=12345678',
    'createType="vmfs"',
  ],
];

const words = fc
  .array(fc.constantFrom(...PIECES), { minLength: 1, maxLength: 8 })
  .map((pieces) => pieces.join(''));
const lines = fc.array(fc.oneof({ arbitrary: fc.constantFrom(...LINES), weight: 3 }, words), {
  minLength: 1,
  maxLength: 6,
});
/** A piece in the place of some characters. */
const edits = fc.array(fc.tuple(fc.nat(), fc.nat(3), fc.constantFrom(...PIECES)), { maxLength: 3 });
const descriptor = fc.tuple(lines, edits).map(([parts, changes]) => {
  let text = `# Disk DescriptorFile\n${parts.join('')}`;
  for (const [place, length, piece] of changes) {
    const at = place % text.length;
    text = text.slice(0, at) + piece + text.slice(at + length);
  }
  return text;
});

/** Bytes of a header, at places where something stands. */
const changes = fc.array(
  fc.record({
    at: fc.oneof({ arbitrary: fc.nat(127), weight: 3 }, fc.nat(2047)),
    byte: fc.oneof(fc.constantFrom(0, 1, 2, 4, 8, 0x7f, 0x80, 0xff), fc.nat(255)),
  }),
  { maxLength: 4 },
);

function changed(bytes: Buffer, all: readonly { at: number; byte: number }[]): Buffer {
  const copy = Buffer.from(bytes);
  for (const { at, byte } of all) copy[at % copy.length] = byte;
  return copy;
}

describe('an image that is taken', requires({ programs: ['qemu-img', 'strace'] }), () => {
  let folder = '';
  const at = (name: string): string => join(folder, name);

  before(async () => {
    folder = await realpath(await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-')));
    for (const name of ['secret', 'disk-flat.vmdk']) await writeFile(at(name), Buffer.alloc(65536));
    await makeImage(at('disk-s001.vmdk'), 'vmdk', undefined, '64K');
    await makeImage(at('base.raw'), 'raw');
  });
  after(() => rm(folder, { recursive: true, force: true }));

  /** Opens it as its server would. @returns the files that are opened in our folder, and what is said to be behind it */
  async function openedByQemu(node: object): Promise<[files: string[], backing: unknown]> {
    const trace = at('trace');
    const tracing = ['-f', '-qq', '-e', 'trace=open,openat', '-o', trace];
    const asking = ['qemu-img', 'info', '--output=json', '-U', `json:${JSON.stringify(node)}`];
    const stdout = await new Promise<string>((resolve) => {
      execFile('strace', [...tracing, ...asking], (error, out) =>
        resolve(error === null ? out : ''),
      );
    });
    const calls = (await readFile(trace, 'latin1')).matchAll(/"((?:[^"\\]|\\.)*)", .*\) = \d+$/gm);
    const files = Array.from(calls, ([, path = '']) => path).filter((path) =>
      path.startsWith(`${folder}/`),
    );
    const backing =
      stdout === ''
        ? undefined
        : (JSON.parse(stdout) as Record<string, unknown>)['backing-filename'];
    return [files.filter((path) => path !== trace), backing];
  }

  /** @returns whether it was taken */
  async function agrees(name: string, format: string, bytes: Uint8Array): Promise<boolean> {
    await writeFile(at(name), bytes);
    let image;
    try {
      image = await openImage(at(name), { format, backing: false, readOnly: true });
    } catch (error) {
      assert.ok(error instanceof ImageError, String(error));
      return false;
    }
    const [files, backing] = await openedByQemu(image.node);
    // Otherwise nothing was seen at all.
    assert.ok(files.includes(at(name)));
    const others = files.filter((path) => !image.files.includes(path));
    assert.deepEqual(others, [], 'opened by qemu, and unknown to us');
    assert.equal(backing, undefined, 'named for qemu, and not seen by us');
    return true;
  }

  it('leads to nothing that was not looked at: a descriptor of vmdk', TIMED, async () => {
    await fc.assert(
      fc.asyncProperty(descriptor, async (text) => {
        await agrees('disk.vmdk', 'vmdk', Buffer.from(text, 'latin1'));
      }),
      { numRuns: RUNS },
    );
  });

  it('leads to nothing that was not looked at: a descriptor within vmdk', TIMED, async () => {
    await makeImage(at('made.vmdk'), 'vmdk');
    const made = await readFile(at('made.vmdk'));
    const start = Number(made.readBigUInt64LE(28)) * 512;
    await fc.assert(
      fc.asyncProperty(descriptor, changes, async (text, bytes) => {
        const image = Buffer.from(made);
        image.fill(0, start, start + 20 * 512);
        image.write(text, start, 'latin1');
        await agrees('disk.vmdk', 'vmdk', changed(image, bytes));
      }),
      { numRuns: RUNS },
    );
  });

  for (const [format, options] of [
    ['qcow2', []],
    ['qcow2', ['-b', 'base.raw', '-F', 'raw']],
    ['qcow', ['-b', 'base.raw', '-F', 'raw']],
    ['qed', ['-b', 'base.raw', '-F', 'raw']],
    ['vdi', []],
    ['vhdx', []],
    ['vpc', []],
  ] as const) {
    it(
      `leads to nothing that was not looked at: ${[format, ...options].join(' ')}`,
      TIMED,
      async () => {
        const name = `made.${format}`;
        const found = options.map((word) => (word === 'base.raw' ? at(word) : word));
        await qemuImg('create', '-q', '-f', format, ...found, at(name), '4M');
        const made = await readFile(at(name));
        await fc.assert(
          fc.asyncProperty(changes, async (bytes) => {
            await agrees(`disk.${format}`, format, changed(made, bytes));
          }),
          { numRuns: RUNS },
        );
      },
    );
  }
});
