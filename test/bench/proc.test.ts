import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { versionIn } from '../../bench/machine.js';
import { parseMounts } from '../../bench/mountpoints.js';
import { parsePeak, parseStat, readCost } from '../../bench/process-cost.js';

describe('what the bench reads in /proc', () => {
  it('is the parent and all ticks, whatever the name of the program', () => {
    const stat = '7 (a) b (c)) S 3 7 7 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 5';
    assert.deepEqual(parseStat(stat), { parent: 3, ticks: 127 });
  });

  it('is the peak in bytes', () => {
    assert.equal(parsePeak('Name:\tx\nVmHWM:\t     100 kB\nVmRSS:\t 50 kB\n'), 102_400);
    assert.equal(parsePeak('Name:\tkthreadd\n'), 0);
  });

  it('is what this process has used', () => {
    assert.ok(readCost(process.pid).peakBytes > 1_000_000);
  });

  it('is what is mounted where', () => {
    const text = [
      '30 1 0:28 / / rw shared:1 - ext4 /dev/vda rw',
      '31 30 0:45 / /tmp/a\\040b/disk.raw rw,nosuid - fuse.nbdfuse nbdfuse rw',
      '',
    ].join('\n');
    assert.deepEqual(parseMounts(text), [
      { path: '/', type: 'ext4', minor: 28 },
      { path: '/tmp/a b/disk.raw', type: 'fuse.nbdfuse', minor: 45 },
    ]);
  });

  it('and the version in what a program says of itself', () => {
    assert.equal(versionIn('fio-3.33'), '3.33');
    assert.equal(versionIn('qemu-nbd 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright 2003'), '7.2.22');
    assert.equal(versionIn('none'), 'unknown');
  });
});
