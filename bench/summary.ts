/** What the rounds of a job amount to, and whether its goals were met. */

import type { Contender } from './contenders.js';
import type { Goals, Job } from './jobs.js';
import { hasFailed, speed } from './measurement.js';
import type { Latency, Measurement, Run } from './measurement.js';
import type { JobResult } from './rounds.js';
import { median, ratios, spread } from './statistics.js';
import type { Spread } from './statistics.js';

export interface Verdict {
  readonly goal: keyof Goals;
  readonly wanted: number;
  /** NaN where there is nothing to go by, which meets no goal. */
  readonly got: number;
  readonly met: boolean;
}

export interface ContenderSummary {
  readonly contender: Contender;
  readonly value: Spread;
  /** Some were stopped: the time is at least that. */
  readonly stopped: boolean;
  readonly cpuSeconds?: number;
  readonly peakBytes?: number;
  readonly latency?: Latency;
  /** Times as fast as the second contender, round by round. */
  readonly ratio?: Spread;
}

export interface JobSummary {
  readonly job: Job;
  readonly contenders: readonly ContenderSummary[];
  /** Ours to the second contender. */
  readonly ratio?: Spread;
  /** The second was stopped in some rounds: the ratio is at least that. */
  readonly ratioIsBound: boolean;
  readonly ofLimit?: Spread;
  readonly cpuRatio?: Spread;
  readonly verdicts: readonly Verdict[];
  readonly failures: readonly { readonly contender: Contender; readonly reason: string }[];
}

const measured = (runs: readonly Run[]): Measurement[] =>
  runs.filter((run): run is Measurement => !hasFailed(run));

type Series = (number | undefined)[];

function series(
  runs: readonly Run[] | undefined,
  pick: (run: Measurement) => number | undefined,
): Series {
  return (runs ?? []).map((run) => (hasFailed(run) ? undefined : pick(run)));
}

/** Of those that have it. */
function medianOf(
  runs: readonly Measurement[],
  pick: (run: Measurement) => number | undefined,
): number | undefined {
  const values = runs.map(pick).filter((value) => value !== undefined && !Number.isNaN(value));
  return values.length === 0 ? undefined : median(values as number[]);
}

function latencyOf(runs: readonly Measurement[]): Latency | undefined {
  const p50 = medianOf(runs, (run) => run.latency?.p50);
  const p99 = medianOf(runs, (run) => run.latency?.p99);
  const p999 = medianOf(runs, (run) => run.latency?.p999);
  if (p50 === undefined || p99 === undefined || p999 === undefined) return undefined;
  return { p50, p99, p999 };
}

function summarizeContender(
  contender: Contender,
  runs: readonly Measurement[],
  ratio: Spread | undefined,
): ContenderSummary[] {
  const value = spread(runs.map((run) => run.value));
  if (value === undefined) return [];
  const cpuSeconds = medianOf(runs, (run) => run.cost?.cpuSeconds);
  const peaks = runs.flatMap((run) => (run.cost === undefined ? [] : [run.cost.peakBytes]));
  const latency = latencyOf(runs);
  return [
    {
      contender,
      value,
      stopped: runs.some((run) => run.stopped === true),
      ...(cpuSeconds === undefined ? {} : { cpuSeconds }),
      ...(peaks.length === 0 ? {} : { peakBytes: Math.max(...peaks) }),
      ...(latency === undefined ? {} : { latency }),
      ...(ratio === undefined ? {} : { ratio }),
    },
  ];
}

export function summarize({ job, runs }: JobResult): JobSummary {
  const [ours, reference] = job.contenders;
  const speeds = (contender: Contender | undefined): Series =>
    contender === undefined ? [] : series(runs.get(contender), (run) => speed(run.value, job.unit));
  const cpu = (contender: Contender | undefined): Series =>
    contender === undefined ? [] : series(runs.get(contender), (run) => run.cost?.cpuSeconds);
  const ratioOf = (contender: Contender | undefined): Spread | undefined =>
    spread(ratios(speeds(contender), speeds(reference)));

  const contenders = job.contenders.flatMap((contender) => {
    const ratio = contender === reference ? undefined : ratioOf(contender);
    return summarizeContender(contender, measured(runs.get(contender) ?? []), ratio);
  });
  const failures = job.contenders.flatMap((contender) =>
    (runs.get(contender) ?? []).flatMap((run) =>
      hasFailed(run) ? [{ contender, reason: run.failed }] : [],
    ),
  );
  const ratio = ratioOf(ours);
  const ofLimit = spread(ratios(speeds(ours), speeds('nbd engine')));
  const cpuRatio = spread(
    ratios(cpu(ours), cpu(reference)).filter((value) => !Number.isNaN(value)),
  );
  const own = contenders.find(({ contender }) => contender === ours);
  const got: Record<keyof Goals, number | undefined> = {
    ratio: ratio?.median,
    ofLimit: ofLimit?.median,
    cpu: cpuRatio?.median,
    peakMB: own?.peakBytes === undefined ? undefined : own.peakBytes / 1e6,
    most: own?.value.median,
  };
  return {
    job,
    contenders,
    ...(ratio === undefined ? {} : { ratio }),
    ratioIsBound: contenders.some(({ contender, stopped }) => contender === reference && stopped),
    ...(ofLimit === undefined ? {} : { ofLimit }),
    ...(cpuRatio === undefined ? {} : { cpuRatio }),
    verdicts: judge(job.goals, got),
    failures,
  };
}

/** Which goals are met from above; the others are bounds that must not be passed. */
const AT_LEAST: ReadonlySet<keyof Goals> = new Set(['ratio', 'ofLimit']);

export function judge(
  goals: Goals,
  got: Readonly<Partial<Record<keyof Goals, number | undefined>>>,
): Verdict[] {
  return (Object.keys(goals) as (keyof Goals)[]).flatMap((goal) => {
    const wanted = goals[goal];
    if (wanted === undefined) return [];
    const value = got[goal] ?? NaN;
    const met = AT_LEAST.has(goal) ? value >= wanted : value <= wanted;
    return [{ goal, wanted, got: value, met }];
  });
}
