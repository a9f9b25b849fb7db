/** `--ready-fd`, and the protocol of a service manager. */

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { closeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { Reply } from '../../src/disk/disk.js';
import { errno } from '../../src/errno.js';
import { native } from '../../src/native.js';
import { Listener } from '../../src/server/listen.js';
import { serve } from '../../src/server/server.js';
import { Datagrams } from '../support/datagrams.js';
import { MemoryDisk } from '../support/memory-disk.js';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import { startTsnbdkit } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const MEMORY = ['[', 'tsnbdkit', 'memory', '4M', ']'];

/** With the most that the end may take: five times --timeout, of 30 s, and 24 s beside. */
const STOPPING =
  'STOPPING=1\nSTATUS=disk.raw is unmounted; what is left is written\nEXTEND_TIMEOUT_USEC=174000000';

/** Refuses to flush what is written, so that there is something left for the last flush, and keeps that waiting. */
class SlowDisk extends MemoryDisk {
  flushes: 'never' | 'later' | 'at once' = 'never';
  readonly #waiting: Reply[] = [];

  override flush(reply: Reply): void {
    if (this.flushes === 'never') reply.done(errno.EIO);
    else if (this.flushes === 'later') this.#waiting.push(reply);
    else super.flush(reply);
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  letGo(): void {
    this.flushes = 'at once';
    for (const reply of this.#waiting.splice(0)) super.flush(reply);
  }
}

/** A socket that nobody reads, until something is said. */
const BUSY_MANAGER = `
import socket, sys
theirs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
theirs.bind(sys.argv[1])
ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
ours.setblocking(False)
try:
    while True:
        ours.sendto(b'x', sys.argv[1])
except BlockingIOError:
    print('full', flush=True)
input()
`;

/** A stream of which the other end is for somebody else. */
class Stream {
  text = '';
  hasEnded = false;
  readonly theirs: number;

  constructor() {
    const ends = new Int32Array(2);
    assert.equal(native.socketpair(ends), 0);
    const [ours = -1, theirs = -1] = ends;
    this.theirs = theirs;
    new Socket({ fd: ours, readable: true, writable: false })
      .setEncoding('utf8')
      .on('data', (text: string) => (this.text += text))
      .on('end', () => (this.hasEnded = true))
      .on('error', () => (this.hasEnded = true));
  }

  /** Once it was given to somebody. */
  given(): void {
    closeSync(this.theirs);
  }
}

describe(
  'readiness',
  requires({ root: true, fuse: true, programs: ['fusermount3', 'python3'] }),
  () => {
    let place: Workplace;
    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
    });
    afterEach(() => place.finish());

    for (const options of [[], ['--daemon'], ['-P', 'pid', '--daemon']]) {
      it(`is a newline on --ready-fd, which is closed then: ${options.join(' ')}`, async () => {
        const stream = new Stream();
        const words = [...options, '--ready-fd', '3', 'disk.raw', ...MEMORY];
        const running = place.start(TSNBDFUSE, words, { descriptors: [stream.theirs] });
        stream.given();
        // The server lives, and does not hold it.
        await until('it is closed', () => stream.hasEnded);
        assert.equal(stream.text, '\n');
        assert.equal(await place.ok('stat', ['-c', '%s', 'disk.raw']), '4194304\n');
        await place.ok('fusermount3', ['-u', 'disk.raw']);
        assert.equal((await running.ended).status, 0);
      });
    }

    it('does not come where nothing is mounted', async () => {
      const stream = new Stream();
      const words = ['--ready-fd', '3', 'disk.raw', '[', 'false', ']'];
      const running = place.start(TSNBDFUSE, words, { descriptors: [stream.theirs] });
      stream.given();
      assert.equal((await running.ended).status, 4);
      await until('it is closed', () => stream.hasEnded);
      assert.equal(stream.text, '');
    });

    it('goes to a pipe whose reader is gone, and the mount stays', async () => {
      const script = `"$@" 9>&1 >/dev/null | :`;
      const words = ['-c', script, 'sh', TSNBDFUSE, '--ready-fd', '9', '-P', 'pid', 'disk.raw'];
      const running = place.start('sh', [...words, ...MEMORY]);
      await until('it is mounted', async () => (await place.mounts()).length > 0);
      await until('it is told', () => running.stderr.includes('\n'));
      assert.equal(running.stderr, 'tsnbdfuse: --ready-fd 9: broken pipe\n');
      await place.ok('fusermount3', ['-u', 'disk.raw']);
      await running.ended;
    });

    for (const [what, script] of [
      ['is not open', '"$@"'],
      ['is open for reading only', '"$@" 9</dev/null'],
      ['is a directory', '"$@" 9<.'],
    ] as const) {
      it(`is refused where the descriptor ${what}`, async () => {
        const words = ['-c', script, 'sh', TSNBDFUSE, '--ready-fd', '9', 'disk.raw', ...MEMORY];
        const { status, stderr } = await place.run('sh', words);
        assert.equal(status, 1);
        assert.match(stderr, /^tsnbdfuse: --ready-fd 9: it is not open.*inherit\n$/);
      });
    }

    it('is not told on a descriptor of Node', async () => {
      for (let fd = 3; fd < 24; fd++) {
        const args = ['--ready-fd', String(fd), 'disk.raw', '[', 'false', ']'];
        const { stderr } = await place.tsnbdfuse(args);
        assert.match(stderr, new RegExp(`^tsnbdfuse: --ready-fd ${fd}: it is not open`));
      }
    });

    for (const [kind, name] of [
      ['a path', () => place.join('notify')],
      ['an abstract name', () => `@tsnbdfuse-${randomUUID()}`],
    ] as const) {
      it(`is told to a service manager at ${kind}, with all that follows`, async () => {
        const socket = name();
        const manager = await Datagrams.receive(place, socket);
        const server = await startTsnbdkit(['memory', '4M']);
        try {
          const uri = `nbd+unix:///?socket=${server.socketPath}`;
          const running = place.start(TSNBDFUSE, ['-P', 'pid', 'disk.raw', uri], {
            env: { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '200000' },
          });
          await manager.until('it is ready', (message) => message.startsWith('READY=1\n'));
          const well = `STATUS=${uri} is shown as disk.raw`;
          assert.ok(manager.all.includes(`READY=1\n${well}`));
          await manager.until('it lives', (message) => message === 'WATCHDOG=1');

          await server.kill();
          const lost = `STATUS=${uri} is lost, and waited for`;
          await manager.until('it is lost', (message) => message === lost);
          const again = await server.again();
          try {
            await manager.until('it is back', (message) => message === well);
            await place.ok('fusermount3', ['-u', 'disk.raw']);
            assert.equal((await running.ended).status, 0);
          } finally {
            await again.stop();
          }
          await manager.until('it is over', (message) => message === STOPPING);
          const events = manager.all.filter((message) => message !== 'WATCHDOG=1');
          assert.deepEqual(events, [`READY=1\n${well}`, lost, well, STOPPING]);
        } finally {
          await server.stop();
          await manager.close();
        }
      });
    }

    for (const [what, option, expected] of [
      ['how long that may take', '--timeout=30', STOPPING],
      ['no time where there is none', '--timeout=0', STOPPING.replace(/\nEXTEND.*/, '')],
    ] as const) {
      it(`is over for a service manager before the last flush, with ${what}`, async () => {
        const socket = place.join('notify');
        const manager = await Datagrams.receive(place, socket);
        const disk = new SlowDisk({ size: 4 * 1024 * 1024 });
        const listener = Listener.unix(place.join('socket'));
        const server = serve(disk, [listener], {});
        try {
          const uri = `nbd+unix:///?socket=${place.join('socket')}`;
          const mounted = await place.mount([option, 'disk.raw', uri], {
            env: { NOTIFY_SOCKET: socket },
          });
          const write = ['if=/dev/zero', 'of=disk.raw', 'count=1', 'conv=notrunc'];
          assert.match((await place.run('dd', write)).stderr, /Input\/output error/);
          disk.flushes = 'later';
          // A signal may find the mount busy: it has ended when it is gone, and not before.
          const holder = place.start('sh', ['-c', 'exec 3<disk.raw; echo held; read -r line'], {
            talk: true,
          });
          await until('it is held open', () => holder.stdout.includes('held'));
          mounted.signal('SIGTERM');
          await until('it is busy', () => mounted.running.stderr.includes('is busy'));
          assert.ok(!manager.all.some((message) => message.startsWith('STOPPING')));
          holder.tell('\n');
          await until('it is unmounted', async () => {
            await place.run('fusermount3', ['-u', '-q', 'disk.raw']);
            return (await place.mounts()).length === 0;
          });
          await manager.until('the end has begun', (message) => message === expected);
          await until('it flushes', () => disk.waiting > 0);
          assert.equal(mounted.running.hasEnded, false);
          disk.letGo();
          assert.equal((await mounted.running.ended).status, 0);
          await holder.ended;
          assert.equal(manager.all.filter((message) => message.startsWith('STOPPING')).length, 1);
        } finally {
          disk.letGo();
          await server.close();
          listener.close();
          await manager.close();
        }
      });
    }

    it('is told with the process that is to be watched, where that is another one', async () => {
      const socket = place.join('notify');
      const manager = await Datagrams.receive(place, socket);
      try {
        const words = ['--daemon', '-P', 'pid', 'disk.raw', ...MEMORY];
        const env = { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '2000', WATCHDOG_PID: '1' };
        assert.equal((await place.tsnbdfuse(words, { env })).status, 0);
        const pid = (await readFile(place.join('pid'), 'utf8')).trim();
        const expected = `READY=1\nSTATUS=server tsnbdkit is shown as disk.raw\nMAINPID=${pid}`;
        await manager.until('it is ready', (message) => message === expected);
        for (const [other, command] of await place.processes()) {
          if (other === Number(pid) || command.startsWith('python3')) continue;
          const environment = await readFile(`/proc/${other}/environ`, 'latin1');
          assert.ok(!/NOTIFY_SOCKET|WATCHDOG/.test(environment), command);
        }
        await place.ok('fusermount3', ['-u', 'disk.raw']);
        await manager.until('it is over', (message) => message === STOPPING);
        assert.ok(!manager.all.includes('WATCHDOG=1'), 'the watchdog is for another process');
      } finally {
        await manager.close();
      }
    });

    it('does not come where the caller is gone by the time that a service manager can be told', async () => {
      const manager = place.start('python3', ['-c', BUSY_MANAGER, 'notify'], { talk: true });
      await until('its queue is full', () => manager.stdout.includes('full'));
      const stream = new Stream();
      const words = ['--daemon', '--ready-fd', '3', 'disk.raw', ...MEMORY];
      const running = place.start(TSNBDFUSE, words, {
        descriptors: [stream.theirs],
        env: { NOTIFY_SOCKET: place.join('notify') },
      });
      stream.given();
      await until('it is mounted', async () => (await place.mounts()).length > 0);
      process.kill(running.pid, 'SIGINT');
      await running.ended;
      await until('it is closed', () => stream.hasEnded);
      assert.equal(stream.text, '');
      manager.tell('\n');
      await manager.ended;
    });

    it('is no reason to fail where the service manager is not there', async () => {
      for (const [socket, message] of [
        [place.join('nobody'), 'the service manager could not be told: no such file or directory'],
        ['vsock:2:1', 'NOTIFY_SOCKET=vsock:2:1: address family not supported'],
      ] as const) {
        const mounted = await place.mount(['disk.raw', ...MEMORY], {
          env: { NOTIFY_SOCKET: socket },
        });
        const { status, stderr } = await mounted.unmount('disk.raw');
        assert.deepEqual([status, stderr], [0, `tsnbdfuse: ${message}\n`]);
      }
    });

    it('ends a mount that a signal was for, and tells nobody that it is there', async () => {
      const stream = new Stream();
      const words = ['--ready-fd', '3', '--connect-timeout', '60', 'disk.raw'];
      const server = ['[', 'sh', '-c', 'echo waiting >&2; exec sleep 60', ']'];
      const running = place.start(TSNBDFUSE, [...words, ...server], {
        descriptors: [stream.theirs],
      });
      stream.given();
      await until('the server waits', () => running.stderr.includes('waiting'));
      process.kill(running.pid, 'SIGTERM');
      assert.equal((await running.ended).status, 143);
      await until('it is closed', () => stream.hasEnded);
      assert.equal(stream.text, '');
    });
  },
);
