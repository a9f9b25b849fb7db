/** The results as tables for the terminal and for a README, and as JSON. */

import type { Contender } from './contenders.js';
import { title } from './jobs.js';
import type { Goals } from './jobs.js';
import { machineText } from './machine.js';
import type { Machine } from './machine.js';
import type { Unit } from './measurement.js';
import type { Results } from './rounds.js';
import type { Spread } from './statistics.js';
import { summarize } from './summary.js';
import type { ContenderSummary, JobSummary, Verdict } from './summary.js';
import { digits, table } from './table.js';

export interface Report {
  readonly when: string;
  readonly quick: boolean;
  readonly rounds: number;
  readonly machine: Machine;
  readonly verifications: Results['verifications'];
  readonly jobs: readonly JobSummary[];
}

export function makeReport(
  results: Results,
  about: Pick<Report, 'when' | 'quick' | 'rounds' | 'machine'>,
): Report {
  return {
    ...about,
    verifications: results.verifications,
    jobs: results.jobs.map((result) => summarize(result)),
  };
}

const GOALS: Readonly<Record<keyof Goals, string>> = {
  ratio: 'ratio at least',
  ofLimit: 'of the nbd engine at least',
  cpu: 'CPU at most',
  peakMB: 'MB at most',
  most: 'itself at most',
};

function times(range: Spread | undefined, isBound = false): string {
  if (range === undefined) return '-';
  const bounds =
    range.least === range.most ? '' : ` (${digits(range.least)}-${digits(range.most)})`;
  return `${isBound ? '>' : ''}${digits(range.median)}${bounds}`;
}

function percent(range: Spread | undefined): string {
  return range === undefined ? '-' : `${Math.round(range.median * 100)} %`;
}

function valueOf(summary: ContenderSummary | undefined, unit: Unit): string {
  if (summary === undefined) return '-';
  return `${summary.stopped ? '>' : ''}${digits(summary.value.median)} ${unit}`;
}

const of = (job: JobSummary, contender: Contender | undefined): ContenderSummary | undefined =>
  job.contenders.find((summary) => summary.contender === contender);

function verdictText({ goal, wanted, got, met }: Verdict): string {
  return met ? '' : `NOT MET: ${GOALS[goal]} ${digits(wanted)}, is ${digits(got)}`;
}

/** "met", or what was not. */
export function verdictOf(job: JobSummary): string {
  if (job.verdicts.length === 0) return '';
  return job.verdicts.map(verdictText).filter(Boolean).join('; ') || 'met';
}

function speedTable(jobs: readonly JobSummary[]): string {
  const header = [
    'job',
    'ours',
    'reference',
    'ratio (of the rounds)',
    'qemu',
    'nbd engine',
    'of it',
  ];
  const rows = jobs.map((job) => [
    title(job.job),
    valueOf(of(job, job.job.contenders[0]), job.job.unit),
    valueOf(of(job, job.job.contenders[1]), job.job.unit),
    times(job.ratio, job.ratioIsBound),
    valueOf(of(job, 'qemu-storage-daemon'), job.job.unit),
    valueOf(of(job, 'nbd engine'), job.job.unit),
    percent(job.ofLimit),
  ]);
  return table(header, rows);
}

function costTable(jobs: readonly JobSummary[]): string {
  const header = [
    'job',
    'CPU s per',
    'ours',
    'reference',
    'ratio (of the rounds)',
    'peak MB',
    'reference',
  ];
  const seconds = (summary: ContenderSummary | undefined): string =>
    digits(summary?.cpuSeconds ?? NaN);
  const peak = (summary: ContenderSummary | undefined): string =>
    digits((summary?.peakBytes ?? NaN) / 1e6);
  const rows = jobs.flatMap((job) => {
    const ours = of(job, job.job.contenders[0]);
    const reference = of(job, job.job.contenders[1]);
    if (ours?.peakBytes === undefined) return [];
    return [
      [
        title(job.job),
        job.job.cpuPer ?? '-',
        seconds(ours),
        seconds(reference),
        times(job.cpuRatio),
        peak(ours),
        peak(reference),
      ],
    ];
  });
  return rows.length === 0 ? '' : table(header, rows);
}

function goalList(jobs: readonly JobSummary[]): string {
  const judged = jobs.filter((job) => job.verdicts.length > 0);
  if (judged.length === 0) return '';
  return table(
    ['job', 'goals'],
    judged.map((job) => [title(job.job), verdictOf(job)]),
  );
}

function verificationText(report: Report): string {
  const problems = report.verifications.filter(({ problem }) => problem !== undefined);
  if (report.verifications.length === 0) return '';
  if (problems.length === 0) {
    const servers = [...new Set(report.verifications.map(({ server }) => server))];
    return `What was written came back, with each front end, from: ${servers.join('; ')}.`;
  }
  return problems
    .map(
      ({ contender, server, problem }) =>
        `NOT what was written: ${contender} on ${server}: ${problem ?? ''}`,
    )
    .join('\n');
}

export function reportText(report: Report): string {
  const failures = report.jobs.flatMap((job) =>
    job.failures.map(
      ({ contender, reason }) => `FAILED: ${title(job.job)}: ${contender}: ${reason}`,
    ),
  );
  return [
    machineText(report.machine),
    `${report.rounds} alternating rounds, medians; ratio: times as fast as the reference, round by round.`,
    'The reference is nbdfuse, and nbdkit where tsnbdkit serves.',
    speedTable(report.jobs),
    costTable(report.jobs),
    goalList(report.jobs),
    verificationText(report),
    failures.join('\n'),
  ]
    .filter(Boolean)
    .join('\n\n');
}

export function reportJson(report: Report): string {
  return `${JSON.stringify(report, null, 2)}\n`;
}

/** All goals are met, nothing of ours failed, and what was written came back. */
export function isGood(report: Report): boolean {
  const ours = (contender: Contender): boolean => contender.startsWith('tsnbd');
  return (
    report.jobs.every(
      (job) =>
        job.verdicts.every(({ met }) => met) &&
        !job.failures.some(({ contender }) => ours(contender)),
    ) &&
    !report.verifications.some(({ contender, problem }) => problem !== undefined && ours(contender))
  );
}
