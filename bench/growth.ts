/** How cost grows: tables of markdown, each along one thing that can become more. */

import { join } from 'node:path';
import type { Contender, FrontEnd } from './contenders.js';
import { fioCommand, parseFio } from './fio.js';
import type { FioShape } from './fio.js';
import { JOBS, title } from './jobs.js';
import { hasFailed } from './measurement.js';
import { Mount } from './mount.js';
import { run, stop } from './processes.js';
import { Rounds } from './rounds.js';
import { serve, startServer } from './servers.js';
import type { Server } from './servers.js';
import type { ServedSetting, Setting } from './setting.js';
import { median } from './statistics.js';
import { summarize } from './summary.js';
import { digits, table } from './table.js';
import { measureFio } from './workloads/fio.js';

const DEPTHS = [1, 2, 4, 8, 16, 32, 64];
const CONNECTIONS = [1, 2, 4, 8, 16];
const MOUNTS = [1, 2, 4, 8, 16, 32];
/** Bytes as nbdkit takes them; the last is 8 EiB less a sector, the most that an offset can name. */
const SIZES: readonly (readonly [string, string])[] = [
  ['1 GiB', '1G'],
  ['1 TiB', '1T'],
  ['8 EiB less a sector', String(2n ** 63n - 512n)],
];

const RANDOM_READ: FioShape = {
  rw: 'randread',
  blockSize: '4k',
  engine: 'libaio',
  depth: 16,
  jobs: 1,
};
const IOPS = { unit: 'IOPS', cpuPer: '100,000 operations' } as const;
const BOTH: readonly FrontEnd[] = ['tsnbdfuse', 'nbdfuse'];

type Say = (line: string) => void;

/** The median over the rounds of a setting. */
async function repeat(setting: Setting, action: () => Promise<number>): Promise<number> {
  const values: number[] = [];
  for (let i = 0; i < setting.pace.rounds; i++) values.push(await action());
  return median(values);
}

async function byDepth(setting: ServedSetting): Promise<string> {
  const contenders: readonly Contender[] = [...BOTH, 'qemu-storage-daemon', 'nbd engine'];
  const rows: string[][] = [];
  for (const depth of DEPTHS) {
    const row = [String(depth)];
    for (const contender of contenders) {
      const shape = { ...RANDOM_READ, depth };
      const value = await repeat(setting, async () => {
        const { value } = await measureFio(JOB_OF_GROWTH, { shape }, contender, setting);
        return value;
      });
      row.push(digits(value));
    }
    rows.push(row);
  }
  return table(['requests at a time', ...contenders], rows);
}

/** What measureFio needs of a job. */
const JOB_OF_GROWTH = {
  ...IOPS,
  name: 'growth',
  work: { kind: 'fio', shape: RANDOM_READ },
  contenders: BOTH,
  goals: {},
} as const;

async function bySize(setting: Setting): Promise<string> {
  const { workshop, commands } = setting;
  const rows: string[][] = [];
  for (const [name, size] of SIZES) {
    const row = [name];
    const folder = workshop.newFolder('server');
    const socket = join(folder, 'nbd.sock');
    const pidfile = join(folder, 'pid');
    const command = ['nbdkit', '-f', '-U', socket, '-P', pidfile, 'null', `size=${size}`];
    const started = await serve(command, socket, pidfile, workshop.signal);
    const uri = `nbd+unix:///?socket=${encodeURIComponent(socket)}`;
    const server: Server = {
      ...{ name: 'nbdkit memory', pid: started.pid, socket, uri, image: '', size: NaN },
      stop: () => stop(started),
    };
    try {
      for (const frontEnd of BOTH) {
        let peak = 0;
        const milliseconds = await repeat(setting, async () => {
          const mount = await Mount.make(frontEnd, { server }, commands, workshop, { interval: 1 });
          peak = Math.max(peak, mount.cost().peakBytes);
          await mount.end();
          return mount.startedIn;
        });
        row.push(digits(milliseconds), digits(peak / 1e6));
      }
    } finally {
      await server.stop();
    }
    rows.push(row);
  }
  const header = BOTH.flatMap((name) => [`${name}: ms to the mount`, 'MB']);
  return table(['size of the disk', ...header], rows);
}

