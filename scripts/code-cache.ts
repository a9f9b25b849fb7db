/**
 * Keeps what V8 makes of the commands: it compiles a function when it is first called, so that the
 * commands do their work once before it is kept. Where nothing can be mounted they do less of it, and
 * where all of that fails the commands start without it.
 */

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** Milliseconds for all of it. */
const DEADLINE = 20_000;
const LOOK_INTERVAL = 20;
/** Milliseconds to end by a signal. */
const END_DEADLINE = 5_000;

const WORKER = ['dist/scripts/code-cache-worker.cjs'] as const;

export async function writeCodeCaches(): Promise<void> {
  await writeFile(WORKER[0], await readFile('scripts/code-cache-worker.cjs'));
  const folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-build-'));
  try {
    await rehearse(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The main job, as a user has it who has installed nothing else. */
async function rehearse(folder: string): Promise<void> {
  const disk = join(folder, 'disk.raw');
  const pidfile = join(folder, 'pid');
  await writeFile(disk, '');
  const server = [process.execPath, ...WORKER, 'tsnbdkit', 'memory', '1M'];
  const args = [...WORKER, 'tsnbdfuse', '-P', pidfile, disk, '[', ...server, ']'];
  const child = spawn(process.execPath, args, { stdio: 'ignore' });
  const end = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const runs = (): boolean => child.exitCode === null && child.signalCode === null;
  const late = performance.now() + DEADLINE;
  while (runs() && !existsSync(pidfile) && performance.now() < late) await delay(LOOK_INTERVAL);
  if (runs() && existsSync(pidfile)) {
    const used = useDisk(disk).catch(() => undefined);
    await Promise.race([used, delay(late - performance.now(), undefined, { ref: false })]);
  }
  for (const signal of ['SIGTERM', 'SIGTERM', 'SIGKILL'] as const) {
    if (!runs()) break;
    child.kill(signal);
    await Promise.race([end, delay(END_DEADLINE, undefined, { ref: false })]);
  }
}

async function useDisk(disk: string): Promise<void> {
  const file = await open(disk, 'r+');
  try {
    const bytes = Buffer.alloc(64 * 1024, 1);
    for (let i = 0; i < 16; i++) {
      await file.write(bytes, 0, bytes.length, i * bytes.length);
      await file.sync();
      await file.read(bytes, 0, bytes.length, i * bytes.length);
    }
    await file.stat();
  } finally {
    await file.close();
  }
}
