/** What is said over a control socket, by those who ask how a mount is, and by those who only want to do harm. */

import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { askStatus } from '../../src/control/ask-status.js';
import { ControlServer } from '../../src/control/server.js';
import { listSockets } from '../../src/control/socket-name.js';
import { native } from '../../src/native.js';
import { Listener } from '../../src/server/listen.js';
import { until } from '../support/mounts.js';
import { aStatus } from '../support/statuses.js';

/** No device has such a number. */
const DEVICE = '999:4000000007';
const US = process.geteuid?.() ?? 0;

describe('a control socket that is asked for the status', () => {
  const status = aStatus();
  let server: ControlServer | undefined;
  let name: string;
  const clients: Socket[] = [];

  beforeEach(async () => {
    server = ControlServer.open(DEVICE, {
      greeting: { mountpoint: status.mountpoint, isDirectory: false },
      status: () => status,
      request: () => Promise.resolve(0),
      progress: () => 0,
    });
    const found = (await listSockets()).filter(({ device }) => device === DEVICE);
    assert.equal(found.length, 1);
    name = found[0]?.name ?? '';
  });
  afterEach(() => {
    server?.stop();
    for (const client of clients.splice(0)) client.destroy();
  });

  /** @param fd owned from now on */
  function socketOf(fd: number): Socket {
    assert.ok(fd >= 0);
    const socket = new Socket({ fd, readable: true, writable: true });
    clients.push(socket);
    return socket.on('error', () => undefined);
  }

  // Node's own connections pad an abstract name with zeroes.
  const dial = (): Socket => socketOf(native.unixConnect(`\0${name}`));

  /** What a client gets that sends this, and then waits for the end. */
  async function say(text: string): Promise<string> {
    const client = dial();
    client.write(text);
    let answer = '';
    client.setEncoding('utf8').on('data', (more: string) => (answer += more));
    await new Promise((resolve) => client.once('close', resolve));
    return answer;
  }

  it('tells it, each time', async () => {
    for (let i = 0; i < 3; i++) {
      // Which process it is, the kernel tells.
      const told = { ...status, pid: process.pid };
      assert.deepEqual(await askStatus(name, US), { kind: 'status', status: told });
    }
  });

  it('says what it does not understand, and lets those go who say too much', async () => {
    for (const text of ['\n', '{}\n', '[]\n', 'null\n', '{"ask":"everything"}\n', 'status\n']) {
      const answer = JSON.parse(await say(text)) as { version: number; error: string };
      assert.equal(answer.version, 1);
      assert.match(answer.error, /JSON|ask for: status/);
    }
    assert.equal(await say('x'.repeat(100_000)), '');
    const twice = await say('{"version":1,"ask":"status"}\n'.repeat(100));
    // Who goes on talking may not even hear it.
    assert.ok(twice.split('\n').length <= 2, twice);
    assert.equal((await askStatus(name, US)).kind, 'status');
  });

  it('is not kept busy by those who ask nothing, and are many', async () => {
    let closed = 0;
    for (let i = 0; i < 40; i++) dial().on('close', () => closed++);
    await until('those beyond the most are sent away', () => closed >= 40 - 16);
    // The rest have a deadline.
    await until('all are let go', () => closed === 40);
    assert.equal((await askStatus(name, US)).kind, 'status');
  });

  it('is gone with its process, or when it is stopped', async () => {
    server?.stop();
    server?.stop();
    assert.deepEqual(await askStatus(name, US), { kind: 'deserted' });
  });

  it('is not believed where it is of another user', async () => {
    const { kind } = await askStatus(name, US + 1);
    // Root is believed by everybody.
    assert.equal(kind, US === 0 ? 'status' : 'deserted');
  });

  it('is not waited for where it hangs, or talks nonsense', async () => {
    const answers = [
      '',
      'x\n',
      '{"version":1}\n',
      '{"version":1,"kind":"status","status":{}}\n',
      'y'.repeat(70_000),
    ];
    const odd = Listener.unix(`\0${name}-odd`);
    odd.start({
      accepted: (fd) => {
        const answer = answers.shift();
        const socket = socketOf(fd);
        if (answer !== undefined) socket.end(answer);
      },
      failed: (error) => assert.fail(error.message),
    });
    for (let left = answers.length; left > 0; left--) {
      assert.equal((await askStatus(`${name}-odd`, US)).kind, 'silent');
    }
    assert.deepEqual(answers, []);
    assert.deepEqual(await askStatus(`${name}-odd`, US, 100), {
      kind: 'silent',
      why: 'does not answer within 0.1 s',
      pid: process.pid,
    });
    odd.close();
  });
});
