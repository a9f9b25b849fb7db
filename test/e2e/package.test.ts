/**
 * The package as a user gets it: packed, and installed where there is no compiler and no script of it is run.
 * The addons it brings along are made before, by `npm run prebuilds`.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, realpath, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { libcOf } from '../../src/libc.js';
import { PACKAGE_ROOT } from '../../src/package-root.js';
import { Mounted, Workplace, until } from '../support/mounts.js';
import { findProgram, requires } from '../support/requires.js';

/** Milliseconds; npm fetches the dependencies. */
const NPM_DEADLINE = 240_000;
const SIZE = 16 * 1024 * 1024;

const ADDON = `prebuilds/linux-${process.arch}/tsnbdfuse.${libcOf(process.execPath)}.node`;
/** All that may stand in the package. */
const CONTENTS = [
  /^(package\.json|README\.md|LICENSE)$/,
  /^bin\/(tsnbdfuse|tsnbdkit|u?mount\.fuse\.tsnbdfuse|launch\.cjs|package\.json)$/,
  /^dist\/src\/.+\.(js|d\.ts)$/,
  /^dist\/bundle\/[^/]+\.(cjs|cache)$/,
  /^prebuilds\/linux-(x64|arm64)\/tsnbdfuse\.(glibc|musl)\.node$/,
  /^native-bindings\/([^/]+\.[ch]|binding\.gyp|README\.md)$/,
  /^examples\/[^/]+\.(ts|md)$/,
  /^man\/[^/]+\.\d$/,
  /^systemd\/[^/]+\.(service|mount)$/,
];

interface Packed {
  readonly filename: string;
  readonly files: readonly { readonly path: string }[];
}

interface Manifest {
  readonly scripts: Record<string, string>;
}

describe('the package', requires({ files: [join(PACKAGE_ROOT, ADDON)] }), () => {
  let place: Workplace;
  let packed: Packed;
  let tarball: string;
  /** The folder of the installed package. */
  let installed: string;
  /** Where Node.js, npm and the installed commands are found, and nothing else. */
  let PATH: string;

  before(async () => {
    place = await Workplace.create();
    await mkdir(place.join('tools'));
    const npm = findProgram('npm') ?? '';
    await symlink(process.execPath, place.join('tools/node'));
    await symlink(await realpath(npm), place.join('tools/npm'));
    const options = { env: { PATH: place.join('tools') }, deadline: NPM_DEADLINE };

    // What the package is made of was built before, and is used by other tests meanwhile.
    const pack = ['pack', PACKAGE_ROOT, '--json', '--ignore-scripts'];
    const [entry] = JSON.parse(await place.ok(npm, pack, options)) as Packed[];
    assert.ok(entry !== undefined);
    packed = entry;
    tarball = place.join(packed.filename);

    const install = ['install', '--global', '--prefix', place.join('prefix'), '--ignore-scripts'];
    const quiet = ['--no-audit', '--no-fund', '--prefer-offline'];
    await place.ok(npm, [...install, ...quiet, tarball], options);
    installed = place.join('prefix/lib/node_modules/tsnbdfuse');
    PATH = `${place.join('prefix/bin')}:${place.join('tools')}`;
    await mkdir(place.join('consumer/node_modules'), { recursive: true });
    await symlink(installed, place.join('consumer/node_modules/tsnbdfuse'));
    // What an ordinary user mounts with.
    const helper = findProgram('fusermount3');
    if (helper !== undefined) await symlink(helper, place.join('tools/fusermount3'));
  });
  after(() => place.finish());

  it('holds what belongs there, and nothing else', () => {
    const paths = packed.files.map(({ path }) => path);
    const strange = paths.filter((path) => !CONTENTS.some((pattern) => pattern.test(path)));
    assert.deepEqual(strange, []);
    for (const path of ['dist/src/index.js', 'dist/src/index.d.ts', ADDON]) {
      assert.ok(paths.includes(path), `${path} is missing`);
    }
  });

  it('has nothing that publint finds', async () => {
    const { buffer, byteOffset, byteLength } = await readFile(tarball);
    const archive = buffer.slice(byteOffset, byteOffset + byteLength);
    const { messages, pkg } = await publint({ pack: { tarball: archive }, strict: true });
    assert.deepEqual(
      messages.map((message) => formatMessage(message, pkg, { color: false })),
      [],
    );
  });

  it('has no script that runs when it is installed, and compiled nothing', async () => {
    const manifest = await readFile(join(installed, 'package.json'), 'utf8');
    const { scripts } = JSON.parse(manifest) as Manifest;
    // Of the last one npm warns, although it runs it in a clone only.
    for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) {
      assert.ok(!(name in scripts), name);
    }
    assert.ok(!existsSync(join(installed, 'native-bindings/build')));
  });

  it('does the main job', requires({ fuse: true }), async () => {
    await place.file('disk.raw');
    const server = ['[', 'tsnbdkit', 'memory', String(SIZE), ']'];
    const words = ['-P', place.join('pid'), 'disk.raw', ...server];
    const running = place.start(place.join('prefix/bin/tsnbdfuse'), words, { env: { PATH } });
    await until('it is mounted', () => running.hasEnded || existsSync(place.join('pid')));
    assert.equal(running.stderr, '');
    const mounted = new Mounted(place, running);

    const data = randomBytes(SIZE);
    await writeFile(place.join('data'), data);
    await place.ok('dd', ['if=data', 'of=disk.raw', 'bs=1M', 'conv=notrunc,fsync', 'status=none']);
    await place.ok('cmp', ['data', 'disk.raw']);
    const { status, stdout, stderr } = await mounted.unmount('disk.raw');
    assert.deepEqual([status, stdout, stderr], [0, '', '']);
  });

  it('is a library', async () => {
    const program = await place.file(
      'consumer/program.mjs',
      `import { connect, memoryDisk, mount, serve } from 'tsnbdfuse';
       import { readDisk } from 'tsnbdfuse/disk';
       const server = await serve(await memoryDisk(512), { on: 0 });
       const client = await connect(server.uri);
       console.log(client.size, (await readDisk(client.disk, 0n, 2)).length, typeof mount);
       await client.close();
       await server.close();`,
    );
    assert.equal(await place.ok('node', [program], { env: { PATH } }), '512n 2 function\n');
  });

  for (const [module, moduleResolution] of [
    ['nodenext', 'nodenext'],
    ['preserve', 'bundler'],
  ] as const) {
    it(`has types, as ${moduleResolution} resolves them`, async () => {
      const require = createRequire(import.meta.url);
      const options = { module, moduleResolution, target: 'es2023', lib: ['es2023'] };
      const typeRoots = [join(PACKAGE_ROOT, 'node_modules/@types')];
      const compilerOptions = {
        ...options,
        strict: true,
        noEmit: true,
        typeRoots,
        types: ['node'],
      };
      await place.file(
        'consumer/tsconfig.json',
        JSON.stringify({ compilerOptions, files: ['program.mts', 'program.cts'] }),
      );
      const use = `import { connect, type Disk } from 'tsnbdfuse';
        import { fitDisk } from 'tsnbdfuse/disk';
        export const size = async (): Promise<bigint> => (await connect('nbd://localhost')).size;
        export const fit: (disk: Disk, most: number) => Disk = fitDisk;
        // @ts-expect-error: what is typed is not any
        export const wrong: Disk = 1;`;
      await place.file('consumer/program.mts', use);
      await place.file('consumer/program.cts', use);
      const tsc = require.resolve('typescript/bin/tsc');
      await promisify(execFile)(process.execPath, [tsc, '-p', place.join('consumer')]);
    });
  }
});
