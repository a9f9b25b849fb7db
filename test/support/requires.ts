/**
 * What an end-to-end test needs of the machine. Where that is missing, the test is skipped with the
 * reason; in CI it is an error, as a test that silently never runs protects nothing.
 */

import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

export interface Needs {
  /** Found in PATH, or where Debian keeps the programs of root. */
  readonly programs?: readonly string[];
  /** Paths of what was made before. */
  readonly files?: readonly string[];
  readonly root?: boolean;
  /** /dev/fuse can be opened. */
  readonly fuse?: boolean;
  /** Loop devices can be made. */
  readonly loop?: boolean;
}

const FOLDERS = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];

/** The absolute path of a program, or undefined. */
export function findProgram(name: string): string | undefined {
  return FOLDERS.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

function missing(needs: Needs): string[] {
  const problems: string[] = [];
  for (const program of needs.programs ?? []) {
    if (findProgram(program) === undefined) problems.push(`${program} is not installed`);
  }
  for (const file of needs.files ?? []) {
    if (!existsSync(file)) problems.push(`${file} was not made`);
  }
  if (needs.root === true && process.getuid?.() !== 0) problems.push('only root can run it');
  const devices = [
    ...(needs.fuse === true ? ['/dev/fuse'] : []),
    ...(needs.loop === true ? ['/dev/loop-control'] : []),
  ];
  for (const device of devices) {
    try {
      accessSync(device, constants.R_OK | constants.W_OK);
    } catch {
      problems.push(`${device} cannot be opened`);
    }
  }
  return problems;
}

/**
 * For the second argument of `it` and `describe`.
 * @throws Error in CI, when something is missing
 */
export function requires(needs: Needs): { skip?: string } {
  const problems = missing(needs);
  if (problems.length === 0) return {};
  const reason = problems.join('; ');
  const ci = process.env['CI'];
  if (ci !== undefined && ci !== '' && ci !== 'false') throw new Error(`in CI: ${reason}`);
  return { skip: reason };
}
