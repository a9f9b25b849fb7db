/** Servers that are reached through ssh, with programs of that name that stand in for it. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import { HandshakeError } from '../../src/nbd/errors.js';
import type { SshAddress } from '../../src/nbd/export.js';
import { openTransport } from '../../src/nbd/dial.js';
import { openExport } from '../../src/nbd/open.js';
import { sshArguments } from '../../src/nbd/ssh.js';
import { hex } from '../support/fake-transport.js';
import { DEADLINE, until } from '../support/mounts.js';

const TIMED = { timeout: DEADLINE };

const ADDRESS: SshAddress = {
  kind: 'ssh',
  host: 'far',
  user: undefined,
  port: undefined,
  compress: false,
  remote: { kind: 'tcp', host: 'localhost', port: 10809 },
};

/** An export of 1 MiB, in the form that asks for no answer. */
const OLDSTYLE = Buffer.concat([
  hex(`'NBDMAGIC' 0000420281861253 0000000000100000 00000001`),
  Buffer.alloc(124),
]);

const PATH = process.env['PATH'];
let folder = '';

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
});
after(() => rm(folder, { recursive: true }));
beforeEach(() => {
  process.env['PATH'] = `${folder}:${PATH ?? ''}`;
});
afterEach(() => {
  process.env['PATH'] = PATH;
});

/** Puts a script in the place of a program; it tells its process id, and keeps its arguments. */
async function program(name: string, script: string): Promise<void> {
  const file = join(folder, name);
  const notes = `echo $$ > '${file}.pid'; printf '%s\\n' "$@" > '${file}.words'\n`;
  await rm(`${file}.pid`, { force: true });
  await writeFile(file, `#!/bin/sh\n${notes}${script}\n`);
  await chmod(file, 0o755);
}

const wordsOf = (name: string): string[] =>
  readFileSync(join(folder, `${name}.words`), 'utf8')
    .trimEnd()
    .split('\n');

/** The process id, once the script has started. */
async function started(name: string): Promise<number> {
  const file = join(folder, `${name}.pid`);
  await until(`${name} runs`, () => existsSync(file) && readFileSync(file, 'utf8').endsWith('\n'));
  return Number(readFileSync(file, 'utf8'));
}

/** No process has the number any more: it has ended, and was waited for. */
function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
}

async function failure(deadline = DEADLINE): Promise<string> {
  const error: unknown = await openExport({ address: ADDRESS, exportName: '' }, { deadline }).then(
    ({ transport }) => {
      transport.close();
      return assert.fail('it succeeded');
    },
    (problem: unknown) => problem,
  );
  assert.ok(error instanceof HandshakeError, String(error));
  return error.message;
}

describe('the command line of ssh', () => {
  it('is as short as it can be', () =>
    assert.deepEqual(sshArguments(ADDRESS), ['-T', '--', 'far', `nc 'localhost' 10809`]));

  it('has what the URI says', () =>
    assert.deepEqual(
      sshArguments({
        ...ADDRESS,
        user: 'me',
        port: 2222,
        compress: true,
        remote: { kind: 'unix', path: '/run/nbd.sock' },
      }),
      ['-T', '-C', '-p', '2222', '-l', 'me', '--', 'far', `nc -U '/run/nbd.sock'`],
    ));

  it('leads to nc and nowhere else, whatever the path is', () => {
    const nasty = fc.oneof(
      fc.string({ minLength: 1, maxLength: 40, unit: 'binary' }),
      fc.array(fc.constantFrom("'", '"', '$(id)', '`id`', '\\', '\n', ' ', ';', '-', '*', '~'), {
        minLength: 1,
        maxLength: 10,
      }),
    );
    fc.assert(
      fc.property(nasty, (parts) => {
        const path = typeof parts === 'string' ? parts : parts.join('');
        fc.pre(!path.includes('\0'));
        const command = sshArguments({ ...ADDRESS, remote: { kind: 'unix', path } }).at(-1);
        // As the shell on the far side takes it apart.
        const shell = `set -- ${command ?? ''}; printf '%s\\0' "$@"`;
        const { stdout, status } = spawnSync('/bin/sh', ['-c', shell], { encoding: 'utf8' });
        assert.equal(status, 0);
        const reached = path.startsWith('-') ? `./${path}` : path;
        assert.deepEqual(stdout.split('\0'), ['nc', '-U', reached, '']);
      }),
      { numRuns: 60 },
    );
  });
});

