/** How fast a server gives and takes its disk, without any mount. */

import { fioCommand, parseFio, sideOf } from '../fio.js';
import type { FioShape } from '../fio.js';
import type { Job } from '../jobs.js';
import type { Measurement } from '../measurement.js';
import { readCost } from '../process-cost.js';
import { run } from '../processes.js';
import { MIB } from '../servers.js';
import { secondsOf } from '../setting.js';
import type { ServedSetting } from '../setting.js';
import { costOf, figure } from './fio.js';

/** Milliseconds. */
const DEADLINE = 60_000;

export async function measureServing(
  job: Job,
  client: 'nbdcopy' | FioShape,
  setting: ServedSetting,
): Promise<Measurement> {
  const { server, workshop, pace } = setting;
  const options = { deadline: DEADLINE, signal: workshop.signal };
  const before = readCost(server.pid);
  if (client !== 'nbdcopy') {
    const seconds = secondsOf(job, pace);
    const command = fioCommand(client, { uri: server.uri }, server.size, seconds);
    const result = parseFio(await run(command, options), sideOf(client));
    const cost = costOf(job, before, readCost(server.pid), result);
    return { value: figure(job, result), latency: result.latency, cost };
  }
  const begin = performance.now();
  await run(['nbdcopy', `--request-size=${MIB}`, server.uri, 'null:'], options);
  const seconds = (performance.now() - begin) / 1000;
  const done = { bytes: server.size, operations: server.size / MIB };
  const cost = costOf(job, before, readCost(server.pid), done);
  return { value: server.size / seconds / 1e6, cost };
}
