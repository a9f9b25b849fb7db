import assert from 'node:assert/strict';
import { mkdir, mkdtemp, open, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { ImageError } from '../../src/images/errors.js';
import { openImage } from '../../src/images/open-image.js';
import type { Image, ImageOptions } from '../../src/images/open-image.js';
import { makeImage, qemuImg } from '../support/images.js';
import { requires } from '../support/requires.js';

const DEFAULTS: ImageOptions = { format: undefined, backing: false, readOnly: false };

describe('an image that names other files', requires({ programs: ['qemu-img'] }), () => {
  const cwd = process.cwd();
  let folder = '';

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
  });
  beforeEach(async () => {
    await mkdir(join(folder, 'w'));
    process.chdir(join(folder, 'w'));
  });
  afterEach(async () => {
    process.chdir(cwd);
    await rm(join(folder, 'w'), { recursive: true });
  });
  after(() => rm(folder, { recursive: true, force: true }));

  const path = (name: string): string => join(folder, 'w', name);
  const file = (name: string): object => ({ driver: 'file', filename: path(name) });
  const opened = (name: string, options: Partial<ImageOptions> = {}): Promise<Image> =>
    openImage(name, { ...DEFAULTS, ...options });

  async function refuses(
    name: string,
    message: RegExp,
    options: Partial<ImageOptions> = {},
  ): Promise<void> {
    await assert.rejects(opened(name, options), (error) => {
      assert.ok(error instanceof ImageError, String(error));
      assert.match(error.message, message);
      assert.ok(!error.message.includes('\n'));
      return true;
    });
  }

  /** Puts bytes into a file. */
  async function patch(name: string, at: number, bytes: Uint8Array): Promise<void> {
    const handle = await open(name, 'r+');
    try {
      await handle.write(bytes, 0, bytes.length, at);
    } finally {
      await handle.close();
    }
  }

  async function replace(name: string, from: string, to: string): Promise<void> {
    const text = await readFile(name, 'latin1');
    assert.ok(text.includes(from), `${name} has no ${from}`);
    await writeFile(name, text.replace(from, to), 'latin1');
  }

  it('is opened with no backing file where it has none', async () => {
    await makeImage('a.qcow2', 'qcow2');
    await makeImage('a.vdi', 'vdi');
    assert.deepEqual((await opened('a.qcow2')).node, {
      driver: 'qcow2',
      file: file('a.qcow2'),
      backing: null,
    });
    const vdi = await opened('a.vdi', { readOnly: true });
    assert.deepEqual(vdi.node, { driver: 'vdi', file: file('a.vdi') });
    assert.deepEqual([vdi.readOnly, vdi.path, vdi.files], [true, path('a.vdi'), [path('a.vdi')]]);
  });

  for (const format of ['qcow2', 'qcow', 'qed', 'vmdk'] as const) {
    it(`is refused, ${format} on a backing file, and opened with --backing`, async () => {
      const base = format === 'vmdk' ? 'base.vmdk' : 'base.raw';
      const baseFormat = format === 'vmdk' ? 'vmdk' : 'raw';
      await makeImage(base, baseFormat);
      const over = `over.${format}`;
      await qemuImg('create', '-q', '-f', format, '-b', base, '-F', baseFormat, over);
      await refuses(over, new RegExp(`^${over} names ${base} as its backing file, .*--backing`));
      const image = await opened(over, { backing: true });
      assert.deepEqual(image.node, {
        driver: format,
        file: file(over),
        backing: {
          driver: baseFormat,
          file: file(base),
          ...(format === 'vmdk' ? { backing: null } : {}),
        },
      });
      assert.deepEqual(image.files, [path(over), path(base)]);
    });
  }

  it('has its whole chain made explicit, each name seen from the image that has it', async () => {
    await mkdir('lower');
    await makeImage('lower/base.img', 'raw');
    const create = ['create', '-q', '-f', 'qcow2'];
    await qemuImg(...create, '-b', 'base.img', '-F', 'raw', 'lower/middle.qcow2');
    await qemuImg(...create, '-b', 'lower/middle.qcow2', '-F', 'qcow2', 'top.qcow2');
    await symlink('top.qcow2', 'link.qcow2');
    const { node, files } = await opened('link.qcow2', { backing: true });
    assert.deepEqual(node, {
      driver: 'qcow2',
      file: file('link.qcow2'),
      backing: {
        driver: 'qcow2',
        file: file('lower/middle.qcow2'),
        backing: { driver: 'raw', file: file('lower/base.img') },
      },
    });
    assert.deepEqual(files, [
      path('top.qcow2'),
      path('lower/middle.qcow2'),
      path('lower/base.img'),
    ]);
  });

  it('has no backing file guessed', async () => {
    await makeImage('inner.qcow2', 'qcow2');
    // A raw disk that a guest has made look like an image.
    await rename('inner.qcow2', 'base.raw');
    const create = ['create', '-q', '-f', 'qcow2', '-u'];
    await qemuImg(...create, '-b', 'base.raw', '-F', 'raw', 'said.qcow2', '4M');
    const { node } = await opened('said.qcow2', { backing: true });
    assert.deepEqual(node.backing, { driver: 'raw', file: file('base.raw') });
    await makeImage('mute.qcow2', 'qcow2');
    await qemuImg('rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', 'base.raw', 'mute.qcow2');
    // The extension with the format becomes one that nobody knows.
    const at = (await readFile('mute.qcow2')).indexOf(Buffer.from('e2792aca', 'hex'));
    await patch('mute.qcow2', at, Buffer.from('7fffffff', 'hex'));
    await refuses('mute.qcow2', /does not say which format .*base\.raw has: .*qemu-img rebase/, {
      backing: true,
    });
  });

  const NAMES: readonly (readonly [string, RegExp])[] = [
    ['nbd:unix:/run/s', /names nbd:unix:\/run\/s as its backing file, which is not a path/],
    ['json:{"driver":"file","filename":"/etc/passwd"}', /which is not a path/],
    ['http://h/x', /which is not a path/],
    ['missing.raw', /names its backing file so: \/.*missing\.raw does not exist/],
    ['.', /is a directory/],
    ['/dev/null', /neither a regular file nor a block device/],
  ];
  for (const [name, message] of NAMES) {
    it(`that has no disk: ${name}`, async () => {
      const create = ['create', '-q', '-f', 'qcow2', '-u', '-F', 'raw'];
      await qemuImg(...create, '-b', name, 'a.qcow2', '4M');
      await refuses('a.qcow2', /names .* as its backing file, whose content would be shown/);
      await refuses('a.qcow2', message, { backing: true });
    });
  }

  it('in a circle is refused', async () => {
    const create = ['create', '-q', '-f', 'qcow2', '-u', '-F', 'qcow2'];
    await qemuImg(...create, '-b', 'b.qcow2', 'a.qcow2', '4M');
    await qemuImg(...create, '-b', 'a.qcow2', 'b.qcow2', '4M');
    await refuses('a.qcow2', /have no end, or lead in a circle/, { backing: true });
  });

  it('with a backing file of a format that we do not serve is refused', async () => {
    await makeImage('b', 'raw');
    await qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', 'b', '-F', 'luks', 'a.qcow2', '4M');
    await refuses('a.qcow2', /said to be in the format luks, which is not/, { backing: true });
  });

  it('for its data is refused, and opened with --backing', async () => {
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'data_file=data.raw', 'a.qcow2', '4M');
    await refuses('a.qcow2', /names data\.raw as its data file, .*--backing/);
    const { node, files } = await opened('a.qcow2', { backing: true });
    assert.deepEqual(node, {
      driver: 'qcow2',
      file: file('a.qcow2'),
      backing: null,
      'data-file': file('data.raw'),
    });
    assert.deepEqual(files, [path('a.qcow2'), path('data.raw')]);
    // Without a name: the type of its extension is changed.
    await patch('a.qcow2', 112, Buffer.from('7fffffff', 'hex'));
    await refuses('a.qcow2', /does not say in which/);
  });

  for (const [subformat, type, part] of [
    ['monolithicFlat', 'FLAT', 'a-flat.vmdk'],
    ['twoGbMaxExtentFlat', 'FLAT', 'a-f001.vmdk'],
    ['twoGbMaxExtentSparse', 'SPARSE', 'a-s001.vmdk'],
  ] as const) {
    it(`is opened with the parts that are its own: ${subformat}`, async () => {
      await makeImage('a.vmdk', 'vmdk', `subformat=${subformat}`);
      const { files, node } = await opened('a.vmdk');
      assert.deepEqual(files, [path('a.vmdk'), path(part)]);
      assert.deepEqual(node, { driver: 'vmdk', file: file('a.vmdk'), backing: null });

      // What comes with an image may be a link to anything.
      await rename(part, 'elsewhere');
      await symlink('elsewhere', part);
      await refuses('a.vmdk', /names a-.*\.vmdk as a part of it, which is a symbolic link/);
      await opened('a.vmdk', { backing: true });
      await rm(part);
      await rename('elsewhere', part);

      await writeFile('secret', Buffer.alloc(4096));
      for (const name of [
        'secret',
        '/etc/passwd',
        './a-flat.vmdk',
        'b-flat.vmdk',
        'a-flat.vmdk.x',
      ]) {
        await makeImage('a.vmdk', 'vmdk', `subformat=${subformat}`);
        await replace('a.vmdk', `"${part}"`, `"${name}"`);
        await refuses('a.vmdk', /names .* as a part of it, whose content .*--backing/);
      }
      // However sscanf(3) would read it.
      for (const line of [
        `RW\n\n1 ${type}"/etc/passwd" 0`,
        `RW 1 ${type}${'X'.repeat(10 - type.length)}"/etc/passwd"`,
        `RW\t+1\v${type}\f"/etc/passwd`.concat('"'),
        `RW 1 ${type} "/etc/passwd`,
        `RW 1 ${type} "/etc/passwd\r"`,
      ]) {
        await makeImage('a.vmdk', 'vmdk', `subformat=${subformat}`);
        await replace('a.vmdk', '# The Disk Data Base', line);
        await refuses('a.vmdk', /names \/etc\/passwd as a part of it/);
      }
    });
  }

  it('is no part of an image whose name is a protocol to qemu', async () => {
    await makeImage('a.vmdk', 'vmdk', 'subformat=monolithicFlat');
    await replace('a.vmdk', '"a-flat.vmdk"', '"nbd:a-flat.vmdk"');
    await rename('a.vmdk', 'nbd:a.vmdk');
    await refuses('./nbd:a.vmdk', /names nbd:a-flat\.vmdk as a part of it/);
    await refuses('./nbd:a.vmdk', /which is not a path/, { backing: true });
  });

  it('by a sparse vmdk header that leads to a second descriptor is refused', async () => {
    await makeImage('a.vmdk', 'vmdk');
    await patch('a.vmdk', 12, Buffer.alloc(8));
    await refuses('a.vmdk', /header says that the disk has no size/, { backing: true });
    await makeImage('b.vmdk', 'vmdk', 'subformat=twoGbMaxExtentSparse');
    await patch('b-s001.vmdk', 12, Buffer.alloc(8));
    await refuses('b.vmdk', /b-s001\.vmdk is damaged/);
    await writeFile('b-s001.vmdk', '# Disk DescriptorFile\nRW 1 FLAT "/etc/passwd" 0\n');
    await refuses('b.vmdk', /as a sparse part of a vmdk image, and is none/);
  });

  it('by a part of another sparse type with such a header is refused as well', async () => {
    await makeImage('a.vmdk', 'vmdk', 'subformat=twoGbMaxExtentSparse');
    await replace('a.vmdk', ' SPARSE ', ' VMFSSPARSE ');
    await opened('a.vmdk');
    await patch('a-s001.vmdk', 12, Buffer.alloc(8));
    await refuses('a.vmdk', /a-s001\.vmdk is damaged: its header says that the disk has no size/);
    await writeFile('a-s001.vmdk', Buffer.from('COWD'.padEnd(512, '\0')));
    await opened('a.vmdk');
  });

  it('by a descriptor where qemu finds it, and the header does not, is refused', async () => {
    await makeImage('base.vmdk', 'vmdk');
    await qemuImg(...'create -q -f vmdk -b base.vmdk -F vmdk a.vmdk'.split(' '));
    await refuses('a.vmdk', /names base\.vmdk as its backing file/);
    await patch('a.vmdk', 28, Buffer.alloc(8));
    await refuses('a.vmdk', /names base\.vmdk as its backing file/);
    // What is too much for 64 bits as bytes is the same place again for others.
    await patch('a.vmdk', 28, Buffer.of(1, 0, 0, 0, 0, 0, 0, 0x80));
    await refuses('a.vmdk', /descriptor in sector 9223372036854775809, where no tool puts it/);
  });

  it('by a name that stands in it in no UTF-8, and is another one for qemu, is refused', async () => {
    const [image, part] = ['a\ufffd.vmdk', 'a\ufffd-flat.vmdk'];
    await makeImage(image, 'vmdk', 'subformat=monolithicFlat');
    const text = await readFile(image, 'latin1');
    const name = Buffer.from(part).toString('latin1');
    assert.ok(text.includes(name));
    await writeFile(image, text.replace(name, 'a\xff-flat.vmdk'), 'latin1');
    await refuses(image, /names a\ufffd-flat\.vmdk as a part of it, .*--backing/);
  });

  it('of which qemu shows nothing is refused: differences to a parent', async () => {
    await makeImage('a.vdi', 'vdi');
    await patch('a.vdi', 76, Buffer.of(4));
    await refuses('a.vdi', /only what differs from a parent disk, .* VirtualBox/);
    await makeImage('a.vhdx', 'vhdx');
    const metadata = (await readFile('a.vhdx')).indexOf('metadata');
    await opened('a.vhdx');
    // The flags of the file parameters, the first of what is there.
    await patch('a.vhdx', metadata + 65536 + 4, Buffer.of(2));
    await refuses('a.vhdx', /only what differs from a parent disk, .* Hyper-V/);
    for (const options of ['subformat=dynamic', 'subformat=fixed']) {
      await makeImage('a.vhd', 'vpc', options);
      const bytes = await readFile('a.vhd');
      for (let at = bytes.indexOf('conectix'); at >= 0; at = bytes.indexOf('conectix', at + 1)) {
        bytes.writeUInt32BE(4, at + 60);
      }
      await writeFile('a.vhd', bytes);
      await refuses('a.vhd', /only what differs from a parent disk, .* Hyper-V/);
    }
  });

  it('is refused where it is encrypted', async () => {
    await makeImage('a.qcow2', 'qcow2');
    // The method: 2 is LUKS.
    await patch('a.qcow2', 32, Buffer.of(0, 0, 0, 2));
    await refuses('a.qcow2', /is encrypted, .* \[ qemu-nbd --object secret/);
  });

  it('is refused where it is damaged', async () => {
    await writeFile('a.qcow2', Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'));
    await refuses('a.qcow2', /^a\.qcow2 is damaged: it ends within its header$/);
    await makeImage('a.qcow2', 'qcow2');
    await patch('a.qcow2', 20, Buffer.of(0, 0, 0, 63));
    await refuses('a.qcow2', /is damaged: its header says clusters of 2\^63/);
    await makeImage('a.qcow2', 'qcow2');
    await patch('a.qcow2', 8, Buffer.of(255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 9));
    await refuses('a.qcow2', /ends within its header/);
    await writeFile('a.qcow', Buffer.from('QFI\xfb\0\0\0\x01', 'latin1'));
    await refuses('a.qcow', /ends within its header/);
    await writeFile('a.qed', Buffer.from('QED\0', 'latin1'));
    await refuses('a.qed', /ends within its header/);
    await writeFile('a.vmdk', 'KDMV');
    await refuses('a.vmdk', /ends within its header/);
  });

  it('is refused for writing where nothing can be written', async () => {
    await makeImage('raw.raw', 'raw');
    await qemuImg('convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', 'raw.raw', 'a.vmdk');
    await refuses('a.vmdk', /is compressed \(streamOptimized\).*add -r/);
    assert.equal((await opened('a.vmdk', { readOnly: true })).readOnly, true);
    await makeImage('disk.iso', 'raw');
    assert.equal((await opened('disk.iso')).readOnly, true);
    assert.equal((await opened('disk.iso', { format: 'raw' })).readOnly, false);
  });
});
