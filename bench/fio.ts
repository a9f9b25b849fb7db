/** fio: its command lines, and what its report says. */

import type { Latency } from './measurement.js';

/** A job of fio as it is on every contender. */
export interface FioShape {
  readonly rw: 'read' | 'write' | 'randread' | 'randwrite';
  readonly blockSize: '4k' | '1M';
  /** libaio goes past the page cache (O_DIRECT), psync through it. */
  readonly engine: 'libaio' | 'psync';
  /** Requests that are out at the same time, of each of the jobs. */
  readonly depth: number;
  readonly jobs: number;
  /**
   * Bytes to do, for jobs that count only when all is done. Others run for a time, or until they are
   * through with the disk.
   */
  readonly bytes?: number;
  /**
   * What the nbd engine has out at a time, for jobs that go through the page cache: the kernel has
   * more than one request out for them.
   */
  readonly limitDepth?: number;
}

export interface FioResult {
  readonly iops: number;
  /** Bytes a second. */
  readonly bandwidth: number;
  readonly operations: number;
  readonly bytes: number;
  readonly latency: Latency;
}

/** What fio is to work on: a file, or through its own NBD client a server. */
export type FioTarget = { readonly file: string } | { readonly uri: string };

const isRandom = (shape: FioShape): boolean => shape.rw.startsWith('rand');
const writes = (shape: FioShape): boolean => shape.rw.endsWith('write');

function targetOptions(target: FioTarget): string[] {
  return 'uri' in target
    ? ['--ioengine=nbd', `--uri=${target.uri}`]
    : [`--filename=${target.file}`, '--fallocate=none'];
}

/** @param seconds how long a job runs that has no amount */
export function fioCommand(
  shape: FioShape,
  target: FioTarget,
  diskBytes: number,
  seconds: number,
): string[] {
  const direct = 'uri' in target;
  const depth = direct ? (shape.limitDepth ?? shape.depth) : shape.depth;
  const options = [
    ...['fio', '--name=bench', '--thread', '--group_reporting', '--output-format=json'],
    ...['--eta=never', `--rw=${shape.rw}`, `--bs=${shape.blockSize}`, `--size=${diskBytes}`],
    ...[`--numjobs=${shape.jobs}`, `--iodepth=${depth}`],
    ...targetOptions(target),
  ];
  if (!direct) options.push(`--ioengine=${shape.engine}`);
  if (!direct && shape.engine === 'libaio') options.push('--direct=1');
  if (shape.engine === 'psync' && writes(shape)) options.push('--end_fsync=1');
  if (shape.bytes !== undefined) options.push(`--io_size=${shape.bytes}`);
  // In milliseconds: fio takes a fraction of a second for none, and goes on to the end of the disk.
  else options.push(`--runtime=${Math.round(seconds * 1000)}ms`);
  // A sequential job must not come by what is in the page cache already.
  if (shape.bytes === undefined && isRandom(shape)) options.push('--time_based');
  return options;
}

/** Random data from the first byte to the last. */
export function fillDisk(uri: string, diskBytes: number): string[] {
  return [
    ...['fio', '--name=fill', '--thread', '--rw=write', '--bs=1M', '--iodepth=16'],
    ...['--refill_buffers', '--eta=never', `--size=${diskBytes}`, ...targetOptions({ uri })],
  ];
}

/**
 * Blocks that carry their place and a checksum: written with `write`, compared without.
 * @param seed of where they are and what is in them
 */
export function verifyCommand(
  target: FioTarget,
  diskBytes: number,
  bytes: number,
  seed: number,
  how: 'write' | 'compare',
): string[] {
  const engine = 'uri' in target ? [] : ['--ioengine=psync'];
  return [
    ...['fio', '--name=verify', '--thread', '--rw=randwrite', '--bs=4k', '--iodepth=16'],
    ...[`--size=${diskBytes}`, `--io_size=${bytes}`, '--eta=never'],
    // Without the first one the seed counts for nothing.
    ...['--randrepeat=0', `--randseed=${seed}`],
    ...['--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--output-format=json'],
    ...(how === 'write' ? ['--do_verify=0', '--end_fsync=1'] : ['--verify_only=1']),
    ...targetOptions(target),
    ...engine,
  ];
}

interface Side {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly total_ios: number;
  readonly io_bytes: number;
  readonly clat_ns?: { readonly percentile?: Readonly<Record<string, number>> };
}

interface Report {
  readonly jobs: readonly { readonly error: number; readonly read: Side; readonly write: Side }[];
}

/**
 * @param stdout what fio wrote; its engines say things before the report
 * @throws Error when fio met an error or did nothing
 */
export function parseFio(stdout: string, side: 'read' | 'write'): FioResult {
  const begin = stdout.search(/^\{/m);
  if (begin < 0) throw new Error('fio wrote no report');
  const job = (JSON.parse(stdout.slice(begin)) as Report).jobs[0];
  if (job === undefined) throw new Error('fio reported no job');
  if (job.error !== 0) throw new Error(`fio met error ${job.error}`);
  const found = job[side];
  if (found.total_ios === 0) throw new Error(`fio did no ${side}`);
  const microseconds = (percentile: string): number =>
    (found.clat_ns?.percentile?.[percentile] ?? NaN) / 1000;
  return {
    iops: found.iops,
    bandwidth: found.bw_bytes,
    operations: found.total_ios,
    bytes: found.io_bytes,
    latency: {
      p50: microseconds('50.000000'),
      p99: microseconds('99.000000'),
      p999: microseconds('99.900000'),
    },
  };
}

export function sideOf(shape: FioShape): 'read' | 'write' {
  return writes(shape) ? 'write' : 'read';
}
