/** Both sides of the control socket, in one process: no mount is needed. */

import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { MountProcess } from '../../src/control/mount-process.js';
import { ControlServer } from '../../src/control/server.js';
import { listSockets } from '../../src/control/socket-name.js';
import { TOO_LATE } from '../../src/deadline.js';
import { errno } from '../../src/errno.js';
import { until } from '../support/mounts.js';
import { aStatus } from '../support/statuses.js';

/** No device has such a number. */
const DEVICE = '999:4000000000';
const OWNER = process.geteuid?.() ?? 0;
const GREETING = { mountpoint: '/some/where', isDirectory: true };
const never = new AbortController().signal;

describe('a control socket', () => {
  const asked: string[] = [];
  let done = 0;
  const server = ControlServer.open(DEVICE, {
    greeting: GREETING,
    status: () => aStatus(),
    request: (what) => {
      asked.push(what);
      return Promise.resolve(what === 'unmount' ? -errno.EBUSY : 0);
    },
    progress: () => done,
  });
  after(() => server?.stop());

  async function connect(): Promise<MountProcess> {
    const found = await MountProcess.ofDevice(DEVICE, OWNER);
    assert.ok(found !== undefined);
    return found;
  }

  it('is found by its device, says whose it is, and answers', async () => {
    const client = await connect();
    assert.equal(client.pid, process.pid);
    assert.deepEqual(client.greeting, GREETING);
    assert.equal(await client.ask('unmount'), -errno.EBUSY);
    assert.equal(await client.ask('detach'), 0);
    assert.deepEqual(asked, ['unmount', 'detach']);
    client.close();
  });

  it('is found by what it says, and by nothing else', async () => {
    const found = await MountProcess.ending(({ mountpoint }) => mountpoint === '/some/where');
    assert.equal(found?.pid, process.pid);
    found.close();
    assert.equal(await MountProcess.ending(({ mountpoint }) => mountpoint === '/other'), undefined);
    assert.equal(await MountProcess.ofDevice('999:4000000001', OWNER), undefined);
  });

  it('is believed where it is the owner’s, or root’s', async () => {
    const found = await MountProcess.ofDevice(DEVICE, OWNER + 1);
    found?.close();
    assert.equal(found !== undefined, OWNER === 0);
  });

  it('is waited for as long as something is done', async () => {
    const client = await connect();
    const nothing = new Promise<never>(() => undefined);
    assert.equal(await client.patiently(nothing, 50, never), TOO_LATE);
    const before = client.lastSign;
    done++;
    await until('it tells', () => client.lastSign > before);
    client.close();
  });

  it('has room again when others have gone', async () => {
    const many = await Promise.all(Array.from({ length: 16 }, connect));
    const oneMore = await connect();
    assert.equal(oneMore.greeting, undefined, 'there is no room');
    for (const client of [...many, oneMore]) client.close();
    await until('there is room', async () => {
      const again = await connect();
      again.close();
      return again.greeting !== undefined;
    });
  });

  it('is gone when it is stopped, and still connected to who was', async () => {
    const client = await connect();
    server?.stop();
    const names = await listSockets();
    assert.deepEqual(
      names.filter(({ device }) => device === DEVICE),
      [],
    );
    assert.equal(await client.patiently(client.ended, 50, never), TOO_LATE);
    client.close();
  });
});
