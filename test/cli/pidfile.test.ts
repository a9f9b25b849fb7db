import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import {
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  realpath,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
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

  it('leaves one alone that is of a process which lives, or empty, until it is written', async () => {
    const path = join(folder, 'pid');
    for (const content of [`${process.pid}\n`, '', '  1  \n']) {
      await writeFile(path, content);
      const pidfile = await Pidfile.prepare(path);
      assert.equal(await readFile(path, 'utf8'), content);
      pidfile.remove();
      assert.equal(await readFile(path, 'utf8'), content, 'it was not ours');
      await pidfile.write();
      assert.equal(await readFile(path, 'utf8'), `${process.pid}\n`);
    }
  });

  it('does not take that of a command which still shows or serves a disk', async () => {
    const path = join(folder, 'pid');
    for (const [argv0, message] of [
      [
        '/usr/bin/tsnbdfuse',
        /process \d+, which wrote it, still shows a disk; unmount that first,/,
      ],
      ['nbdfuse', /process \d+, which wrote it, still shows a disk; unmount that first,/],
      ['bin/tsnbdkit', /process \d+, which wrote it, still serves a disk; end that first,/],
    ] as const) {
      const early = await Pidfile.prepare(join(folder, 'later'));
      const child = spawn('sleep', ['60'], { argv0 });
      try {
        await once(child, 'spawn');
        const content = `${child.pid ?? 0}\n`;
        await writeFile(path, content);
        await writeFile(join(folder, 'later'), content);
        for (const attempt of [Pidfile.prepare(path), early.write()]) {
          await assert.rejects(attempt, message);
        }
        assert.equal(await readFile(path, 'utf8'), content);
      } finally {
        child.kill('SIGKILL');
        await once(child, 'exit');
      }
      await (await Pidfile.prepare(path)).write();
      assert.equal(await readFile(path, 'utf8'), `${process.pid}\n`);
    }
  });

  it('never takes the place of another file, nor its life', async () => {
    const path = join(folder, 'pid');
    for (const content of ['a letter\n', '0\n', '-1\n', '12 34\n', '\0', '1'.repeat(4096)]) {
      await writeFile(path, content);
      await assert.rejects(Pidfile.prepare(path), /it exists and is no pidfile$/);
      assert.equal(await readFile(path, 'utf8'), content);
    }
    await rm(path);
    const pidfile = await Pidfile.prepare(path);
    await writeFile(path, 'somebody was faster\n');
    await assert.rejects(pidfile.write(), /no pidfile/);
    pidfile.remove();
    assert.equal(await readFile(path, 'utf8'), 'somebody was faster\n');
    assert.deepEqual(await readdir(folder), ['pid'], 'nothing unfinished is left');
  });

  it('never takes the place of what is no file', async () => {
    const path = join(folder, 'pid');
    const target = join(folder, 'target');
    await writeFile(target, '1\n');
    for (const [make, message] of [
      [() => spawnSync('mkfifo', [path]), /it is not a regular file$/],
      [() => symlink(target, path), /it is a symbolic link$/],
      [() => symlink(join(folder, 'nowhere'), path), /it is a symbolic link$/],
    ] as const) {
      await make();
      await assert.rejects(Pidfile.prepare(path), message);
      await rm(path);
      const pidfile = await Pidfile.prepare(path);
      await make();
      const { ino } = await lstat(path);
      await assert.rejects(pidfile.write(), message);
      pidfile.remove();
      assert.equal((await lstat(path)).ino, ino);
      await rm(path);
    }
    assert.equal(await readFile(target, 'utf8'), '1\n');
    await assert.rejects(Pidfile.prepare('/dev/null'), /null: it is not a regular file$/);
    await assert.rejects(Pidfile.prepare('/dev/stdout'), /stdout: it is a symbolic link$/);
  });

  it('is not removed when another has the same content', async () => {
    const path = join(folder, 'pid');
    const pidfile = await Pidfile.prepare(path);
    await pidfile.write();
    await writeFile(`${path}.2`, `${process.pid}\n`);
    await rename(`${path}.2`, path);
    pidfile.remove();
    assert.ok(existsSync(path));
  });

  it('knows what would be in its way', async () => {
    await mkdir(join(folder, 'dir'));
    await symlink('dir', join(folder, 'link'));
    const real = await realpath(folder);
    const pidfile = await Pidfile.prepare(join(folder, 'link', 'pid'));
    assert.ok(pidfile.isBelow(join(real, 'dir')));
    assert.ok(pidfile.isBelow(join(real, 'dir', 'pid')));
    assert.ok(pidfile.isBelow('/'));
    assert.ok(!pidfile.isBelow(join(real, 'di')));
    assert.ok(!pidfile.isBelow(join(real, 'dir', 'p')));
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
      [join(folder, 'none/'), /that is the name of a directory/],
      [join(folder, 'x'.repeat(256)), /name too long/],
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
