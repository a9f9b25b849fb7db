import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdtemp, readFile, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { PACKAGE_ROOT } from '../../src/package-root.js';

const run = promisify(execFile);

/** What starts each bundle. */
const STARTERS = {
  tsnbdfuse: ['tsnbdfuse', 'mount.fuse.tsnbdfuse', 'umount.fuse.tsnbdfuse'],
  tsnbdkit: ['tsnbdkit'],
} as const;

describe('bin/', () => {
  let copy: string;

  before(async () => {
    copy = await mkdtemp(join(tmpdir(), 'tsnbdfuse-launch-'));
    for (const part of ['bin', 'package.json', 'dist/bundle', 'native-bindings/build']) {
      await cp(join(PACKAGE_ROOT, part), join(copy, part), { recursive: true });
    }
  });
  after(() => rm(copy, { recursive: true }));

  const bundle = (name: string): string => join(copy, 'dist', 'bundle', name);
  /** What V8 made of a command. */
  const caches = async (name: string): Promise<string[]> =>
    (await readdir(bundle('')))
      .filter((file) => file.startsWith(`${name}-`) && file.endsWith('.cache'))
      .map((file) => bundle(file));
  /** Whether a cache is refused: `undefined` where none is looked at. */
  const refusal = async (name: string): Promise<string> => {
    const script = `require(${JSON.stringify(join(copy, 'bin', 'launch.cjs'))}).load('${name}').script`;
    return (await run(process.execPath, ['-p', `${script}.cachedDataRejected`])).stdout.trim();
  };

  /** Has the command print an expression instead of doing its work. */
  const replaced = async (
    name: string,
    expression: string,
    test: () => Promise<void>,
  ): Promise<void> => {
    const own = await readFile(bundle(`${name}.cjs`));
    for (const cache of await caches(name)) await rm(cache);
    await writeFile(
      bundle(`${name}.cjs`),
      `(function () { console.log(JSON.stringify(${expression})); })`,
    );
    try {
      await test();
    } finally {
      await writeFile(bundle(`${name}.cjs`), own);
    }
  };

  for (const name of ['tsnbdfuse', 'tsnbdkit'] as const) {
    const starts = async (): Promise<void> => {
      const { stdout, stderr } = await run(process.execPath, [join(copy, 'bin', name), '-V']);
      assert.match(stdout, new RegExp(`^${name} \\d+\\.\\d+\\.\\d+\\n$`));
      assert.equal(stderr, '');
    };

    it(`${name} starts with what V8 made of it at build time`, async () => {
      assert.equal((await caches(name)).length, 1);
      assert.equal(await refusal(name), 'false');
      await starts();
    });

    it(`${name} starts where that is of another version, damaged or missing`, async () => {
      const [file = ''] = await caches(name);
      const cache = await readFile(file);
      const other = Buffer.from(cache);
      // The version stands in front.
      other.fill(0x55, 4, 12);
      for (const wrong of [other, cache.subarray(0, 100), Buffer.alloc(0)]) {
        await writeFile(file, wrong);
        assert.equal(await refusal(name), 'true');
        await starts();
      }
      // V8 itself takes one of the same version for another processor, and crashes.
      await rename(file, file.replace(`-${process.arch}-`, '-other-'));
      assert.equal(await refusal(name), 'undefined');
      await starts();
    });

    it(`${name} is started by a link, with any words`, async () => {
      const link = join(copy, `a link to ${name}`);
      await symlink(join(copy, 'bin', name), link);
      const { stdout } = await run(link, ['-V']);
      assert.match(stdout, new RegExp(`^${name} \\d`));
      const words = ['--', 'a  b', '$HOME', '*', ''];
      await replaced(name, 'process.argv.slice(2)', async () => {
        assert.deepEqual(JSON.parse((await run(link, words)).stdout), words);
      });
    });

    it(`${name} keeps the certificates of NODE_EXTRA_CA_CERTS for what it starts`, async () => {
      const env = { ...process.env, NODE_EXTRA_CA_CERTS: join(copy, 'no such file') };
      const names = '[process.env.NODE_EXTRA_CA_CERTS, process.env.TSNBDFUSE_CA_CERTS]';
      await replaced(name, names, async () => {
        const { stdout, stderr } = await run(join(copy, 'bin', name), [], { env });
        // Node warns of what it cannot read.
        assert.equal(stderr, '');
        assert.deepEqual(JSON.parse(stdout), [env.NODE_EXTRA_CA_CERTS, null]);
      });
    });

    for (const command of STARTERS[name]) {
      it(`${command} is opened to a debugger by no signal, however early`, async () => {
        // Node runs it before anything of ours, and looks at the signal while JavaScript runs.
        const early = join(copy, 'early.cjs');
        const signalled = 'process.kill(process.pid, "SIGUSR1");';
        const wait = 'for (const end = performance.now() + 300; performance.now() < end; ) ;';
        await writeFile(early, `${signalled}${wait}`);
        const debuggerUrl = "process.getBuiltinModule('node:inspector').url() ?? null";
        const state = `[${debuggerUrl}, process.listenerCount('SIGUSR1')]`;
        await replaced(name, state, async () => {
          const env = { ...process.env, NODE_OPTIONS: `--require ${early}` };
          const { stdout, stderr } = await run(join(copy, 'bin', command), [], { env });
          assert.deepEqual(JSON.parse(stdout), [null, 1]);
          assert.match(stderr, /^(Starting inspector on \S+ failed: address not available\n)*$/);
        });
      });
    }

    it(`${name} says so where it was not built`, async () => {
      await rm(bundle(`${name}.cjs`));
      await assert.rejects(run(process.execPath, [join(copy, 'bin', name)]), {
        code: 1,
        stderr: `${name}: not built yet; run "npm run build" in the folder of the package\n`,
      });
    });
  }
});

describe('the build', () => {
  it('leaves nothing of what V8 made of an earlier source of the same length', async () => {
    const copy = await mkdtemp(join(tmpdir(), 'tsnbdfuse-build-'));
    try {
      // Without the addon nothing is mounted.
      for (const part of ['bin', 'package.json', 'dist/src', 'dist/scripts', 'scripts']) {
        await cp(join(PACKAGE_ROOT, part), join(copy, part), { recursive: true });
      }
      await symlink(join(PACKAGE_ROOT, 'node_modules'), join(copy, 'node_modules'));
      const file = join(copy, 'dist', 'src', 'cli', 'main.js');
      const text = 'print(`tsnbdfuse ';
      const source = await readFile(file, 'utf8');
      assert.ok(source.includes(text));
      for (const word of ['edition1', 'edition2']) {
        await writeFile(file, source.replace(text, `print(\`${word} `));
        await run(process.execPath, [join('dist', 'scripts', 'bundle.js')], { cwd: copy });
        const made = await readdir(join(copy, 'dist', 'bundle'));
        assert.ok(made.some((name) => name.startsWith('tsnbdfuse-') && name.endsWith('.cache')));
        const { stdout } = await run(process.execPath, [join(copy, 'bin', 'tsnbdfuse'), '-V']);
        assert.match(stdout, new RegExp(`^${word} `));
      }
    } finally {
      await rm(copy, { recursive: true });
    }
  });
});
