import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { askControl } from '../../src/control/client.js';
import { ControlSocket, removeDeserted } from '../../src/control/control-socket.js';
import {
  controlFiles,
  findControlFiles,
  mountHash,
  placesOf,
  socketName,
} from '../../src/control/places.js';
import type { Surroundings } from '../../src/control/places.js';
import { until } from '../support/mounts.js';
import { aStatus } from '../support/statuses.js';

const MOUNTPOINT = '/mnt/disk.raw';

describe('a control socket', () => {
  let folder: string;
  let session: string;
  let here: Surroundings;
  let control: ControlSocket | undefined;
  const clients: Socket[] = [];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
    session = join(folder, 'session');
    mkdirSync(session);
    // Not as root, whose place is another one.
    here = { uid: process.geteuid?.() ?? 0, env: { XDG_RUNTIME_DIR: session }, root: folder };
  });
  afterEach(async () => {
    control?.close();
    control = undefined;
    for (const client of clients.splice(0)) client.destroy();
    await rm(folder, { recursive: true, force: true });
  });

  const open = (): ControlSocket => (control = ControlSocket.open(MOUNTPOINT, here));

  /** What a client gets that sends this, and then waits for the end. */
  async function say(path: string, text: string): Promise<string> {
    const client = connect(path);
    clients.push(client);
    client.on('error', () => undefined);
    client.write(text);
    let answer = '';
    client.setEncoding('utf8').on('data', (more: string) => (answer += more));
    await new Promise((resolve) => client.once('close', resolve));
    return answer;
  }

  /** A socket that the process which listened has left behind. @returns its number */
  async function leave(place: string): Promise<number> {
    mkdirSync(place, { recursive: true, mode: 0o700 });
    const script = `
      const path = require('node:path');
      const name = path.join(${JSON.stringify(place)}, '${mountHash('/left')}-' + process.pid + '.sock');
      require('node:net').createServer().listen(name, () => process.kill(process.pid, 'SIGKILL'));`;
    const child = spawn(process.execPath, ['-e', script], { stdio: 'ignore' });
    await once(child, 'exit');
    return child.pid ?? 0;
  }

  it('answers who asks, also who had connected before there was anything to be told', async () => {
    const { path } = open();
    const early = askControl(path);
    const status = aStatus();
    control?.serve(() => status);
    assert.deepEqual(await early, { kind: 'status', status });
    assert.deepEqual(await askControl(path), { kind: 'status', status });
  });

  it('is for its owner only, and leaves nothing', () => {
    const { path } = open();
    const [place = ''] = placesOf(here).filter((one) => path.startsWith(one));
    assert.equal(lstatSync(place).mode & 0o777, 0o700);
    assert.equal(lstatSync(path).mode & 0o777, 0o600);
    control?.close();
    control?.close();
    assert.ok(!existsSync(place));
  });

  it('stays for others when one of several ends', async () => {
    const first = open();
    const second = ControlSocket.open('/mnt/other', here);
    second.serve(() => aStatus());
    first.close();
    assert.equal((await askControl(second.path)).kind, 'status');
    second.close();
    assert.ok(!existsSync(first.path) && !existsSync(second.path));
  });

  it('says what it does not understand, and lets those go who say too much', async () => {
    const { path } = open();
    control?.serve(() => aStatus());
    for (const text of ['\n', '{}\n', '[]\n', 'null\n', '{"ask":"everything"}\n', 'status\n']) {
      const answer = JSON.parse(await say(path, text)) as { version: number; error: string };
      assert.equal(answer.version, 1);
      assert.match(answer.error, /JSON|ask for: status/);
    }
    assert.equal(await say(path, 'x'.repeat(100_000)), '');
    const twice = await say(path, '{"version":1,"ask":"status"}\n'.repeat(100));
    // Who goes on talking may not even hear it.
    assert.ok(twice.split('\n').length <= 2, twice);
  });

  it('is not kept busy by those who ask nothing, and are many', async () => {
    const { path } = open();
    control?.serve(() => aStatus());
    const closed: boolean[] = [];
    for (let i = 0; i < 40; i++) {
      const client = connect(path);
      client.on('error', () => undefined).on('close', () => closed.push(true));
      clients.push(client);
    }
    await until('those beyond the most are sent away', () => closed.length >= 40 - 16);
    // The rest have a deadline.
    await until('all are let go', () => closed.length === 40);
    assert.equal((await askControl(path)).kind, 'status');
  });

  it('takes away what a process has left that was killed, and only that', async () => {
    const [place = ''] = placesOf(here);
    const pid = await leave(place);
    const living = createServer().listen(join(place, socketName('/alive', 1)));
    await once(living, 'listening');
    assert.equal(controlFiles(place, here.uid).length, 2);
    const { path } = open();
    assert.deepEqual(
      readdirSync(place).sort(),
      [path, join(place, socketName('/alive', 1))].map((one) => one.slice(place.length + 1)).sort(),
    );
    assert.ok(pid > 0);
    living.close();
  });

  it('tells that nobody is there any more, and is cleared then', async () => {
    const [place = ''] = placesOf(here);
    await leave(place);
    const [file] = controlFiles(place, here.uid);
    assert.ok(file !== undefined);
    assert.deepEqual(await askControl(file.path), { kind: 'deserted' });
    removeDeserted(file);
    assert.ok(!existsSync(place));
    assert.deepEqual(await askControl(file.path), { kind: 'deserted' });
  });

  it('takes the place of one with its own name', async () => {
    const [place = ''] = placesOf(here);
    mkdirSync(place, { recursive: true, mode: 0o700 });
    const name = join(place, socketName(MOUNTPOINT, process.pid));
    const script = `require('node:net').createServer().listen(${JSON.stringify(name)}, () => process.kill(process.pid, 'SIGKILL'))`;
    assert.equal(spawnSync(process.execPath, ['-e', script]).signal, 'SIGKILL');
    assert.ok(existsSync(name));
    assert.equal(open().path, name);
    control?.serve(() => aStatus());
    assert.equal((await askControl(name)).kind, 'status');
  });

  it('waits for no one who hangs, or talks nonsense', async () => {
    const path = join(folder, 'odd');
    const answers = [
      '',
      'x\n',
      '{"version":1}\n',
      '{"version":1,"status":{}}\n',
      'y'.repeat(70_000),
    ];
    const odd = createServer((socket) => {
      clients.push(socket);
      socket.on('error', () => undefined);
      const answer = answers.shift();
      if (answer !== undefined) socket.end(answer);
    }).listen(path);
    await once(odd, 'listening');
    for (let left = answers.length; left > 0; left--) {
      const answer = await askControl(path);
      assert.equal(answer.kind, 'silent');
    }
    assert.deepEqual(await askControl(path, 100), {
      kind: 'silent',
      why: 'does not answer within 0.1 s',
    });
    odd.close();
  });

  it('goes to another place where one cannot be trusted', () => {
    const [first = '', ...others] = placesOf(here);
    mkdirSync(first, { recursive: true });
    chmodSync(first, 0o755);
    const second = others[0] ?? '';
    mkdirSync(join(second, '..'), { recursive: true });
    symlinkSync(folder, second);
    const temporary = others.at(-1) ?? '';
    mkdirSync(join(folder, 'tmp'));
    assert.equal(open().path, join(temporary, socketName(MOUNTPOINT, process.pid)));
    // And nothing is looked for there.
    assert.deepEqual(
      findControlFiles(here).map(({ path }) => path),
      [control?.path],
    );
  });

  it('tells what was tried where there is no place, and which is hidden', () => {
    const dead = { ...here, env: {}, root: join(folder, 'missing') };
    assert.throws(() => ControlSocket.open(MOUNTPOINT, dead), /missing.*no such file/);
    const long = { ...dead, env: { XDG_RUNTIME_DIR: join(session, 'x'.repeat(100)) } };
    assert.throws(() => ControlSocket.open(MOUNTPOINT, long), /too long a path for a socket/);
    const hidden = { ...here, root: join(folder, 'missing') };
    assert.throws(() => ControlSocket.open(session, hidden), /the mount hides it/);
  });
});

describe('the name of a control socket', () => {
  it('follows from the mountpoint', () => {
    assert.match(socketName(MOUNTPOINT, 7), /^[0-9a-f]{16}-7\.sock$/);
    assert.equal(mountHash(MOUNTPOINT), mountHash(MOUNTPOINT));
    const many = new Set(Array.from({ length: 10_000 }, (_, i) => mountHash(`/mnt/${i}`)));
    assert.equal(many.size, 10_000);
  });
});
