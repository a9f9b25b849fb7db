/** What is measured: each job is a run of fio on the file. */

export interface Job {
  readonly name: string;
  /** Options of fio beside those that all jobs have. */
  readonly fio: readonly string[];
  /** The page cache is emptied before the job. */
  readonly coldCache: boolean;
  /** Which side of fio's report counts. */
  readonly side: 'read' | 'write';
  readonly unit: 'IOPS' | 'MB/s';
  /** The least ratio to nbdfuse that this project promises. */
  readonly goal: number;
}

const RANDOM = ['--bs=4k', '--ioengine=libaio', '--iodepth=16', '--direct=1', '--time_based'];
const SEQUENTIAL = ['--bs=1M', '--ioengine=psync'];

export const JOBS: readonly Job[] = [
  {
    name: '4 KiB random read, O_DIRECT, libaio, 16 deep',
    fio: ['--rw=randread', ...RANDOM],
    coldCache: false,
    side: 'read',
    unit: 'IOPS',
    goal: 1.7,
  },
  {
    name: '4 KiB random write, O_DIRECT, libaio, 16 deep',
    fio: ['--rw=randwrite', ...RANDOM],
    coldCache: false,
    side: 'write',
    unit: 'IOPS',
    goal: 1.7,
  },
  {
    name: '1 MiB sequential read, buffered, cold cache',
    fio: ['--rw=read', ...SEQUENTIAL],
    coldCache: true,
    side: 'read',
    unit: 'MB/s',
    goal: 1,
  },
  {
    name: '1 MiB sequential write and fsync, buffered',
    fio: ['--rw=write', ...SEQUENTIAL, '--end_fsync=1'],
    coldCache: true,
    side: 'write',
    unit: 'MB/s',
    goal: 1,
  },
];
