import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { AddonError, findAddon } from '../src/addon.js';
import { libcOf } from '../src/libc.js';
import { PACKAGE_ROOT } from '../src/package-root.js';
import { Workplace } from './support/mounts.js';

const NAME = `linux-${process.arch}`;
const LIBC = libcOf(process.execPath);

describe('findAddon', () => {
  let root = '';
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
  });
  afterEach(() => rm(root, { recursive: true }));

  it('takes the one of the package for this machine', () => {
    assert.equal(findAddon(root), join(root, 'prebuilds', NAME, `tsnbdfuse.${LIBC}.node`));
  });
  it('goes by what Node.js is linked with', async () => {
    const program = join(root, 'node');
    await writeFile(program, 'no program at all');
    assert.equal(findAddon(root, program), join(root, 'prebuilds', NAME, 'tsnbdfuse.glibc.node'));
  });
  it('takes one that was compiled here before that', async () => {
    const folder = join(root, 'native-bindings', 'build', 'Release');
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'native.node'), '');
    assert.equal(findAddon(root), join(folder, 'native.node'));
  });
});

describe('AddonError', () => {
  it('names a folder as a shell takes it', () => {
    const { message } = new AddonError('/none', new Error('none'), "/a b/it's");
    assert.match(message, /npm --prefix '\/a b\/it'\\''s' run addon$/);
  });
});

describe('the commands where there is no addon', () => {
  let place: Workplace;
  beforeEach(async () => {
    place = await Workplace.create();
    for (const part of ['bin', 'package.json', 'dist/bundle']) {
      await cp(join(PACKAGE_ROOT, part), place.join(part), { recursive: true });
    }
  });
  afterEach(() => place.remove());

  const JOBS = {
    tsnbdfuse: ['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']'],
    tsnbdkit: ['-U', 'socket', 'memory', '1M'],
  };
  const says = async (name: keyof typeof JOBS): Promise<string> => {
    await place.file('disk.raw');
    const { status, stdout, stderr } = await place.run(place.join(`bin/${name}`), JOBS[name]);
    await place.nothingLeft();
    assert.deepEqual([status, stdout], [1, '']);
    return stderr;
  };
  const remedy = (): string =>
    `a C compiler, make and Python 3 make one: npm --prefix ${place.path} run addon\n`;

  for (const name of ['tsnbdfuse', 'tsnbdkit'] as const) {
    it(`${name} says in one line for which machine, and how to get one`, async () => {
      const machine = `linux ${process.arch} with ${LIBC}`;
      const problem = `the package has no native addon for ${machine}`;
      assert.equal(await says(name), `${name}: ${problem}; ${remedy()}`);
    });
    it(`${name} says in one line why the one there cannot be loaded`, async () => {
      const folder = place.join(`prebuilds/${NAME}`);
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, `tsnbdfuse.${LIBC}.node`), 'no addon\n');
      const line = await says(name);
      assert.ok(line.startsWith(`${name}: the native addon cannot be loaded (`), line);
      assert.ok(line.endsWith(`); ${remedy()}`), line);
      assert.equal(line.indexOf('\n'), line.length - 1);
    });
  }
});
