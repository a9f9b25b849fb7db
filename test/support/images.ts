/** Disk images of any format, made by qemu-img. */

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { findProgram } from './requires.js';

/** @param args of qemu-img. @returns what it printed */
export async function qemuImg(...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(findProgram('qemu-img') ?? 'qemu-img', args);
  return stdout;
}

/**
 * Makes an image of 4 MiB, or another size.
 * @param format as qemu has it
 * @param options of the format: `subformat=fixed`
 */
export async function makeImage(
  path: string,
  format: string,
  options?: string,
  size = '4M',
): Promise<void> {
  const more = options === undefined ? [] : ['-o', options];
  await qemuImg('create', '-q', '-f', format, ...more, path, size);
}
