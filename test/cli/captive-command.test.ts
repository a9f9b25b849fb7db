import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { CommandServer } from '../../src/cli/captive-command.js';
import { CommandError } from '../../src/cli/errors.js';
import { errno } from '../../src/errno.js';
import { native } from '../../src/native.js';
import { Workplace, until } from '../support/mounts.js';

describe('a captive server on its standard input and output', () => {
  let place: Workplace;
  const servers: CommandServer[] = [];

  before(async () => {
    place = await Workplace.create();
  });
  after(() => place.remove());
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.stop();
    await place.nothingLeft();
  });

  const start = async (
    script: string,
    word = '',
    options: { env?: NodeJS.ProcessEnv; endDeadline?: number } = {},
  ): Promise<CommandServer> => {
    const server = await CommandServer.start(['sh', '-c', script, word], {
      showOutput: false,
      ...options,
      env: { ...place.env, ...options.env },
    });
    servers.push(server);
    return server;
  };

  /** Takes the socket. */
  const socketOf = (server: CommandServer): number => {
    const address = server.takeAddress();
    assert.equal(address.kind, 'socket');
    return address.fd;
  };

  it('has one socket for both, and nothing else of ours', async () => {
    const report = place.join('report');
    const script = `
      list=$(ls -l /proc/$$/fd)
      { echo "$list"; env; } > "$0.new"; mv "$0.new" "$0"
      read -r word; echo "got $word"`;
    // Left over from whoever started us.
    const server = await start(script, report, { env: { LISTEN_PID: '1', LISTEN_FDS: '7' } });
    const fd = socketOf(server);
    await until('the server has written its report', () => existsSync(report));
    const text = await readFile(report, 'utf8');
    const links = [...text.matchAll(/ (\d+) -> (\S+)/g)].map(([, number, to]) => [number, to]);
    const socket = links.find(([number]) => number === '0')?.[1] ?? '';
    assert.match(socket, /^socket:/);
    assert.equal(links.find(([number]) => number === '1')?.[1], socket);
    assert.deepEqual(
      links.filter(([number, to]) => Number(number) > 2 && to?.startsWith('socket:')),
      [],
      'the line to the guardian is closed',
    );
    assert.doesNotMatch(text, /^LISTEN_/m);

    assert.equal(native.write(fd, Buffer.from('hello\n'), 0, 6), 6);
    const reply = Buffer.alloc(10);
    let count = -errno.EAGAIN;
    await until('it answers', () => (count = native.read(fd, reply, 0, 10)) !== -errno.EAGAIN);
    assert.equal(reply.subarray(0, count).toString(), 'got hello\n');
    native.close(fd);
  });

  it('sees the end of the connection, and may end by itself', async () => {
    const done = place.join('done');
    const server = await start('trap "" TERM; cat >/dev/null; : >"$0"', done);
    native.close(socketOf(server));
    assert.equal(await server.stop(), undefined);
    assert.ok(existsSync(done));
  });

  it('is hung up when nobody took the connection', async () => {
    const server = await start('cat >/dev/null; exit 0');
    assert.equal(await server.stop(), undefined);
    assert.throws(() => server.takeAddress(), /made before/);
  });

  it('is for one connection', async () => {
    const server = await start('cat >/dev/null');
    native.close(socketOf(server));
    assert.throws(() => server.takeAddress(), /made before/);
    assert.equal(server.mostConnections, 1);
  });

  it('lets us see its end', async () => {
    const server = await start('exit 3');
    const fd = socketOf(server);
    assert.deepEqual(await server.exited, { status: 3, signal: undefined });
    assert.equal(native.read(fd, Buffer.alloc(1), 0, 1), 0, 'the end of the stream');
    native.close(fd);
  });

  it('is killed when it does not end, which is told', async () => {
    const ready = place.join('stubborn');
    const script = 'trap "" TERM; : >"$0"; while :; do sleep 1; done';
    const server = await start(script, ready, { endDeadline: 100 });
    await until('the server is ready', () => existsSync(ready));
    native.close(socketOf(server));
    assert.equal(await server.stop(), 'server sh did not end within 0.1 s and was killed');
  });

  it('is ended when it went into the background', async () => {
    const ready = place.join('background');
    const server = await start('setsid sh -c \': >"$0"; exec sleep 1000\' "$0" & exit 0', ready);
    await until('it has gone there', () => existsSync(ready));
    await server.exited;
    assert.equal(await server.stop(), undefined);
    assert.deepEqual([...(await place.processes()).values()], []);
  });

  it('is named when it cannot be started', async () => {
    const starting = CommandServer.start(['no-such-server'], { showOutput: false });
    await assert.rejects(starting, (error) => {
      assert.ok(error instanceof CommandError);
      assert.match(error.message, /^server command no-such-server was not found in PATH$/);
      return true;
    });
  });

  it('dies with the command that started it, whatever it heeds', async () => {
    const ready = place.join('ready');
    const module = pathToFileURL(
      new URL('../../src/cli/captive-command.js', import.meta.url).pathname,
    ).href;
    const script = 'trap "" TERM; : >"$0"; while :; do sleep 1; done';
    const file = await place.file(
      'parent.mjs',
      `import { CommandServer } from ${JSON.stringify(module)};
      await CommandServer.start(${JSON.stringify(['sh', '-c', script, ready])}, { showOutput: false });
      setInterval(() => undefined, 1000);`,
    );
    // What the test kills must not be the runner of the test.
    const running = place.start(process.execPath, [file]);
    await until('the server is ready', () => existsSync(ready));
    process.kill(running.pid, 'SIGKILL');
    await running.ended;
    await place.nothingLeft();
  });
});
