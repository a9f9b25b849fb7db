import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chartOption, drawChart, drawnJobs } from '../../bench/chart.js';
import type { Contender } from '../../bench/contenders.js';
import type { Job } from '../../bench/jobs.js';
import type { Run } from '../../bench/measurement.js';
import { isGood, makeReport, reportJson, reportText } from '../../bench/report.js';
import type { Report } from '../../bench/report.js';
import type { JobResult } from '../../bench/rounds.js';
import { judge, summarize } from '../../bench/summary.js';
import { digits, table } from '../../bench/table.js';

const READ: Job = {
  name: 'random read & more',
  server: 'nbdkit memory',
  work: { kind: 'file-system' },
  unit: 'IOPS',
  contenders: ['tsnbdfuse', 'nbdfuse', 'nbd engine'],
  goals: { ratio: 2, ofLimit: 0.5, cpu: 0.5, peakMB: 80 },
  cpuPer: '100,000 operations',
};
const COPY: Job = {
  name: 'copy',
  work: { kind: 'sparse-copy' },
  unit: 's',
  contenders: ['tsnbdfuse', 'nbdfuse'],
  goals: { ratio: 20 },
  patience: 22,
};

const cost = (cpuSeconds: number, megabytes: number): { cost: object } => ({
  cost: { cpuSeconds, peakBytes: megabytes * 1e6 },
});

function result(job: Job, runs: Partial<Record<Contender, readonly Run[]>>): JobResult {
  return { job, runs: new Map(Object.entries(runs) as [Contender, readonly Run[]][]) };
}

const READ_RESULT = result(READ, {
  tsnbdfuse: [
    { value: 300, ...cost(1, 60) } as Run,
    { value: 400, ...cost(1, 70) } as Run,
    { value: 200, ...cost(1, 65) } as Run,
  ],
  nbdfuse: [
    { value: 100, ...cost(4, 8) } as Run,
    { value: 100, ...cost(4, 8) } as Run,
    { value: 100, ...cost(4, 8) } as Run,
  ],
  'nbd engine': [{ value: 500 }, { value: 500 }, { value: 500 }],
});
const COPY_RESULT = result(COPY, {
  tsnbdfuse: [{ value: 2 }],
  nbdfuse: [{ value: 44, stopped: true }],
});

function reportOf(jobs: readonly JobResult[], problem?: string): Report {
  const verification = { contender: 'tsnbdfuse', server: 'nbdkit memory' } as const;
  return makeReport(
    {
      jobs,
      verifications: [problem === undefined ? verification : { ...verification, problem }],
    },
    {
      when: '2026-01-01T00:00:00Z',
      quick: false,
      rounds: 3,
      machine: {
        processors: '2 x Some <Processor>',
        memoryGiB: 8,
        kernel: '6.1',
        versions: { node: '20.19.0', fio: '3.33' },
      },
    },
  );
}

describe('the summary of a job', () => {
  it('has medians, and ratios of the rounds', () => {
    const summary = summarize(READ_RESULT);
    assert.deepEqual(summary.ratio, { median: 3, least: 2, most: 4 });
    assert.equal(summary.ofLimit?.median, 0.6);
    assert.equal(summary.cpuRatio?.median, 0.25);
    assert.equal(summary.contenders[0]?.peakBytes, 70e6);
    assert.ok(summary.verdicts.every(({ met }) => met));
  });

  it('says of times how many times as fast, and that it is a bound when one was stopped', () => {
    const summary = summarize(COPY_RESULT);
    assert.equal(summary.ratio?.median, 22);
    assert.equal(summary.ratioIsBound, true);
  });

  it('leaves out what failed, and tells it', () => {
    const failed = result(READ, { tsnbdfuse: [{ failed: 'no mount' }], nbdfuse: [{ value: 1 }] });
    const summary = summarize(failed);
    assert.equal(summary.ratio, undefined);
    assert.deepEqual(summary.failures, [{ contender: 'tsnbdfuse', reason: 'no mount' }]);
    assert.ok(summary.verdicts.every(({ met }) => !met));
  });

  it('judges some goals from above and others from below', () => {
    const verdicts = judge(
      { ratio: 2, ofLimit: 0.75, cpu: 0.5, peakMB: 80, most: 150 },
      { ratio: 2, ofLimit: 0.7, cpu: 0.5, peakMB: 81, most: undefined },
    );
    assert.deepEqual(
      verdicts.map(({ goal, met }) => [goal, met]),
      [
        ['ratio', true],
        ['ofLimit', false],
        ['cpu', true],
        ['peakMB', false],
        ['most', false],
      ],
    );
  });
});

