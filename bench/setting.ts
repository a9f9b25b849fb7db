/** What a run of a job has around it. */

import type { Server } from './servers.js';
import type { Workshop } from './workshop.js';

/** How long things take: figures of --quick are from shorter runs, and so noisier. */
export interface Pace {
  readonly rounds: number;
  /** Of a job whose runs are long. */
  readonly roundsOfPatience: number;
  /** Of a job that runs for a time. */
  readonly seconds: number;
  /** Of one that is another job on another server or plugin. */
  readonly secondsOfThorough: number;
  readonly diskBytes: number;
  /** A start-up is measured so many times in a run. */
  readonly starts: number;
}

const GIB = 2 ** 30;
export const USUAL: Pace = {
  rounds: 5,
  roundsOfPatience: 1,
  seconds: 0.8,
  secondsOfThorough: 0.5,
  diskBytes: GIB,
  starts: 3,
};
export const QUICK: Pace = {
  rounds: 3,
  roundsOfPatience: 1,
  seconds: 0.5,
  secondsOfThorough: 0.5,
  diskBytes: GIB / 2,
  starts: 2,
};

export interface Setting {
  readonly workshop: Workshop;
  /** The folder with the commands of the product, as it is installed. */
  readonly commands: string;
  readonly pace: Pace;
}

export interface ServedSetting extends Setting {
  readonly server: Server;
}

/** How long a job that has no amount of its own runs. */
export function secondsOf(job: { readonly thorough?: boolean }, pace: Pace): number {
  return job.thorough === true ? pace.secondsOfThorough : pace.seconds;
}
