import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PrivateDirectory } from '../../src/cli/private-directory.js';

describe('the private directory of a socket', () => {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('is made where the user has a folder for that, for nobody else to enter', async () => {
    const directory = await PrivateDirectory.create({ XDG_RUNTIME_DIR: folder });
    assert.equal(dirname(directory.path), folder);
    assert.equal((await stat(directory.path)).mode & 0o777, 0o700);
    assert.equal(dirname(directory.socketPath), directory.path);
    await writeFile(directory.socketPath, '');
    directory.remove();
    assert.ok(!existsSync(directory.path));
    directory.remove();
  });

  it('is another one each time', async () => {
    const [a, b] = await Promise.all(
      [1, 2].map(() => PrivateDirectory.create({ XDG_RUNTIME_DIR: folder })),
    );
    assert.ok(a !== undefined && b !== undefined);
    assert.notEqual(a.path, b.path);
  });

  it('is made elsewhere when that folder is of no use', async () => {
    const long = join(folder, 'x'.repeat(80));
    await mkdir(long);
    for (const place of [long, join(folder, 'none'), 'relative', '']) {
      const directory = await PrivateDirectory.create({ XDG_RUNTIME_DIR: place });
      try {
        assert.equal(dirname(directory.path), tmpdir(), place);
        assert.ok(Buffer.byteLength(directory.socketPath) <= 107);
      } finally {
        directory.remove();
      }
    }
  });
});
