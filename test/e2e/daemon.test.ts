/** `--daemon`: a command that returns when the disk is mounted, and what lives on. */

import assert from 'node:assert/strict';
import { mkdir, readFile, readdir, readlink, symlink, truncate } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import type { Result } from '../support/mounts.js';
import { startTsnbdkit } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const MEMORY = ['[', 'tsnbdkit', 'memory', '4M', ']'];
/** A server that is never there. */
const LATE = ['[', 'sh', '-c', 'echo waiting >&2; exec sleep 60', ']'];

/** A command of the package, as its shell starts it. */
const isOfOurs = (command: string): boolean => /^node \S+ -- /.test(command);

/** Runs a command in a terminal of its own, and tells when nobody has the terminal open any more. */
const TERMINAL = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
said = b''
while True:
    try:
        part = os.read(terminal, 4096)
    except OSError:
        break
    if not part:
        break
    said += part
print('closed', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode().strip())
`;

describe(
  'a daemon',
  requires({ root: true, fuse: true, programs: ['fusermount3', 'python3', 'qemu-img'] }),
  () => {
    let place: Workplace;
    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
    });
    afterEach(() => place.finish());

    const daemon = (...args: string[]): Promise<Result> =>
      place.tsnbdfuse(['--daemon', '-P', 'pid', ...args]);
    const pid = async (): Promise<number> => Number(await readFile(place.join('pid'), 'utf8'));
    const size = (): Promise<string> => place.ok('stat', ['-c', '%s', 'disk.raw']);
    const unmount = (): Promise<string> => place.ok('fusermount3', ['-u', 'disk.raw']);

    for (const [name, words] of [
      ['as the first word', ['--daemon', '-P', 'pid', 'disk.raw', ...MEMORY]],
      ['anywhere', ['-P', 'pid', '--dae', 'disk.raw', ...MEMORY]],
    ] as const) {
      it(`returns once the disk is mounted, ${name}`, async () => {
        const { status, stdout, stderr } = await place.tsnbdfuse(words);
        assert.deepEqual([status, stdout, stderr], [0, '', '']);
        assert.equal(await size(), '4194304\n');
        await unmount();
      });
    }

    it('has left all that is its user\u2019s', async () => {
      assert.equal((await daemon('disk.raw', ...MEMORY)).status, 0);
      const it = await pid();
      const stat = (await readFile(`/proc/${it}/stat`, 'latin1')).split(' ');
      // Session and terminal.
      assert.deepEqual([stat[5], stat[6]], [String(it), '0']);
      assert.equal(await readlink(`/proc/${it}/cwd`), '/');
      const links = await Promise.all([0, 1, 2].map((fd) => readlink(`/proc/${it}/fd/${fd}`)));
      assert.deepEqual(links, ['/dev/null', '/dev/null', '/dev/null']);
      const environment = await readFile(`/proc/${it}/environ`, 'latin1');
      assert.match(environment, /TSNBDFUSE_DAEMON=\d/, 'by that it was started');
      for (const [other, command] of await place.processes()) {
        if (!isOfOurs(command) || other === it) continue;
        const inherited = await readFile(`/proc/${other}/environ`, 'latin1');
        assert.ok(!inherited.includes('TSNBDFUSE_DAEMON'), command);
      }
      await unmount();
    });

    for (const server of [MEMORY, ['[', 'tsnbdkit', '-v', 'memory', '4M', ']']]) {
      it(`holds no pipe of its user: ${server.join(' ')}`, async () => {
        // It ends when all have closed the pipe.
        const script = `"$@" 2>&1 | cat; stat -c %s disk.raw`;
        const words = ['-c', script, 'sh', TSNBDFUSE, '-v', '--daemon', 'disk.raw', ...server];
        const { stdout } = await place.run('sh', words);
        assert.match(stdout, /4194304\n$/);
        await unmount();
      });
    }

    for (const options of [[], ['--stats']]) {
      const words = ['--daemon', '-P', 'pid', ...options];
      it(`holds no terminal of its user, and outlives it: ${words.join(' ')}`, async () => {
        const command = [TSNBDFUSE, ...words, 'disk.raw', ...MEMORY];
        const { stdout } = await place.run('python3', ['-c', TERMINAL, ...command]);
        assert.equal(stdout, 'closed 0 \n');
        assert.equal(await size(), '4194304\n');
        await unmount();
      });
    }

    for (const [what, words, status, message] of [
      [
        'a server that fails, with what it said',
        ['disk.raw', '[', 'sh', '-c', 'echo "no image" >&2; exit 3', ']'],
        4,
        /^no image\ntsnbdfuse: server sh exited with status 3 before it served the disk\n$/,
      ],
      [
        'nobody who listens',
        ['disk.raw', 'nbd+unix:///?socket=nobody'],
        4,
        /^tsnbdfuse: .*nobody.*no such file or directory\n$/,
      ],
      ['no mountpoint', ['nowhere/disk.raw', ...MEMORY], 3, /^tsnbdfuse: .*nowhere/],
      ['a log that cannot be', ['--log', 'no/log', 'disk.raw', ...MEMORY], 1, /the log no\/log/],
      ['a mistake', ['--frob', 'disk.raw'], 2, /^tsnbdfuse: .*--frob.*\nusage: /],
    ] as const) {
      it(`fails with the error and the status of the command: ${what}`, async () => {
        const result = await daemon(...words);
        assert.equal(result.status, status, result.stderr);
        assert.match(result.stderr, message);
        assert.equal(result.stdout, '');
      });
    }

    for (const [what, log, at, source, message] of [
      [
        'the image',
        'image.raw',
        'disk.raw',
        ['image.raw'],
        /it is a file of the image image\.raw$/,
      ],
      ['a link to it', 'link', 'disk.raw', ['image.raw'], /it is a file of the image image\.raw$/],
      [
        'what is below it',
        'base.raw',
        'disk.raw',
        ['--backing', 'over.qcow2'],
        /of the image over/,
      ],
      [
        'the mountpoint',
        'disk.raw',
        'disk.raw',
        MEMORY,
        /disk\.raw is mounted on, and would hide it$/,
      ],
      ['a file in it', 'dir/log', 'dir', MEMORY, /dir is mounted on, and would hide it$/],
    ] as const) {
      it(`writes its log to nothing that is more than that: ${what}`, async () => {
        await place.file('image.raw', 'a'.repeat(4096));
        await place.file('base.raw', 'b'.repeat(4096));
        const over = 'create -q -f qcow2 -b base.raw -F raw over.qcow2'.split(' ');
        await place.ok('qemu-img', over);
        await symlink('image.raw', place.join('link'));
        await mkdir(place.join('dir'));
        await place.file('dir/log', 'earlier\n');
        const before = await readFile(place.join(log));
        const { status, stderr } = await daemon('--stats', '--log', log, at, ...source);
        assert.equal(status, 1, stderr);
        assert.match(stderr.trimEnd(), message);
        assert.match(stderr, /^tsnbdfuse: cannot write the log [^\n]+\n$/);
        assert.deepEqual(await readFile(place.join(log)), before);
      });
    }

    it('prints what was asked for', async () => {
      for (const words of [
        ['--daemon', '-V'],
        ['-V', '--daemon'],
      ]) {
        const { status, stdout, stderr } = await place.tsnbdfuse(words);
        assert.deepEqual([status, stderr], [0, '']);
        assert.match(stdout, /^tsnbdfuse \d/);
      }
    });

    it('keeps the meaning of relative names', async () => {
      await mkdir(place.join('dir'));
      await place.file('dir/image', 'content');
      await truncate(place.join('dir/image'), 1 << 20);
      const words = ['--restart-server', '../disk.raw', '[', 'tsnbdkit', 'file', 'image', ']'];
      const options = { cwd: place.join('dir') };
      const args = ['--daemon', '-P', '../pid', '--log', 'log', ...words];
      const result = await place.tsnbdfuse(args, options);
      assert.equal(result.status, 0, result.stderr);
      assert.equal(await place.ok('head', ['-c', '7', 'disk.raw']), 'content');
      // The server finds its image again.
      const server = [...(await place.processes())].find(([, command]) =>
        /^node \S+ -- \S*tsnbdkit file image$/.test(command),
      );
      process.kill(server?.[0] ?? 0, 'SIGKILL');
      const direct = ['if=disk.raw', 'bs=4096', 'count=1', 'iflag=direct', 'status=none'];
      assert.match(await place.ok('dd', direct), /^content/);
      assert.match(await readFile(place.join('dir/log'), 'utf8'), /^tsnbdfuse: .*restored/m);
      process.kill(await pid(), 'SIGTERM');
      await until('it has ended', async () => (await place.processes()).size === 0);
      assert.ok(!(await readdir(place.path)).includes('pid'));
    });

    it('tells later in its log what happens', async () => {
      await place.file('log', 'earlier\n');
      const server = await startTsnbdkit(['memory', '4M']);
      try {
        const uri = `nbd+unix:///?socket=${server.socketPath}`;
        const { status } = await daemon('--log', 'log', '--reconnect', '0', 'disk.raw', uri);
        assert.equal(status, 0);
        await server.kill();
        const log = (): Promise<string> => readFile(place.join('log'), 'utf8');
        await until('it is told', async () => (await log()).includes('I/O errors'));
        assert.match(await log(), /^earlier\ntsnbdfuse: nbd\+unix:.*now gives I\/O errors.*\n$/);
        await unmount();
      } finally {
        await server.stop();
      }
    });

    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const) {
      it(`ends with its caller when that gets ${signal} before it is mounted`, async () => {
        const running = place.start(TSNBDFUSE, [
          ...['--daemon', '-P', 'pid', '--connect-timeout', '60', 'disk.raw'],
          ...LATE,
        ]);
        await until('the server waits', () => running.stderr.includes('waiting'));
        process.kill(running.pid, signal);
        assert.equal((await running.ended).signal, signal);
        await place.nothingLeft();
        assert.deepEqual((await readdir(place.path)).sort(), ['disk.raw', 'run']);
      });
    }

    it('fails when it is ended itself before it is mounted', async () => {
      const words = ['--daemon', '--connect-timeout', '60', 'disk.raw', ...LATE];
      const running = place.start(TSNBDFUSE, words);
      await until('the server waits', () => running.stderr.includes('waiting'));
      const processes = [...(await place.processes())];
      const child = processes.find(([it, command]) => it !== running.pid && isOfOurs(command));
      process.kill(child?.[0] ?? 0, 'SIGTERM');
      const { status, stderr } = await running.ended;
      assert.equal(status, 143);
      assert.match(stderr, /stopped by SIGTERM before the disk was mounted\n$/);
    });
  },
);
