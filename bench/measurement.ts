/** What one run of a job on one contender gives. */

/** Of IOPS and MB/s more is better, of times less. */
export type Unit = 'IOPS' | 'MB/s' | 's' | 'ms';

/** Microseconds from the submission of a request to its completion. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
}

/** What the front end took of the machine for a run. */
export interface Cost {
  /** utime and stime, per GiB or per 100,000 operations, as the job counts. */
  readonly cpuSeconds: number;
  /** VmHWM since the front end started, its children with it. */
  readonly peakBytes: number;
}

export interface Measurement {
  /** In the unit of the job. */
  readonly value: number;
  /** The run was stopped for taking too long: what is measured is only a bound. */
  readonly stopped?: boolean;
  readonly cost?: Cost;
  readonly latency?: Latency;
}

/** A run that went wrong, and why. */
export interface Failure {
  readonly failed: string;
}

export type Run = Measurement | Failure;

export function hasFailed(run: Run): run is Failure {
  return 'failed' in run;
}

export function lessIsBetter(unit: Unit): boolean {
  return unit === 's' || unit === 'ms';
}

/** A figure of which more is better, whatever the unit: ratios of it say how many times as fast. */
export function speed(value: number, unit: Unit): number {
  return lessIsBetter(unit) ? 1 / value : value;
}
