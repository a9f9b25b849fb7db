import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { CommandError } from '../../src/cli/errors.js';
import { checkSurroundings } from '../../src/cli/surroundings.js';

describe('what a command is started in', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
  });
  after(() => rm(folder, { recursive: true }));

  it('does here', () => checkSurroundings());

  it('has to have a /proc', () => {
    assert.throws(
      () => checkSurroundings(join(folder, 'none')),
      (error) => {
        assert.ok(error instanceof CommandError);
        assert.match(error.message, /^there is no \/proc here; .*: mount -t proc proc \/proc$/);
        return true;
      },
    );
  });

  it('has to allow some open files', async () => {
    const limits = join(folder, 'limits');
    const line = (most: string): string => `Max open files            ${most}  1048576  files\n`;
    for (const most of ['64', '1048576', 'unlimited']) {
      await writeFile(limits, line(most));
      checkSurroundings(limits);
    }
    await writeFile(limits, line('63'));
    assert.throws(() => checkSurroundings(limits), /^CommandError: too many open files: only 63/);
  });
});
