/**
 * Which addon is loaded: one that was compiled here, or the one that the package brings along for this
 * machine, in the layout of prebuildify (prebuilds/linux-x64/tsnbdfuse.glibc.node).
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { libcOf } from './libc.js';
import { PACKAGE_ROOT } from './package-root.js';

const COMPILED = ['native-bindings', 'build', 'Release', 'native.node'] as const;

/**
 * The path of the addon, which need not be there.
 * @param root the folder of the package
 * @param program the file of the Node.js that is to load it
 */
export function findAddon(root = PACKAGE_ROOT, program = process.execPath): string {
  const compiled = join(root, ...COMPILED);
  if (existsSync(compiled)) return compiled;
  const { platform, arch } = process;
  return join(root, 'prebuilds', `${platform}-${arch}`, `tsnbdfuse.${libcOf(program)}.node`);
}

/** Says in one line why there is no addon, and how to get one. */
export class AddonError extends Error {
  override readonly name = 'AddonError';

  /**
   * @param path of the addon that was to be loaded
   * @param cause what came of it
   */
  constructor(path: string, cause: unknown, root = PACKAGE_ROOT) {
    const { platform, arch } = process;
    const [reason = ''] = (cause instanceof Error ? cause.message : String(cause)).split('\n');
    const problem = existsSync(path)
      ? `the native addon cannot be loaded (${reason})`
      : `the package has no native addon for ${platform} ${arch} with ${libcOf(process.execPath)}`;
    // For a shell, where the folder has more in its name than usual.
    const folder = /^[\w@%+=:,./-]+$/.test(root) ? root : `'${root.replaceAll("'", `'\\''`)}'`;
    const remedy = `a C compiler, make and Python 3 make one: npm --prefix ${folder} run addon`;
    super(`${problem}; ${remedy}`, { cause });
  }
}
