/** A captive server that is started again when it is lost. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { CaptiveProcess } from '../../src/cli/captive-process.js';
import { CaptiveOrigin } from '../../src/cli/origin.js';
import { readDisk } from '../../src/disk/promises.js';
import { ForgetfulServer } from '../support/forgetful-server.js';

describe('a captive server', { timeout: 60_000 }, () => {
  it('has no second one beside it at the same image, if it cannot be killed', async () => {
    const server = await ForgetfulServer.start({ size: 4096 });
    const process = {
      name: 'stuck',
      exit: undefined,
      exited: new Promise(() => undefined),
      mostConnections: 4,
      isStuck: true,
      takeAddress: () => server.target.address,
      livesOn: () => Promise.resolve(true),
      stop: () => Promise.resolve('server stuck cannot be killed'),
    };
    let starts = 0;
    const patience = { timeout: 1_000, reconnect: 1_000, forever: false, unflushedLimit: 1 << 20 };
    const origin = new CaptiveOrigin(
      process as unknown as CaptiveProcess,
      { deadline: 1_000, connections: 1, patience },
      () => {
        starts++;
        return Promise.reject(new Error('not here'));
      },
    );
    const disk = await origin.connect();
    try {
      let reason = '';
      disk.onLost = (why) => (reason = why);
      server.isDown = true;
      server.crash();
      await assert.rejects(readDisk(disk, 0n, 512), { code: 'EIO' });
      assert.equal(starts, 0);
      assert.match(reason, /server stuck cannot be killed, and may still write/);
    } finally {
      await disk.close();
      await origin.close('soon');
      await server.stop();
    }
  });
});
