import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { CommandError } from '../../src/cli/errors.js';
import { Pidfile } from '../../src/cli/pidfile.js';

describe('a pidfile', () => {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('holds the process id, and nothing is left of its making', async () => {
    const path = join(folder, 'pid');
    const pidfile = await Pidfile.prepare(path);
    assert.deepEqual(await readdir(folder), [], 'not before it is written');
    await pidfile.write();
    assert.equal(await readFile(path, 'utf8'), `${process.pid}\n`);
    assert.deepEqual(await readdir(folder), ['pid']);
    pidfile.remove();
    assert.deepEqual(await readdir(folder), []);
  });

  it('takes the place of an old one', async () => {
    const path = join(folder, 'pid');
    await writeFile(path, '1\n');
    await (await Pidfile.prepare(path)).write();
    assert.equal(await readFile(path, 'utf8'), `${process.pid}\n`);
  });

  it('is not taken for ours when it was left by a process that is gone', async () => {
    const path = join(folder, 'pid');
    const { pid } = spawnSync('true');
    await writeFile(path, `${pid}\n`);
    await Pidfile.prepare(path);
    assert.ok(!existsSync(path));
  });

  it('leaves a file alone that is of a process which lives, or no pidfile', async () => {
    const path = join(folder, 'pid');
    for (const content of [`${process.pid}\n`, '', 'a letter\n', '0\n', '-1\n']) {
      await writeFile(path, content);
      await Pidfile.prepare(path);
      assert.equal(await readFile(path, 'utf8'), content);
    }
  });

  it('is not removed when it is another process by now', async () => {
    const path = join(folder, 'pid');
    const pidfile = await Pidfile.prepare(path);
    await pidfile.write();
    await writeFile(path, '1\n');
    pidfile.remove();
    assert.ok(existsSync(path));
  });

  it('may be gone by the time it is removed', async () => {
    const pidfile = await Pidfile.prepare(join(folder, 'pid'));
    pidfile.remove();
  });

  it('is refused before anything is done', async () => {
    await mkdir(join(folder, 'directory'));
    await writeFile(join(folder, 'file'), '');
    for (const [path, message] of [
      [
        join(folder, 'none', 'pid'),
        /cannot write the pidfile .*none\/pid: its directory does not exist/,
      ],
      [join(folder, 'file', 'pid'), /file is not a directory/],
      [join(folder, 'directory'), /it is a directory/],
      ['', /its name is empty/],
    ] as const) {
      await assert.rejects(Pidfile.prepare(path), (error) => {
        assert.ok(error instanceof CommandError);
        assert.match(error.message, message);
        return true;
      });
    }
  });

  it('tells when it cannot be written any more', async () => {
    await mkdir(join(folder, 'sub'));
    const pidfile = await Pidfile.prepare(join(folder, 'sub', 'pid'));
    await rm(join(folder, 'sub'), { recursive: true });
    await assert.rejects(pidfile.write(), CommandError);
  });
});
