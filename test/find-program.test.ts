import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { findProgram } from '../src/find-program.js';

describe('findProgram', () => {
  let folder = '';
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
    for (const name of ['a', 'b', 'c']) await mkdir(join(folder, name));
    await writeFile(join(folder, 'b', 'both'), '', { mode: 0o755 });
    await writeFile(join(folder, 'c', 'both'), '', { mode: 0o755 });
    await writeFile(join(folder, 'a', 'plain'), '');
    await chmod(join(folder, 'a', 'plain'), 0o644);
    await writeFile(join(folder, 'c', 'plain'), '', { mode: 0o755 });
    await mkdir(join(folder, 'a', 'both'));
    await writeFile(join(folder, 'a', 'only'), '');
    await chmod(join(folder, 'a', 'only'), 0o644);
  });
  after(() => rm(folder, { recursive: true }));

  const path = (): string => ['a', 'none', 'b', 'c'].map((name) => join(folder, name)).join(':');

  it('takes the first in PATH, folders aside', async () => {
    const path1 = join(folder, 'b', 'both');
    assert.deepEqual(await findProgram('both', path()), { found: true, path: path1 });
  });
  it('passes over what is not executable', async () => {
    const path1 = join(folder, 'c', 'plain');
    assert.deepEqual(await findProgram('plain', path()), { found: true, path: path1 });
  });
  it('tells of what is not executable when there is nothing else', async () => {
    assert.deepEqual(await findProgram('only', path()), {
      found: false,
      reason: `was found as ${join(folder, 'a', 'only')}, not executable`,
    });
  });
  it('tells when there is nothing', async () => {
    const nothing = { found: false, reason: 'was not found in PATH' };
    assert.deepEqual(await findProgram('nothing', path()), nothing);
    assert.deepEqual(await findProgram('nothing', '/none'), nothing);
  });
  it('takes a name with a slash as it is', async () => {
    const both = join(folder, 'b', 'both');
    assert.deepEqual(await findProgram(both, ''), { found: true, path: both });
    for (const [name, reason] of [
      ['none', 'does not exist'],
      ['a', 'is a directory'],
      ['a/only', 'is not executable'],
      ['a/only/x', 'does not exist'],
    ] as const) {
      assert.deepEqual(await findProgram(join(folder, name), path()), { found: false, reason });
    }
    assert.deepEqual(await findProgram('/dev/null', ''), {
      found: false,
      reason: 'is not a regular file',
    });
  });
});
