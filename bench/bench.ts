/** Runs the jobs on tsnbdfuse and on nbdfuse in turn, over one server, and prints medians and ratios. */

import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { MountedContender } from './contender.js';
import type { Contender } from './contender.js';
import { JOBS } from './jobs.js';
import type { Job } from './jobs.js';

const SIZE_MIB = 1024;
const ROUNDS = { usual: 5, quick: 3 };
/** Seconds of each job that runs by time. */
const RUNTIME = { usual: 5, quick: 2 };

const OURS: Contender = {
  name: 'tsnbdfuse',
  command: [process.execPath, fileURLToPath(new URL('../../bin/tsnbdfuse', import.meta.url))],
};
const REFERENCE: Contender = { name: 'nbdfuse', command: ['nbdfuse'] };

interface FioReport {
  readonly jobs: readonly {
    readonly read: { readonly iops: number; readonly bw_bytes: number };
    readonly write: { readonly iops: number; readonly bw_bytes: number };
  }[];
}

async function measure(job: Job, file: string, seconds: number): Promise<number> {
  if (job.coldCache) {
    await execa('sync');
    writeFileSync('/proc/sys/vm/drop_caches', '3\n');
  }
  const { stdout } = await execa('fio', [
    '--name=bench',
    `--filename=${file}`,
    `--size=${SIZE_MIB}M`,
    `--runtime=${seconds}`,
    '--output-format=json',
    '--randrepeat=1',
    ...job.fio,
  ]);
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as FioReport;
  const side = report.jobs[0]?.[job.side];
  if (side === undefined) throw new Error('fio reported no job');
  return job.unit === 'IOPS' ? side.iops : side.bw_bytes / 1e6;
}

/** Random data all over the disk, so that no page of the server's memory is still to be made. */
async function fill(file: string): Promise<void> {
  const handle = await open(file, 'r+');
  const block = randomBytes(1024 * 1024);
  for (let i = 0; i < SIZE_MIB; i++) await handle.write(block, 0, block.length, i * block.length);
  await handle.sync();
  await handle.close();
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

interface Row {
  readonly job: Job;
  readonly ours: number[];
  readonly reference: number[];
}

function print(rows: readonly Row[]): boolean {
  let met = true;
  const table: string[][] = [['job', 'tsnbdfuse', 'nbdfuse', 'ratio', 'of the rounds', 'goal']];
  for (const { job, ours, reference } of rows) {
    const ratios = ours.map((value, i) => value / (reference[i] ?? NaN));
    const ratio = median(ratios);
    met &&= ratio >= job.goal;
    const show = (value: number): string => `${Math.round(value)} ${job.unit}`;
    table.push([
      job.name,
      show(median(ours)),
      show(median(reference)),
      ratio.toFixed(2),
      `${Math.min(...ratios).toFixed(2)}-${Math.max(...ratios).toFixed(2)}`,
      `${ratio >= job.goal ? 'met' : 'NOT MET'} (${job.goal})`,
    ]);
  }
  const widths = table[0]?.map((_, i) => Math.max(...table.map((line) => line[i]?.length ?? 0)));
  for (const line of table) {
    console.log(line.map((cell, i) => cell.padEnd(widths?.[i] ?? 0)).join('  '));
  }
  return met;
}

async function versions(): Promise<string> {
  const first = async (program: string): Promise<string> =>
    (await execa(program, ['--version'])).stdout.split('\n')[0] ?? '';
  const model = /model name\s*: (.*)/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 'unknown';
  return [
    `${cpus().length} x ${model}, Linux ${release()}, Node ${process.versions.node}`,
    `${await first('nbdkit')}, ${await first('nbdfuse')}, ${await first('fio')}`,
  ].join('\n');
}

async function main(): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('the bench empties the page cache: run it as root');
  const pace = process.argv.includes('--quick') ? 'quick' : 'usual';
  const folder = mkdtempSync(join(tmpdir(), 'tsnbdfuse-bench-'));
  const socket = join(folder, 'nbd.sock');
  console.log(await versions());
  console.log(`nbdkit memory ${SIZE_MIB}M, ${ROUNDS[pace]} alternating rounds, medians\n`);
  const server = execa('nbdkit', ['-f', '-U', socket, 'memory', `${SIZE_MIB}M`], {
    stdio: 'ignore',
  });
  server.catch(() => undefined);
  const uri = `nbd+unix:///?socket=${encodeURIComponent(socket)}`;
  const rows: Row[] = JOBS.map((job) => ({ job, ours: [], reference: [] }));
  try {
    await waitForSocket(socket);
    const first = await MountedContender.mount(OURS, folder, uri);
    await fill(first.file);
    await first.unmount();
    for (let round = 0; round < ROUNDS[pace]; round++) {
      // Each goes first in every other round.
      const both = [OURS, REFERENCE];
      for (const contender of round % 2 === 0 ? both : both.toReversed()) {
        const mounted = await MountedContender.mount(contender, folder, uri);
        try {
          for (const row of rows) {
            const value = await measure(row.job, mounted.file, RUNTIME[pace]);
            (contender === OURS ? row.ours : row.reference).push(value);
          }
        } finally {
          await mounted.unmount();
        }
      }
      console.error(`round ${round + 1} of ${ROUNDS[pace]} done`);
    }
  } finally {
    server.kill('SIGTERM');
    await server.catch(() => undefined);
    rmSync(folder, { recursive: true, force: true });
  }
  if (!print(rows)) process.exitCode = 1;
}

async function waitForSocket(socket: string): Promise<void> {
  const { stdout } = await execa('sh', [
    '-c',
    'for i in $(seq 100); do [ -S "$1" ] && exit 0; sleep 0.05; done; echo none',
    'sh',
    socket,
  ]);
  if (stdout !== '') throw new Error('nbdkit did not start');
}

await main();
