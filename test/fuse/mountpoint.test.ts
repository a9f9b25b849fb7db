import assert from 'node:assert/strict';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { MountError } from '../../src/fuse/errors.js';
import {
  checkMountpoint,
  findMount,
  parseMountinfo,
  shellWord,
} from '../../src/fuse/mountpoint.js';

describe('parseMountinfo', () => {
  const table: readonly (readonly [string, object])[] = [
    [
      '36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue',
      {
        id: 36,
        device: '98:0',
        mountpoint: '/mnt2',
        type: 'ext3',
        source: '/dev/root',
        options: ['rw', 'errors=continue'],
      },
    ],
    [
      '40 27 0:42 / /home/me/disk.raw rw,nosuid,nodev - fuse.tsnbdfuse qemu-nbd rw,user_id=0',
      {
        id: 40,
        device: '0:42',
        mountpoint: '/home/me/disk.raw',
        type: 'fuse.tsnbdfuse',
        source: 'qemu-nbd',
        options: ['rw', 'user_id=0'],
      },
    ],
    [
      String.raw`40 27 0:42 / /a\040b\011c\012d\134e rw shared:1 master:2 - fuse my\040source rw`,
      {
        id: 40,
        device: '0:42',
        mountpoint: '/a b\tc\nd\\e',
        type: 'fuse',
        source: 'my source',
        options: ['rw'],
      },
    ],
    [
      '40 27 0:42 / /größe rw - fuse s rw',
      { id: 40, device: '0:42', mountpoint: '/größe', type: 'fuse', source: 's', options: ['rw'] },
    ],
    // A mountpoint may have the name of the separator; an empty source leaves two blanks.
    [
      '40 27 0:42 / - rw - tmpfs  rw',
      { id: 40, device: '0:42', mountpoint: '-', type: 'tmpfs', source: '', options: ['rw'] },
    ],
  ];
  for (const [line, entry] of table) {
    it(line, () => assert.deepEqual(parseMountinfo(`${line}\n`), [entry]));
  }

  it('passes over what it does not know', () => {
    assert.deepEqual(parseMountinfo('\n1 2 3\nnonsense - \n'), []);
  });
});

describe('findMount', () => {
  it('finds /proc', () => {
    assert.equal(findMount('/proc')?.type, 'proc');
  });
  it('does not find what is no mount', () => {
    assert.equal(findMount('/proc/self'), undefined);
  });
});

describe('shellWord', () => {
  for (const [text, word] of [
    ['disk.raw', 'disk.raw'],
    ['/a/b-c_d:e', '/a/b-c_d:e'],
    ['a b', "'a b'"],
    ["it's", String.raw`'it'\''s'`],
    ['$(x)', "'$(x)'"],
    ['', "''"],
  ] as const) {
    it(text, () => assert.equal(shellWord(text), word));
  }
});