describe('the report', () => {
  it('shows figures, ratios, goals, machine and versions', () => {
    const text = reportText(reportOf([READ_RESULT, COPY_RESULT]));
    assert.match(text, /random read & more \(nbdkit memory\) +\| +300 IOPS \| +100 IOPS/);
    assert.match(text, /3\.00 \(2\.00-4\.00\)/);
    assert.match(text, />44\.0 s \| +>22\.0/);
    assert.match(text, /Linux 6\.1\nnode 20\.19\.0, fio 3\.33/);
    assert.match(text, /came back, with each front end, from: nbdkit memory/);
    assert.doesNotMatch(text, /NOT/);
  });

  it('names each goal that was not met', () => {
    const slow = result({ ...READ, goals: { ratio: 5 } }, Object.fromEntries(READ_RESULT.runs));
    const report = reportOf([slow]);
    assert.match(reportText(report), /NOT MET: ratio at least 5\.00, is 3\.00/);
    assert.equal(isGood(report), false);
  });

  it('is good when goals are met, ours ran and the data came back', () => {
    assert.equal(isGood(reportOf([READ_RESULT, COPY_RESULT])), true);
    assert.equal(isGood(reportOf([READ_RESULT], 'bad magic')), false);
    assert.match(reportText(reportOf([], 'bad magic')), /NOT what was written: tsnbdfuse/);
    const failed = result({ ...COPY, goals: {} }, { tsnbdfuse: [{ failed: 'x' }] });
    assert.equal(isGood(reportOf([failed])), false);
    const other = result({ ...COPY, goals: {} }, { nbdfuse: [{ failed: 'x' }] });
    assert.equal(isGood(reportOf([other])), true);
  });

  it('is JSON with all of it', () => {
    const read = JSON.parse(reportJson(reportOf([READ_RESULT]))) as Report;
    assert.equal(read.jobs[0]?.ratio?.median, 3);
    assert.equal(read.machine.kernel, '6.1');
  });
});

describe('the chart', () => {
  const serving = result(
    { ...COPY, name: 'serving', contenders: ['tsnbdkit', 'nbdkit'] },
    { tsnbdkit: [{ value: 1 }], nbdkit: [{ value: 1 }] },
  );

  it('draws the jobs that have a ratio to nbdfuse', () => {
    const report = reportOf([READ_RESULT, COPY_RESULT, serving, result(COPY, {})]);
    assert.deepEqual(
      drawnJobs(report).map(({ job }) => job.name),
      ['random read & more', 'copy'],
    );
  });

  it('is an SVG document with names, figures and the machine, escaped', () => {
    const svg = drawChart(reportOf([READ_RESULT, COPY_RESULT]));
    assert.match(svg, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
    for (const text of ['random read &amp; more', '&gt;22.0', '3.00', 'Some &lt;Processor&gt;']) {
      assert.ok(svg.includes(text), text);
    }
  });

  it('has room for the least and the most', () => {
    const { xAxis } = chartOption(reportOf([READ_RESULT, COPY_RESULT])) as {
      xAxis: { min: number; max: number };
    };
    assert.deepEqual([xAxis.min, xAxis.max], [0.1, 100]);
  });

  it('can be drawn of nothing', () => {
    assert.match(drawChart(reportOf([])), /^<svg /);
  });
});

describe('a table', () => {
  it('is markdown, as wide as its cells', () => {
    assert.equal(
      table(['job', 'n'], [['a', '1,000'], ['long name']]),
      [
        '| job       |     n |',
        '| --------- | ----: |',
        '| a         | 1,000 |',
        '| long name |       |',
      ].join('\n'),
    );
  });

  it('has figures of three digits, or all of a greater number', () => {
    assert.deepEqual([1.234, 12.34, 123.4, 12345.6, NaN].map(digits), [
      ...['1.23', '12.3', '123', '12,346', '-'],
    ]);
  });
});
