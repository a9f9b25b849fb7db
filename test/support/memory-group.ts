/** A group of processes with a limit on its memory (cgroups(7), version 1 or 2), made for a test. */

import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { until } from './mounts.js';

interface Hierarchy {
  readonly root: string;
  /** The name of the file with the limit, and of that which tells of who was killed. */
  readonly limit: string;
  readonly events: string;
}

function find(): Hierarchy | undefined {
  const first = { root: '/sys/fs/cgroup/memory', limit: 'memory.limit_in_bytes' };
  if (existsSync(join(first.root, first.limit))) return { ...first, events: 'memory.oom_control' };
  const root = '/sys/fs/cgroup';
  try {
    const controllers = readFileSync(join(root, 'cgroup.subtree_control'), 'utf8');
    if (!controllers.split(/\s+/).includes('memory')) return undefined;
  } catch {
    return undefined;
  }
  return { root, limit: 'memory.max', events: 'memory.events' };
}

/** Whether this machine has such groups. */
export const memoryGroups = (): boolean => find() !== undefined;

export class MemoryGroup {
  readonly #path: string;
  readonly #hierarchy: Hierarchy;

  private constructor(path: string, hierarchy: Hierarchy) {
    this.#path = path;
    this.#hierarchy = hierarchy;
  }

  /** @param limit bytes. @throws Error where it cannot be made */
  static async create(limit: number): Promise<MemoryGroup> {
    const hierarchy = find();
    if (hierarchy === undefined) throw new Error('there are no groups with a limit on memory');
    const path = join(hierarchy.root, `tsnbdfuse-test-${randomUUID()}`);
    await mkdir(path);
    await writeFile(join(path, hierarchy.limit), String(limit));
    return new MemoryGroup(path, hierarchy);
  }

  /** A shell script that joins the group and becomes what its arguments say. */
  get join(): string {
    return `echo $$ >${this.#path}/cgroup.procs; exec "$0" "$@"`;
  }

  /** How many processes were killed since they needed more than there was. */
  async killed(): Promise<number> {
    const events = await readFile(join(this.#path, this.#hierarchy.events), 'utf8');
    return Number(/^oom_kill (\d+)$/m.exec(events)?.[1] ?? 0);
  }

  async remove(): Promise<void> {
    await until('the group is empty', async () =>
      rmdir(this.#path).then(
        () => true,
        () => false,
      ),
    );
  }
}