/** One job of fio for each mount, all at the same time. */
async function onAll(
  mounts: readonly Mount[],
  depth: number,
  setting: ServedSetting,
): Promise<number> {
  const { server, pace, workshop } = setting;
  const [first = '', , ...shared] = fioCommand(
    { ...RANDOM_READ, depth },
    { file: 'none' },
    server.size,
    pace.seconds,
  ).filter((option) => !option.startsWith('--filename='));
  const each = mounts.flatMap(({ file }, i) => [`--name=mount${i}`, `--filename=${file}`]);
  const command = [first, ...shared, ...each];
  return parseFio(await run(command, { signal: workshop.signal }), 'read').iops;
}

async function byConnections(setting: ServedSetting): Promise<string> {
  const { commands, workshop, server } = setting;
  const rows: string[][] = [];
  for (const connections of CONNECTIONS) {
    const row = [String(connections)];
    for (const frontEnd of BOTH) {
      let peak = 0;
      const value = await repeat(setting, async () => {
        const mount = await Mount.make(frontEnd, { server, connections }, commands, workshop);
        try {
          const iops = await onAll([mount], RANDOM_READ.depth, setting);
          peak = Math.max(peak, mount.cost().peakBytes);
          return iops;
        } finally {
          await mount.end();
        }
      });
      row.push(digits(value), digits(peak / 1e6));
    }
    rows.push(row);
  }
  const header = BOTH.flatMap((name) => [`${name}: IOPS, 16 deep`, 'MB']);
  return table(['connections', ...header], rows);
}

async function byMounts(setting: ServedSetting): Promise<string> {
  const { commands, workshop, server } = setting;
  const rows: string[][] = [];
  for (const count of MOUNTS) {
    const row = [String(count)];
    for (const frontEnd of BOTH) {
      const mounts: Mount[] = [];
      try {
        for (let i = 0; i < count; i++) {
          mounts.push(await Mount.make(frontEnd, { server }, commands, workshop));
        }
        const iops = await onAll(mounts, 4, setting);
        const peak = mounts.reduce((sum, mount) => sum + mount.cost().peakBytes, 0);
        row.push(digits(iops), digits(peak / 1e6));
      } finally {
        for (const mount of mounts) await mount.end();
      }
    }
    rows.push(row);
  }
  const header = BOTH.flatMap((name) => [`${name}: IOPS of all, 4 deep each`, 'MB of all']);
  return table(['mounts', ...header], rows);
}

/** Of each job of fio, in the rounds of the bench. */
async function latencies(setting: Setting, say: Say): Promise<string> {
  const jobs = JOBS.filter((job) => job.work.kind === 'fio' && job.thorough !== true).map(
    (job) => ({ ...job, contenders: BOTH }),
  );
  const results = await new Rounds(setting, say).run(jobs);
  const rows = results.jobs.map((result) => {
    const { contenders } = summarize(result);
    const cells = BOTH.flatMap((name) => {
      const found = contenders.find(({ contender }) => contender === name)?.latency;
      return [found?.p50, found?.p99, found?.p999].map((value) => digits(value ?? NaN));
    });
    const failed = [...result.runs.values()].flat().some(hasFailed);
    return [`${title(result.job)}${failed ? ' (a run failed)' : ''}`, ...cells];
  });
  const header = BOTH.flatMap((name) => [`${name}: p50, us`, 'p99', 'p99.9']);
  return table(['job', ...header], rows);
}

/** Returns markdown. */
export async function measureGrowth(setting: Setting, say: Say): Promise<string> {
  const { commands, workshop, pace } = setting;
  const parts: string[] = [];
  const part = async (name: string, made: Promise<string>): Promise<void> => {
    parts.push(`### ${name}`, await made);
    say(`${name}: done`);
  };
  const server = await startServer('nbdkit memory', pace.diskBytes, commands, workshop);
  try {
    const served = { ...setting, server };
    await part('4 KiB random reads a second, O_DIRECT, by depth', byDepth(served));
    await part('Connections', byConnections(served));
    await part('Mounts on one machine', byMounts(served));
  } finally {
    await server.stop();
  }
  await part('Size of the disk', bySize(setting));
  await part('Latency', latencies(setting, say));
  return parts.join('\n\n');
}
