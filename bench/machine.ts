/** The machine and the versions, without which no figure means anything. */

import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { run } from './processes.js';

export interface Machine {
  readonly processors: string;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly versions: Readonly<Record<string, string>>;
}

const PROGRAMS = ['nbdkit', 'nbdfuse', 'qemu-nbd', 'qemu-storage-daemon', 'fio'];

/** "qemu-nbd 7.2.22 (Debian 1:7.2...)" and "fio-3.33" to the version alone. */
export function versionIn(text: string): string {
  return /\d+(\.\d+)+/.exec(text)?.[0] ?? 'unknown';
}

export async function describeMachine(commands: string): Promise<Machine> {
  const model = /model name\s*: (.*)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  const versions: Record<string, string> = { node: process.versions.node };
  const paths = [`${commands}/tsnbdfuse`, ...PROGRAMS];
  for (const path of paths) {
    const name = path.slice(path.lastIndexOf('/') + 1);
    const said = await run([path, '--version']).catch(() => undefined);
    if (said !== undefined) versions[name] = versionIn(said);
  }
  return {
    processors: `${cpus().length} x ${model ?? 'unknown'}`,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    versions,
  };
}

export function machineText(machine: Machine): string {
  const versions = Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`);
  return `${machine.processors}, ${machine.memoryGiB} GiB, Linux ${machine.kernel}\n${versions.join(', ')}`;
}
