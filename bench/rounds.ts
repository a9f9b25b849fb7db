/** Runs jobs in alternating rounds: a busy moment of the machine so hits all contenders alike. */

import { isFrontEnd } from './contenders.js';
import type { Contender } from './contenders.js';
import { title } from './jobs.js';
import type { Job } from './jobs.js';
import { hasFailed, lessIsBetter } from './measurement.js';
import type { Measurement, Run } from './measurement.js';
import { Servers } from './servers.js';
import type { ServedSetting, Setting } from './setting.js';
import { verifyData } from './verification.js';
import { measureFileSystem } from './workloads/file-system.js';
import { measureFio } from './workloads/fio.js';
import { measureServing } from './workloads/serving.js';
import { measureSparseCopy } from './workloads/sparse-copy.js';
import { measureStartUp } from './workloads/start-up.js';

export interface JobResult {
  readonly job: Job;
  /** The runs of each contender, by round. */
  readonly runs: ReadonlyMap<Contender, readonly Run[]>;
}

export interface Verification {
  readonly contender: Contender;
  readonly server: string;
  /** What was wrong, if anything. */
  readonly problem?: string;
}

export interface Results {
  readonly jobs: readonly JobResult[];
  readonly verifications: readonly Verification[];
}

/** Who goes when: each is first in turn, and every other round is the one before it backwards. */
export function orderOf(contenders: readonly Contender[], round: number): Contender[] {
  const first = (round >> 1) % contenders.length;
  const turned = [...contenders.slice(first), ...contenders.slice(0, first)];
  return round % 2 === 0 ? turned : turned.toReversed();
}

async function measure(
  job: Job,
  contender: Contender,
  setting: Setting,
  servers: Servers,
  patience: number | undefined,
): Promise<Measurement> {
  const { work } = job;
  const cannot = (): never => {
    throw new Error(`${contender} cannot do it`);
  };
  const served = async (): Promise<ServedSetting> => {
    return { ...setting, server: await servers.get(job.server ?? cannot()) };
  };
  switch (work.kind) {
    case 'fio':
      return measureFio(job, work, contender, await served());
    case 'file-system':
      return measureFileSystem(isFrontEnd(contender) ? contender : cannot(), await served());
    case 'sparse-copy':
      return measureSparseCopy(
        isFrontEnd(contender) ? contender : cannot(),
        await served(),
        patience,
      );
    case 'start-up':
      return measureStartUp(work.captive, isFrontEnd(contender) ? contender : cannot(), setting);
    case 'serving': {
      if (contender !== 'tsnbdkit' && contender !== 'nbdkit') return cannot();
      const server = await servers.get(`${contender} ${work.plugin}`);
      return measureServing(job, work.client, { ...setting, server });
    }
  }
}

/** How long the others may take, in the unit of the job; undefined without ours to go by. */
export function patienceWith(job: Job, ours: readonly Run[]): number | undefined {
  if (job.patience === undefined || !lessIsBetter(job.unit)) return undefined;
  const times = ours.flatMap((run) => (hasFailed(run) ? [] : [run.value]));
  return times.length === 0 ? undefined : job.patience * Math.max(...times);
}

export class Rounds {
  readonly #setting: Setting;
  readonly #say: (line: string) => void;
  readonly #verifications: Verification[] = [];

  constructor(setting: Setting, say: (line: string) => void) {
    this.#setting = setting;
    this.#say = say;
  }

  async run(jobs: readonly Job[]): Promise<Results> {
    const results: JobResult[] = [];
    for (const server of new Set(jobs.map((job) => job.server))) {
      results.push(...(await this.#runGroup(jobs.filter((job) => job.server === server))));
    }
    return { jobs: results, verifications: this.#verifications };
  }

  /** The jobs of one server. */
  async #runGroup(jobs: readonly Job[]): Promise<JobResult[]> {
    const { commands, workshop, pace } = this.#setting;
    const name = jobs[0]?.server;
    const servers = new Servers(pace.diskBytes, commands, workshop);
    const results = jobs.map((job) => ({ job, runs: new Map<Contender, Run[]>() }));
    try {
      if (name !== undefined) {
        await this.#verify(jobs, { ...this.#setting, server: await servers.get(name) });
      }
      for (let round = 0; round < pace.rounds; round++) {
        for (const { job, runs } of results) {
          if (job.patience !== undefined && round >= pace.roundsOfPatience) continue;
          const order =
            job.patience === undefined ? orderOf(job.contenders, round) : job.contenders;
          for (const contender of order) {
            const patience =
              contender === job.contenders[0]
                ? undefined
                : patienceWith(job, runs.get(job.contenders[0] ?? contender) ?? []);
            const run = await this.#once(job, contender, servers, patience);
            runs.set(contender, [...(runs.get(contender) ?? []), run]);
          }
        }
        this.#say(`${name ?? 'without a server'}: round ${round + 1} of ${pace.rounds} done`);
      }
    } finally {
      await servers.stop();
    }
    return results;
  }

  async #once(
    job: Job,
    contender: Contender,
    servers: Servers,
    patience: number | undefined,
  ): Promise<Run> {
    try {
      return await measure(job, contender, this.#setting, servers, patience);
    } catch (error) {
      this.#setting.workshop.signal.throwIfAborted();
      const failed = (error as Error).message;
      this.#say(`${title(job)}: ${contender} failed: ${failed}`);
      return { failed };
    }
  }

  /** Each front end once on each server that can be written to. */
  async #verify(jobs: readonly Job[], setting: ServedSetting): Promise<void> {
    if (setting.server.name === 'nbdkit sparse file') return;
    for (const contender of new Set(jobs.flatMap((job) => job.contenders))) {
      if (!isFrontEnd(contender)) continue;
      const verification = { contender, server: setting.server.name };
      try {
        await verifyData(contender, setting);
        this.#verifications.push(verification);
      } catch (error) {
        setting.workshop.signal.throwIfAborted();
        const problem = (error as Error).message;
        this.#say(`${contender} on ${setting.server.name}: not what was written: ${problem}`);
        this.#verifications.push({ ...verification, problem });
      }
    }
  }
}
