import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fioCommand, parseFio, verifyCommand } from '../../bench/fio.js';
import type { FioShape } from '../../bench/fio.js';

const RANDOM: FioShape = { rw: 'randread', blockSize: '4k', engine: 'libaio', depth: 16, jobs: 1 };
const WRITE: FioShape = {
  rw: 'write',
  blockSize: '1M',
  engine: 'psync',
  depth: 1,
  jobs: 1,
  limitDepth: 4,
};

function side(ios: number): object {
  return {
    iops: ios / 2,
    bw_bytes: ios * 2048,
    total_ios: ios,
    io_bytes: ios * 4096,
    clat_ns: {
      percentile: { '50.000000': 10_000, '99.000000': 25_500, '99.900000': 1_000_000 },
    },
  };
}

function report(read: object, write: object, error = 0): string {
  return JSON.stringify({ 'fio version': 'fio-3.33', jobs: [{ error, read, write }] }, null, 2);
}

describe('the report of fio', () => {
  it('gives operations, bytes and latencies in microseconds of the side that is asked for', () => {
    const text = report(side(1000), side(50));
    assert.deepEqual(parseFio(text, 'read'), {
      iops: 500,
      bandwidth: 2_048_000,
      operations: 1000,
      bytes: 4_096_000,
      latency: { p50: 10, p99: 25.5, p999: 1000 },
    });
    assert.equal(parseFio(text, 'write').operations, 50);
  });

  it('is found behind what an engine says first', () => {
    const text = `fio: connected to NBD server\n${report(side(2), side(0))}`;
    assert.equal(parseFio(text, 'read').operations, 2);
  });

  it('has no percentiles where fio counted none', () => {
    const { latency } = parseFio(report({ ...side(2), clat_ns: {} }, side(0)), 'read');
    assert.ok(Number.isNaN(latency.p50));
  });

  it('is refused when it tells of an error, of nothing done, or is none', () => {
    assert.throws(() => parseFio(report(side(1), side(1), 84), 'read'), /error 84/);
    assert.throws(() => parseFio(report(side(0), side(1)), 'read'), /did no read/);
    assert.throws(() => parseFio('fio: cannot connect', 'read'), /no report/);
    assert.throws(() => parseFio('{\n"jobs": []\n}', 'read'), /no job/);
  });
});

describe('the command line of fio', () => {
  it('goes past the page cache with libaio, and for a time', () => {
    const command = fioCommand(RANDOM, { file: '/d' }, 1024, 1.5);
    for (const option of [
      ...['--filename=/d', '--ioengine=libaio', '--direct=1', '--iodepth=16'],
      ...['--runtime=1500ms', '--time_based', '--size=1024'],
    ]) {
      assert.ok(command.includes(option), option);
    }
  });

  it('syncs what was written through the page cache, and stops at the end of the disk', () => {
    const command = fioCommand(WRITE, { file: '/d' }, 1024, 2);
    assert.ok(command.includes('--end_fsync=1'));
    assert.ok(!command.includes('--time_based'));
    assert.ok(!command.includes('--direct=1'));
  });

  it('does an amount where the job has one', () => {
    const command = fioCommand({ ...WRITE, bytes: 4096 }, { file: '/d' }, 8192, 2);
    assert.ok(command.includes('--io_size=4096'));
    assert.ok(!command.some((option) => option.startsWith('--runtime')));
  });

  it('names the server and no file for the nbd engine, and its own depth', () => {
    const command = fioCommand(WRITE, { uri: 'nbd://h' }, 1024, 2);
    assert.ok(command.includes('--ioengine=nbd'));
    assert.ok(command.includes('--uri=nbd://h'));
    assert.ok(command.includes('--iodepth=4'));
    assert.ok(!command.some((option) => option.startsWith('--filename')));
  });

  it('writes and compares the same blocks, and others with another seed', () => {
    const of = (how: 'write' | 'compare', seed: number): string[] =>
      verifyCommand({ file: '/d' }, 1024, 512, seed, how).filter((option) =>
        /seed|size|rw|bs/.test(option),
      );
    assert.deepEqual(of('write', 7), of('compare', 7));
    assert.notDeepEqual(of('write', 7), of('compare', 8));
    assert.ok(verifyCommand({ file: '/d' }, 1, 1, 7, 'compare').includes('--verify_only=1'));
  });
});
