/** The addons that the package brings along: `npm run prebuilds`, which `npm test` runs before. */

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { findAddon } from '../src/addon.js';
import { libcOf } from '../src/libc.js';
import { native } from '../src/native.js';
import { PACKAGE_ROOT } from '../src/package-root.js';
import { needsOf } from './support/elf.js';
import type { Needs } from './support/elf.js';
import { requires } from './support/requires.js';

/** What Node.js 20 itself needs of glibc. */
const GLIBC = [2, 28] as const;

const MACHINES = { x64: 'Advanced Micro Devices X86-64', arm64: 'AArch64' };
const LIBRARIES = { glibc: 'libc.so.6', musl: 'libc.so' };

const fileOf = (arch: string, libc: string): string =>
  join(PACKAGE_ROOT, 'prebuilds', `linux-${arch}`, `tsnbdfuse.${libc}.node`);

const ofNode = ({ symbols }: Needs): string[] =>
  symbols.filter((name) => /^(napi|node_api|uv)_/.test(name));

describe('the addons of the package', requires({ programs: ['readelf'] }), () => {
  let compiled: Needs;
  before(async () => {
    compiled = await needsOf(findAddon());
  });

  for (const arch of ['x64', 'arm64'] as const) {
    for (const libc of ['glibc', 'musl'] as const) {
      const file = fileOf(arch, libc);
      it(
        `for ${arch} with ${libc} need no more than Node.js there`,
        requires({ files: [file] }),
        async () => {
          const needs = await needsOf(file);
          assert.equal(needs.machine, MACHINES[arch]);
          assert.deepEqual(needs.libraries, [LIBRARIES[libc]]);
          assert.deepEqual(ofNode(needs), ofNode(compiled));
          const newer = [...needs.versions].filter((version) => {
            const [, major, minor] = /^GLIBC_(\d+)\.(\d+)/.exec(version) ?? [];
            return libc === 'musl' || Number(major) !== GLIBC[0] || Number(minor) > GLIBC[1];
          });
          assert.deepEqual(newer, []);
        },
      );
    }
  }

  const own = fileOf(process.arch, libcOf(process.execPath));
  it('for this machine is what was compiled here', requires({ files: [own] }), () => {
    const brought = createRequire(own)(own) as object;
    assert.notEqual(brought, native);
    assert.deepEqual(Object.keys(brought), Object.keys(native));
  });
});
