/** Does what was written through a front end come back, through it and from the server itself? */

import { FRONT_ENDS } from './contenders.js';
import type { FrontEnd } from './contenders.js';
import { verifyCommand } from './fio.js';
import { Mount } from './mount.js';
import { run } from './processes.js';
import { MIB } from './servers.js';
import type { ServedSetting } from './setting.js';

/** Milliseconds. */
const DEADLINE = 60_000;

const AMOUNT = 16 * MIB;
/** On a server that is far away, it takes long one by one. */
const AMOUNT_FAR = MIB / 2;

/** Of the first front end: what another one has written before must not pass for what this one was to write. */
const FIRST_SEED = 4711;

/** @throws Error when it does not */
export async function verifyData(frontEnd: FrontEnd, setting: ServedSetting): Promise<void> {
  const { server, workshop, commands } = setting;
  const options = { deadline: DEADLINE, signal: workshop.signal };
  const amount = server.name.endsWith(' ms') ? AMOUNT_FAR : AMOUNT;
  const seed = FIRST_SEED + FRONT_ENDS.indexOf(frontEnd);
  for (const how of ['write', 'compare'] as const) {
    // A second mount, so that what is compared comes from the server and not from the page cache.
    const mount = await Mount.make(frontEnd, { server }, commands, workshop);
    try {
      await run(verifyCommand({ file: mount.file }, server.size, amount, seed, how), options);
    } finally {
      await mount.end();
    }
  }
  await run(verifyCommand({ uri: server.uri }, server.size, amount, seed, 'compare'), options);
}
