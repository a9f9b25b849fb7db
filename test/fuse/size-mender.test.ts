import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { DiskFile } from '../../src/disk/disk-file.js';
import { SizeMender } from '../../src/fuse/size-mender.js';
import type { FileNode } from '../../src/fuse/tree.js';
import { MemoryDisk } from '../support/memory-disk.js';

describe('SizeMender', () => {
  let folder: string;
  let node: FileNode;
  let used: string[];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
    used = [];
    const own = { readOnly: false, uid: 1, gid: 2, permissions: 0o600 };
    const file = new DiskFile(new MemoryDisk({ size: 512 }), own);
    await writeFile(join(folder, 'disk1'), 'x'.repeat(600));
    node = { id: (await stat(join(folder, 'disk1'))).ino, name: 'disk1', file };
  });
  afterEach(() => rm(folder, { recursive: true }));

  /** Files of an ordinary folder in the place of a mount; what fails is nobody's. */
  const mount = {
    use: (_what: string, name: string, run: (path: string) => Promise<unknown>) => {
      used.push(name);
      return run(join(folder, name)).then(
        () => true,
        () => false,
      );
    },
  };
  const length = async (): Promise<number> => (await readFile(join(folder, 'disk1'))).length;

  it('cuts a file to the size it has, once more when it is asked meanwhile', async () => {
    const mender = new SizeMender(mount);
    await Promise.all([mender.mend(node), mender.mend(node), mender.mend(node)]);
    assert.equal(await length(), 512);
    assert.ok(used.length <= 2, used.join());
    const before = used.length;
    await mender.mend(node);
    assert.equal(used.length, before + 1);
  });

  it('leaves another file alone that has its name by now', async () => {
    await new SizeMender(mount).mend({ ...node, id: node.id + 1 });
    assert.equal(await length(), 600);
  });

  it('does not make one file wait for another', async () => {
    const never = new Promise<boolean>(() => undefined);
    const mender = new SizeMender({
      use: (what, name, run) => (name === 'stuck' ? never : mount.use(what, name, run)),
    });
    void mender.mend({ ...node, name: 'stuck' });
    await mender.mend(node);
    assert.equal(await length(), 512);
  });
});