describe('checkMountpoint', () => {
  let folder = '';
  before(async () => {
    folder = await realpath(await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-')));
    await writeFile(join(folder, 'disk.raw'), '');
    await mkdir(join(folder, 'directory'));
    await mkdir(join(folder, 'empty'));
    await symlink('empty', join(folder, 'to-empty'));
    await symlink('directory', join(folder, 'link'));
    await symlink('../disk.raw', join(folder, 'directory', 'disk-link'));
    await symlink('nowhere', join(folder, 'dangling'));
    await symlink('loop', join(folder, 'loop'));
  });
  after(() => rm(folder, { recursive: true }));

  const refuses = async (path: string, message: RegExp): Promise<void> => {
    await assert.rejects(checkMountpoint(path), (error) => {
      assert.ok(error instanceof MountError, String(error));
      assert.match(error.message, message);
      assert.ok(!error.message.includes('\n'));
      return true;
    });
  };

  it('takes a regular file', async () => {
    const path = join(folder, 'disk.raw');
    assert.deepEqual(await checkMountpoint(path), {
      path,
      name: undefined,
      shown: path,
      shownFile: path,
      hides: false,
    });
  });
  it('tells that a file has content, which is hidden then', async () => {
    const path = join(folder, 'image');
    await writeFile(path, 'x');
    assert.equal((await checkMountpoint(path)).hides, true);
  });
  it('takes a directory, in which the disk is nbd', async () => {
    const path = join(folder, 'empty');
    assert.deepEqual(await checkMountpoint(path), {
      path,
      name: 'nbd',
      shown: path,
      shownFile: join(path, 'nbd'),
      hides: false,
    });
    assert.equal((await checkMountpoint(`${path}/`)).path, path);
    assert.equal((await checkMountpoint(folder)).hides, true);
  });
  it('takes a name that is free in a directory', async () => {
    const path = join(folder, 'empty');
    assert.deepEqual(await checkMountpoint(join(path, 'my disk')), {
      path,
      name: 'my disk',
      shown: path,
      shownFile: join(path, 'my disk'),
      hides: false,
    });
    const linked = await checkMountpoint(join(folder, 'to-empty', 'x'));
    assert.deepEqual([linked.path, linked.name], [path, 'x']);
    assert.equal((await checkMountpoint(join(folder, 'new'))).hides, true);
  });
  it('names what can be unmounted, where the mountpoint is a link', async () => {
    const { path, shown, shownFile } = await checkMountpoint(join(folder, 'to-empty'));
    assert.equal(path, join(folder, 'empty'));
    assert.equal(shown, path);
    assert.equal(shownFile, join(folder, 'to-empty', 'nbd'));
  });
  it('refuses a name that is too long', () =>
    refuses(join(folder, 'x'.repeat(256)), /name too long|more than 255 bytes/));
  it('wants a directory to be named', () =>
    refuses('no-such-disk', /^no-such-disk does not exist; create it with: touch no-such-disk$/));
  it('wants a directory to be there', () =>
    refuses(`${join(folder, 'new')}/`, /new\/ does not exist; create it with: mkdir /));
  it('resolves the links on the way', async () => {
    const path = join(folder, 'link', '..', 'directory', '..', 'disk.raw');
    assert.equal((await checkMountpoint(path)).path, join(folder, 'disk.raw'));
  });
  it('resolves a link to a file', async () => {
    const path = join(folder, 'link', 'disk-link');
    assert.equal((await checkMountpoint(path)).path, join(folder, 'disk.raw'));
  });
  it('refuses a link to nothing', () => refuses(join(folder, 'dangling'), /link to nothing/));
  it('refuses a link to itself', () => refuses(join(folder, 'loop'), /symbolic link/));
  it('does not hide by a slip what much else needs', () =>
    refuses(
      '/proc/new disk',
      /^\/proc\/new disk does not exist; create it with: touch '.*new disk'$/,
    ));
  it('names the folder that is missing', () =>
    refuses(join(folder, 'none', 'disk.raw'), /the directory of .* does not exist: .*none$/));
  it('refuses a file in the place of a folder', () =>
    refuses(join(folder, 'disk.raw', 'x'), /cannot look at .*: not a directory$/));
  it('refuses a device', () => refuses('/dev/null', /neither a regular file nor a directory/));
  it('refuses a socket', async () => {
    const path = join(folder, 'socket');
    const server = createServer().listen(path);
    try {
      await new Promise((resolve) => server.once('listening', resolve));
      await refuses(path, /neither a regular file nor a directory/);
    } finally {
      server.close();
    }
  });
  it('refuses a mount with something in it', () =>
    refuses('/proc', /is already a mount \(proc.*\); unmount it first: \S+.* \/proc$/));
  it('refuses what the kernel makes up', async () => {
    await refuses(
      '/proc/self/status',
      /^\/proc\/self\/status is in a file system of the kernel \(proc\)/,
    );
    await refuses('/proc/self/task', /is in a file system of the kernel \(proc\)/);
  });
  it('refuses an empty name', () => refuses('', /empty name/));
});
