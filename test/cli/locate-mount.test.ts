import assert from 'node:assert/strict';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { locateMount } from '../../src/cli/locate-mount.js';
import type { MountEntry } from '../../src/fuse/mountpoint.js';

describe('the mount that a path is about', () => {
  let folder: string;
  let mounts: readonly MountEntry[];

  const mountOn = (name: string, id: number): MountEntry => ({
    id,
    device: `0:${id}`,
    mountpoint: join(folder, name),
    type: 'fuse.tsnbdfuse',
    source: '',
    options: [],
  });

  before(async () => {
    folder = await realpath(await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-')));
    await mkdir(join(folder, 'real', 'dir'), { recursive: true });
    await writeFile(join(folder, 'real', 'file'), '');
    await symlink('real', join(folder, 'link'));
    await symlink('link/file', join(folder, 'to-file'));
    await symlink(join(folder, 'to-file'), join(folder, 'real', 'again'));
    await symlink('round', join(folder, 'round'));
    mounts = [mountOn('real/file', 1), mountOn('real/dir', 2), mountOn('real/dir', 3)];
  });
  after(() => rm(folder, { recursive: true }));

  const table: readonly (readonly [string, number | undefined, string])[] = [
    ['real/file', 1, 'real/file'],
    ['link/file', 1, 'real/file'],
    ['to-file', 1, 'real/file'],
    ['link/again', 1, 'real/file'],
    ['real/dir', 3, 'real/dir'],
    ['link/dir/', 3, 'real/dir'],
    // The file need not be there, and is not looked at.
    ['link/dir/nbd', 3, 'real/dir'],
    ['real', undefined, 'real'],
    ['real/file2', undefined, 'real/file2'],
    ['missing/dir/x', undefined, 'missing/dir/x'],
    ['link/missing', undefined, 'real/missing'],
  ];
  for (const [shown, id, path] of table) {
    it(shown, async () => {
      const found = await locateMount(join(folder, shown), mounts, mounts);
      assert.equal(found.mount?.id, id);
      assert.equal(found.path, join(folder, path));
    });
  }

  it('ends where links lead round', async () => {
    assert.equal((await locateMount(join(folder, 'round'), mounts, mounts)).mount, undefined);
  });
});
