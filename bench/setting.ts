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
  readonly diskBytes: number;
  /** A start-up is measured so many times in a run. */
  readonly starts: number;
}

const GIB = 2 ** 30;
export const USUAL: Pace = {
  rounds: 5,
  roundsOfPatience: 2,
  seconds: 1,
  diskBytes: GIB,
  starts: 5,
};
export const QUICK: Pace = {
  rounds: 3,
  roundsOfPatience: 1,
  seconds: 0.7,
  diskBytes: GIB / 2,
  starts: 3,
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