describe('a server through ssh', TIMED, () => {
  it('is spoken to over the standard input and output of ssh, which ends with it', async () => {
    // The far side: whatever is behind the host goes to a shell, which finds an nc.
    await program('ssh', 'while [ "$1" != -- ]; do shift; done; shift 2; exec sh -c "$*"');
    await program(
      'nc',
      `exec '${process.execPath}' -e '
        const peer = require("node:net").connect(process.argv[2]);
        process.stdin.pipe(peer).pipe(process.stdout);' -- "$@"`,
    );
    let heard = '';
    const server = createServer((peer) => {
      peer.on('data', (bytes: Buffer) => (heard += bytes.toString()));
      peer.on('error', () => undefined);
      peer.write(OLDSTYLE);
    });
    const path = join(folder, "the server's socket");
    server.listen(path);
    try {
      const { transport, negotiated } = await openExport(
        { address: { ...ADDRESS, user: 'me', remote: { kind: 'unix', path } }, exportName: '' },
        { deadline: DEADLINE },
      );
      assert.equal(negotiated.size, 1n << 20n);
      assert.deepEqual(wordsOf('ssh').slice(0, 5), ['-T', '-l', 'me', '--', 'far']);
      assert.deepEqual(wordsOf('nc'), ['-U', path]);
      const last = Buffer.from('last words');
      transport.send(last, 0, last.length);
      transport.flush();
      transport.close();
      transport.close();
      await until('the last words are here', () => heard === 'last words');
      const pid = await started('ssh');
      await until('ssh has ended', () => isGone(pid));
    } finally {
      server.close();
    }
  });

  it('is not there', async () => {
    process.env['PATH'] = folder;
    await rm(join(folder, 'ssh'), { force: true });
    assert.equal(
      await failure(),
      'cannot connect to localhost:10809 on far: ssh was not found in PATH; on Debian: apt install openssh-client',
    );
  });

  it('that lets nobody in', async () => {
    await program('ssh', 'exit 255');
    assert.match(
      await failure(),
      /^NBD server at localhost:10809 on far: it closed the connection before it said anything$/,
    );
  });

  it('that says nothing is ended, where it does not end by itself', async () => {
    for (const script of ['exec sleep 1000', 'trap "" TERM; while :; do sleep 1; done']) {
      await program('ssh', script);
      assert.match(await failure(500), /no answer within 0\.5 s/);
      const pid = await started('ssh');
      await until('ssh has ended', () => isGone(pid));
    }
  });

  it('goes on when the terminal is asked to interrupt it, and ends when it is told to', async () => {
    await program('ssh', 'exec cat');
    const transport = await openTransport(ADDRESS, DEADLINE);
    const pid = await started('ssh');
    for (const signal of ['SIGINT', 'SIGHUP', 'SIGQUIT'] as const) process.kill(pid, signal);
    const answer = Buffer.alloc(5);
    const answered = new Promise<number>((resolve) => {
      transport.open({
        readable: () => {
          transport.pause();
          resolve(transport.receive(answer, 0, answer.length));
        },
        sendFailed: (code) => resolve(-code),
        drained: () => undefined,
      });
    });
    transport.send(Buffer.from('hello'), 0, 5);
    assert.equal(await answered, 5);
    assert.equal(answer.toString(), 'hello');
    transport.close();
    await until('ssh has ended', () => isGone(pid));
  });
});
