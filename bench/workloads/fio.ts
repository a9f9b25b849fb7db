/** A job of fio: on the mounted disk, or straight at the server. */

import type { Contender } from '../contenders.js';
import { isFrontEnd } from '../contenders.js';
import { fioCommand, parseFio, sideOf } from '../fio.js';
import type { FioResult, FioShape } from '../fio.js';
import type { Job } from '../jobs.js';
import type { Cost, Measurement } from '../measurement.js';
import { AS_USER, Mount } from '../mount.js';
import type { ProcessCost } from '../process-cost.js';
import { run } from '../processes.js';
import { secondsOf } from '../setting.js';
import type { ServedSetting } from '../setting.js';

/** Milliseconds; nbdfuse takes long for buffered writes. */
const DEADLINE = 90_000;

export function figure(job: Pick<Job, 'unit'>, result: FioResult): number {
  return job.unit === 'IOPS' ? result.iops : result.bandwidth / 1e6;
}

/** @param result what was done between the two */
export function costOf(
  job: Pick<Job, 'cpuPer'>,
  before: ProcessCost,
  after: ProcessCost,
  result: Pick<FioResult, 'operations' | 'bytes'>,
): Cost {
  const amount = job.cpuPer === 'GiB' ? result.bytes / 2 ** 30 : result.operations / 100_000;
  return {
    cpuSeconds: (after.cpuSeconds - before.cpuSeconds) / amount,
    peakBytes: after.peakBytes,
  };
}

export async function measureFio(
  job: Job,
  work: { readonly shape: FioShape; readonly asUser?: boolean },
  contender: Contender,
  setting: ServedSetting,
): Promise<Measurement> {
  const { server, workshop, commands, pace } = setting;
  const { shape } = work;
  const options = { deadline: DEADLINE, signal: workshop.signal };
  const seconds = secondsOf(job, pace);
  if (!isFrontEnd(contender)) {
    const command = fioCommand(shape, { uri: server.uri }, server.size, seconds);
    const result = parseFio(await run(command, options), sideOf(shape));
    return { value: figure(job, result), latency: result.latency };
  }
  const asUser = work.asUser === true;
  // A new mount has nothing in its page cache.
  const mount = await Mount.make(contender, { server }, commands, workshop, { asUser });
  try {
    const command = fioCommand(shape, { file: mount.file }, server.size, seconds);
    const before = mount.cost();
    const stdout = await run(asUser ? [...AS_USER, ...command] : command, options);
    const result = parseFio(stdout, sideOf(shape));
    const cost = costOf(job, before, mount.cost(), result);
    return { value: figure(job, result), latency: result.latency, cost };
  } finally {
    await mount.end();
  }
}
