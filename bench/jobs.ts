/** What is measured: a table of jobs, each with its goals. */

import type { Contender } from './contenders.js';
import type { FioShape } from './fio.js';
import type { Unit } from './measurement.js';
import { MIB } from './servers.js';
import type { ServerName } from './servers.js';

/** What the first of the contenders has to reach, beside the second. */
export interface Goals {
  /** Times as fast as the second, at least. */
  readonly ratio?: number;
  /** Part of what the nbd engine reaches, at least. */
  readonly ofLimit?: number;
  /** CPU seconds as a part of the second's, at most. */
  readonly cpu?: number;
  /** Peak resident memory in megabytes, at most. */
  readonly peakMB?: number;
  /** The figure itself, at most; of a job that counts time. */
  readonly most?: number;
}

/** What a job does; each kind is a file of workloads/. */
export type Work =
  | { readonly kind: 'fio'; readonly shape: FioShape; readonly asUser?: boolean }
  | { readonly kind: 'file-system' }
  | { readonly kind: 'sparse-copy' }
  | { readonly kind: 'start-up'; readonly captive: 'tsnbdkit' | 'nbdkit' }
  | {
      readonly kind: 'serving';
      readonly plugin: 'memory' | 'file';
      readonly client: 'nbdcopy' | FioShape;
    };

export interface Job {
  /** What --only looks at, with the name of the server. */
  readonly name: string;
  /** The job brings its own where there is none. */
  readonly server?: ServerName;
  readonly work: Work;
  readonly unit: Unit;
  /** Ours first, then the one whose figures ours are divided by. */
  readonly contenders: readonly Contender[];
  readonly goals: Goals;
  /** What CPU seconds are counted per. */
  readonly cpuPer?: 'GiB' | '100,000 operations';
  /**
   * A contender that takes more than so many times as long as ours is stopped: the ratio is at least
   * that. Ours goes first in each round, and there are fewer rounds.
   */
  readonly patience?: number;
  /** The same as another job, with another server or plugin: its runs are shorter. */
  readonly thorough?: boolean;
  /** It takes too long for --quick. */
  readonly long?: boolean;
}

const PEAK = 80;
const WITH_LIMIT: readonly Contender[] = [
  ...(['tsnbdfuse', 'nbdfuse', 'qemu-storage-daemon', 'nbd engine'] as const),
];
const WITHOUT_LIMIT = WITH_LIMIT.filter((contender) => contender !== 'nbd engine');
const WITHOUT_QEMU = WITH_LIMIT.filter((contender) => contender !== 'qemu-storage-daemon');
const TWO_FRONT_ENDS: readonly Contender[] = ['tsnbdfuse', 'nbdfuse'];

const RANDOM_READ: FioShape = {
  rw: 'randread',
  blockSize: '4k',
  engine: 'libaio',
  depth: 16,
  jobs: 1,
};
const RANDOM_WRITE: FioShape = { ...RANDOM_READ, rw: 'randwrite' };
const SEQUENTIAL_READ: FioShape = {
  rw: 'read',
  blockSize: '1M',
  engine: 'psync',
  depth: 1,
  jobs: 1,
  limitDepth: 4,
};
const SEQUENTIAL_WRITE: FioShape = { ...SEQUENTIAL_READ, rw: 'write' };
const BUFFERED_WRITES: FioShape = {
  rw: 'randwrite',
  blockSize: '4k',
  engine: 'psync',
  depth: 1,
  jobs: 1,
  bytes: 64 * MIB,
};

const random = (name: string, shape: FioShape, server: ServerName, goals: Goals): Job => ({
  name,
  server,
  work: { kind: 'fio', shape },
  unit: 'IOPS',
  contenders: WITH_LIMIT,
  goals: { peakMB: PEAK, ...goals },
  cpuPer: '100,000 operations',
});
const sequential = (name: string, shape: FioShape, server: ServerName, goals: Goals): Job => ({
  name,
  server,
  work: { kind: 'fio', shape },
  unit: 'MB/s',
  contenders: WITH_LIMIT,
  goals: { peakMB: PEAK, ...goals },
  cpuPer: 'GiB',
});

const RANDOM_GOALS: Goals = { ratio: 3, ofLimit: 0.75, cpu: 0.5 };
const SEQUENTIAL_GOALS: Goals = { ratio: 2, ofLimit: 0.6, cpu: 0.8 };

const ON_NBDKIT: readonly Job[] = [
  random('4 KiB random read, O_DIRECT, 16 deep', RANDOM_READ, 'nbdkit memory', RANDOM_GOALS),
  random('4 KiB random write, O_DIRECT, 16 deep', RANDOM_WRITE, 'nbdkit memory', RANDOM_GOALS),
  random(
    '4 KiB random read, O_DIRECT, one at a time',
    { ...RANDOM_READ, depth: 1 },
    'nbdkit memory',
    { ratio: 1.2, ofLimit: 0.75, cpu: 0.5 },
  ),
  random(
    '4 KiB random read, O_DIRECT, 4 jobs 16 deep',
    { ...RANDOM_READ, jobs: 4 },
    'nbdkit memory',
    RANDOM_GOALS,
  ),
  random(
    '4 KiB random read, O_DIRECT, 64 deep',
    { ...RANDOM_READ, depth: 64 },
    'nbdkit memory',
    RANDOM_GOALS,
  ),
  sequential(
    '1 MiB sequential read, buffered, cold cache',
    SEQUENTIAL_READ,
    'nbdkit memory',
    SEQUENTIAL_GOALS,
  ),
  sequential(
    '1 MiB sequential write and fsync, buffered',
    SEQUENTIAL_WRITE,
    'nbdkit memory',
    SEQUENTIAL_GOALS,
  ),
  {
    ...random('4 KiB random writes, buffered, and fsync', BUFFERED_WRITES, 'nbdkit memory', {
      ratio: 15,
      cpu: 0.5,
    }),
    contenders: WITHOUT_LIMIT,
  },
];

