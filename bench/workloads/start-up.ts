/** From the start of the command until the disk is there, with a captive server. */

import { join } from 'node:path';
import type { FrontEnd } from '../contenders.js';
import type { Measurement } from '../measurement.js';
import { Mount } from '../mount.js';
import type { Setting } from '../setting.js';
import { median } from '../statistics.js';

export async function measureStartUp(
  captive: 'tsnbdkit' | 'nbdkit',
  contender: FrontEnd,
  setting: Setting,
): Promise<Measurement> {
  const { workshop, commands, pace } = setting;
  const program = captive === 'tsnbdkit' ? join(commands, 'tsnbdkit') : 'nbdkit';
  const times: number[] = [];
  for (let i = 0; i < pace.starts; i++) {
    const origin = { captive: [program, 'memory', '1G'] };
    const mount = await Mount.make(contender, origin, commands, workshop, { interval: 1 });
    times.push(mount.startedIn);
    await mount.end();
  }
  return { value: median(times) };
}
