import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { liveText } from '../../src/cli/live-line.js';
import {
  bytesFigure,
  countFigure,
  durationFigure,
  latencyFigure,
  rateFigure,
} from '../../src/observe/figures.js';
import { silentStatus } from '../../src/observe/mount-status.js';
import { statusDetails, statusTable } from '../../src/observe/status-table.js';
import { summaryLines } from '../../src/observe/summary.js';
import { aStatus } from '../support/statuses.js';

const NOW = Date.parse('2026-01-02T04:09:05.000Z');

describe('figures', () => {
  it('have three digits and a unit', () => {
    const table: readonly (readonly [string, string])[] = [
      [bytesFigure(0), '0 B'],
      [bytesFigure(1023), '1023 B'],
      [bytesFigure(1024), '1 KiB'],
      [bytesFigure(1536), '1.5 KiB'],
      [bytesFigure(1024 ** 2 - 1), '1 MiB'],
      [bytesFigure(2 ** 63), '8 EiB'],
      [rateFigure(0), '0 B/s'],
      [rateFigure(1_234_567), '1.23 MB/s'],
      [rateFigure(999_999_999), '1 GB/s'],
      [countFigure(12_345), '12345'],
      [countFigure(2 ** 53), '9.01 P'],
      [latencyFigure(0.000085), '85 µs'],
      [latencyFigure(0.0123), '12.3 ms'],
      [latencyFigure(2.345), '2.35 s'],
      [durationFigure(59.9), '59 s'],
      [durationFigure(3900), '1 h 5 min'],
      [durationFigure(200_000), '2 d 7 h'],
      [durationFigure(-1), '0 s'],
    ];
    for (const [found, wanted] of table) assert.equal(found, wanted);
  });
});

describe('texts for people', () => {
  it('a table is aligned and fits a terminal', () => {
    const lines = statusTable([
      aStatus({ mountpoint: '/mnt/a', server: 'qemu-nbd' }),
      aStatus({ mountpoint: '/mnt/longer', state: 'reconnecting', server: 'nbd://host/export' }),
      silentStatus('/mnt/old', null, 'stale', null),
    ]).split('\n');
    assert.equal(lines.length, 5);
    for (const line of lines) assert.ok(line.length < 80, line);
    const at = lines[0]?.indexOf('STATE');
    assert.deepEqual(
      lines.slice(1, 4).map((line) => line.slice(at).split('  ')[0]),
      ['healthy', 'reconnecting', 'stale'],
    );
    assert.equal(statusTable([]), 'no disk is mounted\n');
  });

  it('a summary has all figures, within 80 columns with the name of the program', () => {
    const lines = summaryLines(aStatus(), 'disk.raw', NOW);
    assert.equal(
      lines[0],
      'disk.raw (nbd://server.example/export): healthy, 4 connections, 0 reconnects, 0 B unflushed, mounted for 1 h 5 min',
    );
    assert.match(lines[2] ?? '', /^read +1000 +3\.91 MiB +2\d\d µs/);
    assert.match(lines[6] ?? '', /^zeroed +0 +0 B +- +- +- +1$/);
    for (const line of lines.slice(1)) assert.ok(line.length + 'tsnbdfuse: '.length <= 80, line);
  });

  it('details tell what is wrong', () => {
    const text = statusDetails(aStatus({ state: 'failed', problem: 'it hung up' }), NOW);
    assert.match(text, /^problem: +it hung up$/m);
    assert.match(text, /^size: +1 GiB \(1073741824 bytes\), cache writeback$/m);
    assert.match(
      statusDetails(silentStatus('/m', 7, 'no-answer', 's'), NOW),
      /^state: +no answer$/m,
    );
  });

  it('names cannot move the cursor, or begin a line', () => {
    const evil = aStatus({ mountpoint: '/a\u001b[2J\nb', server: '\u202ex\u0007', problem: '\r' });
    const texts = [
      statusTable([evil]),
      statusDetails(evil, NOW),
      summaryLines(evil, '\u001bc', NOW).join('\n'),
      liveText({ at: 0, status: evil }, { at: 1000, status: evil }, '\u001bc\n', 200),
    ];
    // eslint-disable-next-line no-control-regex -- it is what is looked for
    for (const text of texts) assert.doesNotMatch(text, /[\u0000-\u0009\u000b-\u001f\u202e]/);
    assert.equal(texts[0]?.split('\n').length, 3);
  });

  it('a live line tells rates, and is no wider than it may be', () => {
    const before = aStatus();
    const read = { count: 3000, bytes: 24_691_356, errors: 0, latency: null };
    assert.ok(before.operations !== null);
    const after = aStatus({
      operations: { ...before.operations, read },
      inFlight: 3,
      unflushedBytes: 2048,
    });
    const [first, last] = [
      { at: 500, status: before },
      { at: 2500, status: after },
    ];
    const text = liveText(first, last, 'disk.raw', 200);
    assert.equal(
      text,
      'disk.raw  read 10.3 MB/s 1000 IOPS  written 0 B/s 0 IOPS  in flight 3  unflushed 2 KiB  healthy',
    );
    for (const columns of [0, 1, 20, 79, 80, 95, 96, 97, 120]) {
      const narrow = liveText(first, last, 'a/path/that/is/rather/long/disk.raw', columns);
      assert.ok(narrow.length <= Math.max(0, columns - 1), `${columns}: ${narrow}`);
    }
  });
});
