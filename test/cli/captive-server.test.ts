import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, readFile, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { CaptiveServer } from '../../src/cli/captive-server.js';
import { CommandError } from '../../src/cli/errors.js';
import { errno } from '../../src/errno.js';
import { native } from '../../src/native.js';
import { Workplace, until } from '../support/mounts.js';

/** A server that writes down how it was started, and answers the first client with the file's name. */
const FAKE_SERVER = `#!/usr/bin/env node
import { fstatSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
const isOpen = (fd) => {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
};
const report = process.argv[2];
const facts = {
  args: process.argv.slice(3),
  pid: process.pid,
  env: process.env,
  stdin: readFileSync(0, 'utf8'),
  socket: fstatSync(3).isSocket(),
  four: isOpen(4) && fstatSync(4).isSocket(),
  stat: readFileSync('/proc/self/stat', 'utf8'),
};
writeFileSync(report + '.new', JSON.stringify(facts));
renameSync(report + '.new', report);
createServer((socket) => socket.end(report)).listen({ fd: 3 });
`;

interface Facts {
  args: string[];
  pid: number;
  env: Record<string, string | undefined>;
  stdin: string;
  socket: boolean;
  four: boolean;
  stat: string;
}

describe('a captive server', () => {
  let place: Workplace;
  let fake = '';
  const servers: CaptiveServer[] = [];

  before(async () => {
    place = await Workplace.create();
    await place.file('package.json', '{"type":"module"}');
    fake = await place.file('fake', FAKE_SERVER, 0o755);
  });
  after(() => place.remove());
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.stop();
    await place.nothingLeft();
  });

  const start = async (
    command: readonly [string, ...string[]],
    options: { env?: NodeJS.ProcessEnv; endDeadline?: number } = {},
  ): Promise<CaptiveServer> => {
    const server = await CaptiveServer.start(command, {
      showOutput: false,
      ...options,
      env: { ...place.env, ...options.env },
    });
    servers.push(server);
    return server;
  };

  const factsOf = async (report: string): Promise<Facts> => {
    await until('the server has written its report', () => existsSync(report));
    return JSON.parse(await readFile(report, 'utf8')) as Facts;
  };

  it('is started as systemd would', async () => {
    const report = place.join('activation');
    const words = ['a b', '', '$HOME', '"; exit 1; "', '--', '-x', '[', '*'];
    // Left over from whoever started us.
    const env = { LISTEN_PID: '1', LISTEN_FDS: '7' };
    await start([fake, report, ...words], { env });
    const facts = await factsOf(report);
    assert.deepEqual(facts.args, words);
    assert.equal(facts.env['LISTEN_PID'], String(facts.pid));
    assert.equal(facts.env['LISTEN_FDS'], '1');
    assert.equal(facts.env['LISTEN_FDNAMES'], 'unknown');
    assert.equal(facts.socket, true);
    assert.equal(facts.four, false, 'the line to the guardian is closed');
    assert.equal(facts.stdin, '');
    // Process id, (name), state, parent, process group, session: proc(5).
    const [, group, session] = facts.stat.slice(facts.stat.lastIndexOf(')') + 4).split(' ');
    assert.equal(group, String(facts.pid));
    assert.equal(session, String(facts.pid), 'out of reach of Ctrl-C');
  });

  it('finds the programs of the package first', async () => {
    const report = place.join('path');
    await start([fake, report]);
    const [first = ''] = ((await factsOf(report)).env['PATH'] ?? '').split(':');
    assert.ok(existsSync(`${first}/tsnbdfuse`), first);
  });

  it('can be connected to at once, over a socket that nobody else reaches', async () => {
    const report = place.join('connect');
    const server = await start([fake, report]);
    const folder = await stat(dirname(server.socketPath));
    assert.equal(folder.mode & 0o777, 0o700);
    let said = '';
    await new Promise((resolve, reject) => {
      connect(server.socketPath)
        .on('data', (text) => (said += text.toString()))
        .on('error', reject)
        .on('close', resolve);
    });
    assert.equal(said, report);
  });

  it('is ended, and its folder removed', async () => {
    const report = place.join('end');
    const server = await start([fake, report]);
    await factsOf(report);
    assert.equal(await server.stop(), undefined);
    assert.deepEqual(server.exit, { status: undefined, signal: 'SIGTERM' });
    assert.ok(!existsSync(dirname(server.socketPath)));
    assert.equal(await server.stop(), undefined, 'a second time');
  });

  it('is ended with the processes that it started', async () => {
    const ready = place.join('children');
    const server = await start(['sh', '-c', 'sleep 1000 & sleep 1000 & : >"$0"; wait', ready]);
    await until('the children are started', () => existsSync(ready));
    assert.equal(await server.stop(), undefined);
    assert.deepEqual([...(await place.processes()).values()], []);
  });

  it('is ended with the processes that it left behind', async () => {
    const server = await start(['sh', '-c', 'sleep 1000 &']);
    assert.deepEqual(await server.exited, { status: 0, signal: undefined });
    assert.equal(await server.stop(), undefined);
    assert.deepEqual([...(await place.processes()).values()], []);
  });

  it('is not sent a signal when it ends by itself', async () => {
    const signalled = place.join('signalled');
    const server = await start(['sh', '-c', 'trap ": >$0" TERM; exit 0', signalled]);
    assert.equal(await server.stop(), undefined);
    assert.ok(!existsSync(signalled));
  });

  it('is killed when it does not end, which is told', async () => {
    const ready = place.join('stubborn');
    const script = 'trap "" TERM; : >"$0"; while :; do sleep 1; done';
    const server = await start(['sh', '-c', script, ready], { endDeadline: 100 });
    await until('the server is ready', () => existsSync(ready));
    assert.equal(await server.stop(), 'server sh did not end within 0.1 s and was killed');
    assert.deepEqual(server.exit, { status: undefined, signal: 'SIGKILL' });
  });

  it('tells of an exit status at its end', async () => {
    const ready = place.join('failing');
    const script = 'trap "exit 5" TERM; : >"$0"; while :; do sleep 0.01; done';
    const server = await start(['sh', '-c', script, ready]);
    await until('the server is ready', () => existsSync(ready));
    assert.match((await server.stop()) ?? '', /^server sh exited with status 5 when it ended/);
  });

  it('takes the exit status of a shell that SIGTERM ended for what it is', async () => {
    const ready = place.join('shell');
    const script = 'trap "exit 143" TERM; : >"$0"; while :; do sleep 0.01; done';
    const server = await start(['sh', '-c', script, ready]);
    await until('the server is ready', () => existsSync(ready));
    assert.equal(await server.stop(), undefined);
  });

  it('has its end noticed', async () => {
    const server = await start(['sh', '-c', 'exit 3']);
    assert.deepEqual(await server.exited, { status: 3, signal: undefined });
    assert.deepEqual(server.exit, { status: 3, signal: undefined });
    assert.equal(await server.stop(), undefined, 'not told a second time');
    const killed = await start(['sh', '-c', 'kill -9 $$']);
    assert.deepEqual(await killed.exited, { status: undefined, signal: 'SIGKILL' });
  });

  it('refuses connections once it is dead', async () => {
    // Something is left of it, so that the socket is still there, but nobody listens.
    const server = await start(['sh', '-c', 'sleep 1000 3<&- & exit 0']);
    await server.exited;
    const refusal = (): boolean => {
      const fd = native.unixConnect(server.socketPath);
      if (fd >= 0) native.close(fd);
      return fd === -errno.ECONNREFUSED;
    };
    // The shell that becomes sleep has the socket for a moment more.
    await until('connections are refused', refusal);
  });

  describe('that cannot be started', () => {
    const refuses = async (command: string, message: RegExp): Promise<void> => {
      await assert.rejects(start([command]), (error) => {
        assert.ok(error instanceof CommandError, String(error));
        assert.match(error.message, message);
        return true;
      });
    };
    it('is named: not in PATH', () =>
      refuses('no-such-server', /^server command no-such-server was not found in PATH$/));
    it('is named with its package', async () => {
      await assert.rejects(
        start(['qemu-nbd'], { env: { PATH: place.join('run') } }),
        /server command qemu-nbd was not found in PATH; on Debian: apt install qemu-utils/,
      );
    });
    it('is named: no such file', () => refuses('./nothing', /\.\/nothing does not exist/));
    it('is named: a directory', () => refuses('/tmp', /\/tmp is a directory/));
    it('is named: not executable', async () => {
      const path = await place.file('plain', '');
      await chmod(path, 0o644);
      await refuses(path, /plain is not executable/);
    });
    it('is told of: the kernel refuses the arguments', async () => {
      await assert.rejects(
        start(['true', 'x'.repeat(4 << 20)]),
        /server true could not be started/,
      );
    });
  });

  describe('of a command that is killed', () => {
    // What the test kills must not be the runner of the test.
    const parent = (command: readonly string[]): string => `
      import { CaptiveServer } from ${JSON.stringify(pathToFileURL(new URL('../../src/cli/captive-server.js', import.meta.url).pathname).href)};
      await CaptiveServer.start(${JSON.stringify(command)}, { showOutput: false });
      setInterval(() => undefined, 1000);
    `;

    const killed = async (script: string): Promise<void> => {
      const ready = place.join(`ready-${Math.random()}`);
      const file = await place.file('parent.mjs', parent(['sh', '-c', script, ready]));
      const running = place.start(process.execPath, [file]);
      await until('the server is ready', () => existsSync(ready));
      process.kill(running.pid, 'SIGKILL');
      await running.ended;
      await place.nothingLeft();
    };

    it('dies too', () => killed(': >"$0"; exec sleep 1000'));
    it('dies with its children', () => killed('sleep 1000 & sleep 1000 & : >"$0"; wait'));
    it('dies, also when it does not heed SIGTERM', () =>
      killed('trap "" TERM; : >"$0"; while :; do sleep 1; done'));
    it('dies, also when its leader is gone', () => killed('sleep 1000 & : >"$0"'));
  });
});
