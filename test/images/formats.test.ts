import assert from 'node:assert/strict';
import { copyFile, link, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { chooseFormat } from '../../src/images/choose-format.js';
import { ImageError, MissingImageError } from '../../src/images/errors.js';
import { FORMAT_NAMES } from '../../src/images/format-names.js';
import { FORMATS, formatNamed } from '../../src/images/formats.js';
import { ImageFile } from '../../src/images/image-file.js';
import { makeImage } from '../support/images.js';
import { requires } from '../support/requires.js';

describe('the table of formats', () => {
  it('has a row for each name', () => {
    assert.deepEqual(FORMATS.map(({ name }) => name).sort(), [...FORMAT_NAMES].sort());
    assert.equal(formatNamed('vpc'), formatNamed('vhd'));
    assert.equal(formatNamed('nbd'), undefined);
  });
});

describe('the format of an image', requires({ programs: ['qemu-img'] }), () => {
  let folder = '';
  const at = (name: string): string => join(folder, name);

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  async function chosen(name: string, wanted?: string): Promise<string> {
    const file = await ImageFile.open(at(name));
    try {
      const { format, readOnly } = await chooseFormat(file, wanted);
      return `${format.name}${readOnly ? ', read-only' : ''}`;
    } finally {
      await file.close();
    }
  }

  const refuses = (name: string, message: RegExp, wanted?: string): Promise<void> =>
    assert.rejects(chosen(name, wanted), (error) => {
      assert.ok(error instanceof ImageError, String(error));
      assert.match(error.message, message);
      return true;
    });

  const CONTENTS: readonly {
    readonly format: string;
    readonly options?: string;
    readonly endings: readonly string[];
  }[] = [
    { format: 'qcow2', endings: ['qcow2', 'qcow', 'QCOW2'] },
    { format: 'qcow2', options: 'compat=0.10', endings: ['qcow2', 'qcow'] },
    { format: 'qcow', endings: ['qcow'] },
    { format: 'vmdk', endings: ['vmdk', 'VMDK'] },
    { format: 'vmdk', options: 'subformat=monolithicFlat', endings: ['vmdk'] },
    { format: 'vmdk', options: 'subformat=streamOptimized', endings: ['vmdk'] },
    { format: 'vdi', endings: ['vdi'] },
    { format: 'vdi', options: 'static=on', endings: ['vdi'] },
    { format: 'vhdx', endings: ['vhdx'] },
    { format: 'vpc', endings: ['vhd', 'vpc'] },
    { format: 'vpc', options: 'subformat=fixed', endings: ['vhd', 'vpc'] },
    { format: 'qed', endings: ['qed'] },
  ];
  for (const { format, options, endings } of CONTENTS) {
    const name = formatNamed(format)?.name ?? '';
    it(`${format}${options === undefined ? '' : `, ${options}`}`, async () => {
      await makeImage(at('made'), format, options);
      const all = ['raw', 'img', 'iso', 'QCOW2', ...FORMATS.flatMap((row) => row.endings)];
      for (const ending of new Set([...all, ...endings])) {
        const file = `disk.${ending}`;
        await rm(at(file), { force: true });
        await link(at('made'), at(file));
        if (endings.includes(ending) || endings.includes(ending.toLowerCase())) {
          assert.equal(await chosen(file), name, file);
        } else if (['raw', 'img', 'iso'].includes(ending)) {
          await refuses(
            file,
            new RegExp(`looks like ${name}, .* --format raw .* --format ${name} `),
          );
        } else {
          await refuses(
            file,
            new RegExp(`ends in .* but its content looks like ${name}: .*--format`),
          );
        }
      }
      for (const ending of ['', '.', '.bak', '.qcow2.bak']) {
        await copyFile(at('made'), at(`disk${ending}`));
        await refuses(`disk${ending}`, /does not tell its format.* add --format raw, .* or qed$/);
      }
      // Said, it is no matter what the name says.
      assert.equal(await chosen('disk.raw', format), name);
      assert.equal(await chosen('disk.qed', 'raw'), 'raw');
      const other = name === 'vdi' ? 'vhdx' : 'vdi';
      await refuses('disk.raw', new RegExp(`not in the format ${other}: its content looks`), other);
      for (const ending of new Set(all)) await rm(at(`disk.${ending}`), { force: true });
    });
  }

  it('is raw by its ending where the content looks like nothing else', async () => {
    for (const [name, format] of [
      ['a.raw', 'raw'],
      ['a.IMG', 'raw'],
      ['a.iso', 'raw, read-only'],
    ] as const) {
      await writeFile(at(name), 'x');
      await truncate(at(name), 1_000_000);
      assert.equal(await chosen(name), format);
      await refuses(name, /has no mark of that, nor of another/, 'qcow2');
    }
    assert.equal(await chosen('a.iso', 'raw'), 'raw');
  });

  it('is not found in a file that is shorter than its mark', async () => {
    for (const bytes of ['Q', 'QFI\xfb', 'QFI\xfb\0\0\0', 'KDM', 'conecti', '\0'.repeat(66)]) {
      await writeFile(at('short.qcow2'), Buffer.from(bytes, 'latin1'));
      await refuses('short.qcow2', /ends in \.qcow2, but its content has no mark/);
      await refuses('short.qcow2', /not in the format qcow2/, 'qcow2');
      assert.equal(await chosen('short.qcow2', 'raw'), 'raw');
    }
    await writeFile(at('future.qcow2'), Buffer.from('QFI\xfb\0\0\0\x04', 'latin1'));
    await refuses('future.qcow2', /has no mark/);
  });

  it('is no matter where there is no image', async () => {
    await writeFile(at('empty.raw'), '');
    await refuses('empty.raw', /is empty, and no disk image/);
    await refuses('.', /is a directory/);
    await symlink('/dev/null', at('null.raw'));
    await refuses('null.raw', /neither a regular file nor a block device/);
    await symlink('nowhere', at('dangling.raw'));
    await assert.rejects(chosen('dangling.raw'), MissingImageError);
    await assert.rejects(chosen('a.raw/x'), MissingImageError);
  });
});
