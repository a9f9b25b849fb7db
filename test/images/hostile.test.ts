/** Headers that somebody has damaged, by chance or not: an image, or one line that says why there is none. */

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { ImageError } from '../../src/images/errors.js';
import { formatNamed } from '../../src/images/formats.js';
import { openImage } from '../../src/images/open-image.js';
import { makeImage, qemuImg } from '../support/images.js';
import { requires } from '../support/requires.js';

/** As much of a file as is changed: headers, and descriptors. */
const HEAD = 2048;
/** As much as there is of it at all, with the tables of vhdx. */
const KEPT = 3 * 1024 * 1024 + 128 * 1024;
const TIMED = { timeout: 60_000 };

describe('a damaged image', requires({ programs: ['qemu-img'] }), () => {
  let folder = '';
  const at = (name: string): string => join(folder, name);

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
    await makeImage(at('base.raw'), 'raw');
    await makeImage(at('base.vmdk'), 'vmdk');
  });
  after(() => rm(folder, { recursive: true, force: true }));

  /** Opens what may be anything. */
  async function survives(name: string, format: string, bytes: Uint8Array): Promise<void> {
    await writeFile(at(name), bytes);
    for (const backing of [false, true]) {
      try {
        const image = await openImage(at(name), { format, backing, readOnly: false });
        assert.equal(image.node.driver, formatNamed(format)?.driver);
        // Whatever stands in it, it leads to no file but with --backing.
        if (!backing) assert.equal(image.node.backing ?? null, null);
        if (!backing) assert.equal(image.node['data-file'], undefined);
      } catch (error) {
        assert.ok(error instanceof ImageError, String(error));
        assert.ok(error.message.length < 4096);
      }
    }
  }

  const changes = fc.array(
    fc.record({
      at: fc
        .tuple(
          fc.constantFrom(0, 0, 0, 192 * 1024, 3 * 1024 * 1024),
          fc.oneof(fc.nat(128), fc.nat(HEAD - 1)),
        )
        .map(([start, place]) => start + place),
      byte: fc.oneof(fc.constantFrom(0, 1, 4, 0x22, 0x7f, 0xff), fc.nat(255)),
    }),
    { minLength: 1, maxLength: 12 },
  );

  for (const [format, base] of [
    ['qcow2', 'base.raw'],
    ['qcow', 'base.raw'],
    ['qed', 'base.raw'],
    ['vmdk', 'base.vmdk'],
    ['vdi', undefined],
    ['vhdx', undefined],
    ['vpc', undefined],
  ] as const) {
    it(`is an image or an error: ${format}`, TIMED, async () => {
      const name = `made.${format}`;
      const from = base === undefined ? [] : ['-b', at(base), '-F', base.replace('base.', '')];
      await qemuImg('create', '-q', '-f', format, ...from, at(name), '4M');
      // Its tables are not looked at here.
      const made = (await readFile(at(name))).subarray(0, KEPT);
      await fc.assert(
        fc.asyncProperty(changes, fc.nat(2 * HEAD), async (changed, length) => {
          const bytes = Buffer.from(made);
          for (const { at: place, byte } of changed) bytes[place % bytes.length] = byte;
          await survives(`changed.${format}`, format, bytes);
          await survives(`cut.${format}`, format, bytes.subarray(0, length));
        }),
        { numRuns: 100 },
      );
    });
  }

  it('takes no longer than its length asks for', TIMED, async () => {
    const size = 1024 * 1024;
    const fill = (text: string): Buffer =>
      Buffer.from(`# Disk DescriptorFile\n${text.repeat(size / text.length)}`);
    for (const text of ['parentFileNameHint', 'RW 1', 'RW', 'RW1X"', 'RW 1 FLAT ', ' ', '1', '"']) {
      await survives('long.vmdk', 'vmdk', fill(text));
      await survives('long.vmdk', 'vmdk', fill(`RW${text}`));
    }
    const header = Buffer.alloc(2 * size);
    header.write('QFI\xfb\0\0\0\x03', 'latin1');
    header.writeUInt32BE(21, 20);
    header.writeUInt32BE(104, 100);
    // Extensions without end, of no length.
    for (let place = 104; place < header.length - 8; place += 8) header.writeUInt32BE(1, place);
    await survives('long.qcow2', 'qcow2', header);
  });
});