/** The same on other servers, without goals: those are for nbdkit memory. */
const ELSEWHERE: readonly Job[] = (
  ['qemu-nbd raw', 'qemu-nbd qcow2', 'tsnbdkit memory', 'nbdkit memory, 1 ms'] as const
).flatMap((server) =>
  [
    random('4 KiB random read, O_DIRECT, 16 deep', RANDOM_READ, server, {}),
    random('4 KiB random write, O_DIRECT, 16 deep', RANDOM_WRITE, server, {}),
    sequential('1 MiB sequential read, buffered, cold cache', SEQUENTIAL_READ, server, {}),
  ].map((job) => ({ ...job, contenders: WITHOUT_QEMU, thorough: true })),
);

const FAR: ServerName = 'nbdkit memory, 10 ms';
const readAsUser = sequential('sequential read as a normal user', SEQUENTIAL_READ, FAR, {
  ratio: 15,
});
const FAR_AWAY: readonly Job[] = [
  {
    ...sequential('sequential read as root', SEQUENTIAL_READ, FAR, { ratio: 25 }),
    contenders: WITHOUT_LIMIT,
  },
  {
    ...readAsUser,
    work: { kind: 'fio', shape: SEQUENTIAL_READ, asUser: true },
    contenders: WITHOUT_LIMIT,
  },
  {
    ...sequential('sequential write and fsync', SEQUENTIAL_WRITE, FAR, { ratio: 8 }),
    contenders: WITHOUT_LIMIT,
  },
  {
    name: 'mkfs.ext4 and cp -r of a source tree',
    server: FAR,
    work: { kind: 'file-system' },
    unit: 's',
    contenders: WITHOUT_LIMIT,
    goals: { ratio: 4, peakMB: PEAK },
  },
];

const SPARSE: Job = {
  name: 'cp --sparse=auto of 100 GiB with 1 GiB of data',
  server: 'nbdkit sparse file',
  work: { kind: 'sparse-copy' },
  unit: 's',
  contenders: WITHOUT_LIMIT,
  goals: { ratio: 20, peakMB: PEAK },
  patience: 22,
  long: true,
};

const START_UP: readonly Job[] = (['tsnbdkit', 'nbdkit'] as const).map((captive) => ({
  name: `from exec to mounted, ${captive} captive`,
  work: { kind: 'start-up', captive },
  unit: 'ms',
  contenders: TWO_FRONT_ENDS,
  // At most 2.5 times the other's time.
  goals: { ratio: 1 / 2.5, most: 150 },
}));

const serving = (
  plugin: 'memory' | 'file',
  name: string,
  client: 'nbdcopy' | FioShape,
  ratio: number,
): Job => ({
  thorough: plugin === 'file',
  name: `serving ${plugin}: ${name}`,
  work: { kind: 'serving', plugin, client },
  unit: client !== 'nbdcopy' && client.blockSize === '4k' ? 'IOPS' : 'MB/s',
  contenders: ['tsnbdkit', 'nbdkit'],
  goals: { ratio },
  cpuPer: client !== 'nbdcopy' && client.blockSize === '4k' ? '100,000 operations' : 'GiB',
});
const SERVING: readonly Job[] = (['memory', 'file'] as const).flatMap((plugin) => [
  serving(plugin, 'nbdcopy, 1 MiB', 'nbdcopy', 0.8),
  serving(plugin, '1 MiB sequential read', SEQUENTIAL_READ, 0.8),
  serving(plugin, '1 MiB sequential write', SEQUENTIAL_WRITE, 0.8),
  serving(plugin, '4 KiB random read, 16 deep', RANDOM_READ, 0.6),
  serving(plugin, '4 KiB random write, 16 deep', RANDOM_WRITE, 0.6),
]);

/** Jobs on one server stand together: it is started once for them. */
export const JOBS: readonly Job[] = [
  ...ON_NBDKIT,
  ...FAR_AWAY,
  SPARSE,
  ...START_UP,
  ...SERVING,
  ...ELSEWHERE,
];

/** With the server, where there are others. */
export function title(job: Job): string {
  return job.server === undefined ? job.name : `${job.name} (${job.server})`;
}

/**
 * @param quick without the thorough and the long ones, and without qemu, which no goal is measured by
 * @param only a regular expression, for any case: all jobs that it matches, and with all contenders
 */
export function chooseJobs(jobs: readonly Job[], quick: boolean, only?: string): Job[] {
  if (only !== undefined) {
    const pattern = new RegExp(only, 'i');
    return jobs.filter((job) => pattern.test(title(job)));
  }
  if (!quick) return [...jobs];
  return jobs
    .filter((job) => job.thorough !== true && job.long !== true)
    .map((job) => ({
      ...job,
      contenders: job.contenders.filter((contender) => contender !== 'qemu-storage-daemon'),
    }));
}
