/**
 * What bad input gets: one line that names the thing and the cause, an exit status, and nothing left
 * mounted, running or lying about.
 */

import assert from 'node:assert/strict';
import { chmod, readFile, symlink } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { dirname } from 'node:path';
import { TSNBDFUSE, TSNBDKIT, Workplace, until } from '../support/mounts.js';
import type { Result, RunOptions } from '../support/mounts.js';
import { requires } from '../support/requires.js';

let place: Workplace;

before(async () => {
  place = await Workplace.create();
  await place.file('disk.raw');
});
after(() => place.remove());
afterEach(() => place.nothingLeft());

/** The lines that the command said itself; those of a server stand beside them. */
function ownLines(result: Result): string[] {
  return result.stderr.split('\n').filter((line) => line.startsWith('tsnbdfuse: '));
}

/** Runs the command, which has to fail with one line. */
async function fails(
  status: number,
  args: readonly string[],
  message: RegExp,
  options: RunOptions = {},
): Promise<Result> {
  const result = await place.tsnbdfuse(args, options);
  assert.equal(result.status, status, result.stderr);
  const lines = ownLines(result);
  assert.equal(lines.length, 1, result.stderr);
  assert.match(lines[0] ?? '', message);
  assert.equal(result.stdout, '');
  return result;
}

/** The same, where nothing else stands on standard error. */
async function failsAlone(
  status: number,
  args: readonly string[],
  message: RegExp,
  options: RunOptions = {},
): Promise<void> {
  const result = await fails(status, args, message, options);
  assert.equal(result.stderr.trimEnd().split('\n').length, 1, result.stderr);
}

describe('a command line that cannot be understood', () => {
  for (const [name, args, message] of [
    ['nothing', [], /^tsnbdfuse: the mountpoint is missing/],
    ['[ without ]', ['disk.raw', '[', 'tsnbdkit', 'memory', '1M'], /^tsnbdfuse: \[ without \]/],
    [
      'an unknown option',
      ['--nonsense', 'disk.raw', '[', 'true', ']'],
      /unknown option '--nonsense'/,
    ],
    ['an unknown mode', ['--cache=maybe', 'disk.raw', '[', 'true', ']'], /'maybe' is invalid/],
    [
      'a command without its brackets',
      ['disk.raw', 'qemu-nbd', 'disk.qcow2'],
      /disk\.qcow2: nothing can follow the image qemu-nbd; .* as \[ qemu-nbd disk\.qcow2 \]/,
    ],
  ] as const) {
    it(`exits with 2, after the usage: ${name}`, async () => {
      const result = await place.tsnbdfuse(args);
      assert.equal(result.status, 2);
      const [first = '', ...usage] = result.stderr.split('\n');
      assert.match(first, message);
      assert.match(
        usage.join('\n'),
        /^usage: tsnbdfuse \[options\] MOUNTPOINT \[ CMD ARGS\.\.\. \]\n/,
      );
    });
  }
});

describe('a mountpoint', () => {
  const server = ['[', 'tsnbdkit', 'memory', '1M', ']'];

  it('that is missing', () =>
    failsAlone(
      3,
      ['none.raw', ...server],
      /none\.raw does not exist; create it with: touch none\.raw$/,
    ));
  it('in a folder that is missing', () =>
    failsAlone(3, ['none/disk.raw', ...server], /directory of none\/disk\.raw does not exist/));
  it('that is a device', () =>
    failsAlone(3, ['/dev/null', ...server], /neither a regular file nor a directory/));
  it('that is a link to nothing', async () => {
    await symlink('nowhere', place.join('dangling'));
    await failsAlone(3, ['dangling', ...server], /dangling is a symbolic link to nothing/);
  });
  it('that is a mount of another file system', () =>
    failsAlone(3, ['/proc', ...server], /\/proc is already a mount \(proc/));

  it('that is a mount of ours', requires({ fuse: true }), async () => {
    const mounted = await place.mount(['disk.raw', ...server]);
    await fails(
      3,
      ['disk.raw', ...server],
      /disk\.raw is already a mount \(fuse\.tsnbdfuse, tsnbdkit\); unmount it first: .* disk\.raw$/,
    );
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
  });

  it('that is a mount whose server does not answer', requires({ fuse: true }), async () => {
    // A stopped process answers nothing: to look at its file would be to wait for ever.
    const mounted = await place.mount(['disk.raw', ...server]);
    mounted.signal('SIGSTOP');
    try {
      await fails(3, ['disk.raw', ...server], /disk\.raw is already a mount/);
    } finally {
      mounted.signal('SIGCONT');
    }
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
  });
});

describe('a server', () => {
  const quick = '--connect-timeout=0.5';

  it('that is not found', () =>
    failsAlone(
      4,
      ['disk.raw', '[', 'no-such-server', ']'],
      /server command no-such-server was not found in PATH/,
    ));
  it('that is not executable', () =>
    failsAlone(4, ['disk.raw', '[', '/etc/passwd', ']'], /\/etc\/passwd is not executable/));
  for (const [name, status] of [
    ['true', 0],
    ['false', 1],
    // It finds its standard input empty.
    ['cat', 0],
  ] as const) {
    it(`that exits at once: ${name}`, () =>
      failsAlone(
        4,
        ['disk.raw', '[', name, ']'],
        new RegExp(`server ${name} exited with status ${status} before it served the disk`),
      ));
  }
  it('that says why it exits', async () => {
    const script = 'echo "no such image" >&2; exit 3';
    const result = await fails(
      4,
      ['disk.raw', '[', 'sh', '-c', script, ']'],
      /server sh exited with status 3 before/,
    );
    assert.match(result.stderr, /^no such image$/m);
  });
  it('that is killed', () =>
    failsAlone(
      4,
      ['disk.raw', '[', 'sh', '-c', 'kill -9 $$', ']'],
      /server sh was killed by SIGKILL before/,
    ));
  it('that never listens', () =>
    failsAlone(
      4,
      [quick, 'disk.raw', '[', 'sleep', '1000', ']'],
      /server sleep: no answer within 0\.\d+ s/,
    ));
  it('that never listens and floods its output', () =>
    failsAlone(4, [quick, 'disk.raw', '[', 'yes', ']'], /server yes: no answer within 0\.\d+ s/));
  it('that never listens and has children', () =>
    failsAlone(
      4,
      [quick, 'disk.raw', '[', 'sh', '-c', 'sleep 1000 & sleep 1000 & wait', ']'],
      /server sh: no answer within 0\.\d+ s/,
    ));
  it('that leaves something behind when it exits', () =>
    failsAlone(
      4,
      ['disk.raw', '[', 'sh', '-c', 'sleep 1000 & exit 4', ']'],
      /exited with status 4/,
    ));

  const fake = async (behaviour: string): Promise<string[]> => {
    await place.file('package.json', '{"type":"module"}');
    const script = `#!/usr/bin/env node
import { createServer } from 'node:net';
createServer((socket) => { socket.on('error', () => undefined); ${behaviour} }).listen({ fd: 3 });
`;
    return ['[', await place.file('fake-server', script, 0o755), ']'];
  };
  it('that speaks something else', async () =>
    failsAlone(
      4,
      [
        'disk.raw',
        ...(await fake("socket.write('HTTP/1.1 400 Bad Request\\\\r\\\\n\\\\r\\\\n');")),
      ],
      /fake-server: .*NBD/,
    ));
  it('that hangs up', async () =>
    failsAlone(
      4,
      ['disk.raw', ...(await fake('socket.end();'))],
      /fake-server: .*closed the connection/,
    ));
  it('that greets and says no more', async () =>
    failsAlone(
      4,
      [quick, 'disk.raw', ...(await fake("socket.write('NBDMAGICIHAVEOPT\\\\0\\\\3');"))],
      /fake-server: no answer within 0\.\d+ s/,
    ));
  it('that exits in the middle of the handshake', async () =>
    failsAlone(
      4,
      ['disk.raw', ...(await fake("socket.write('NBDMAGIC', () => process.exit(7));"))],
      /fake-server exited with status 7 before it served the disk/,
    ));

  it('whose disk would have the size 0', async () => {
    const result = await fails(
      4,
      ['disk.raw', '[', 'tsnbdkit', 'memory', '0', ']'],
      /status 1 before/,
    );
    assert.match(result.stderr, /^tsnbdkit: .*size 0/m);
  });
  it('whose image is missing', requires({ programs: ['qemu-nbd'] }), async () => {
    const result = await fails(
      4,
      ['disk.raw', '[', 'qemu-nbd', '-f', 'qcow2', 'none.qcow2', ']'],
      /server qemu-nbd exited with status 1 before/,
    );
    assert.match(result.stderr, /none\.qcow2/);
  });
  it('whose plugin is missing', requires({ programs: ['nbdkit'] }), async () => {
    await fails(
      4,
      ['disk.raw', '[', 'nbdkit', 'no-such-plugin', ']'],
      /server nbdkit exited with status 1/,
    );
  });
  it('whose export has another name', requires({ programs: ['qemu-nbd'] }), async () => {
    await place.file('image', Buffer.alloc(1 << 20));
    await fails(
      5,
      ['disk.raw', '[', 'qemu-nbd', '-f', 'raw', '-x', 'other', 'image', ']'],
      /server qemu-nbd: .*export/,
    );
  });
});

describe('a URI', () => {
  for (const [uri, message] of [
    ['http://localhost/', /http: is not an NBD scheme/],
    ['nbd:', /nbd:/],
    ['nbd://host:port/', /port/],
    ['nbd://localhost/?nonsense=1', /nonsense/],
    ['nbd://localhost/?tls-type=psk', /tls-type= is for TLS; write nbds:/],
    ['nbd+unix:///', /socket= is missing/],
    ['nbd+unix:///?socket=', /socket= is empty/],
    ['nbds+unix:///?socket=none', /add tls-hostname=NAME/],
    ['nbd+ssh://-oProxyCommand=true/', /not one that ssh can be given/],
  ] as const) {
    it(`that cannot be understood exits with 2: ${uri}`, () =>
      failsAlone(2, ['disk.raw', uri], message));
  }

  for (const [uri, message] of [
    ['nbd+unix:///?socket=none', /none: no such file or directory/],
    ['nbd://127.0.0.1:1/', /127\.0\.0\.1:1: connection refused/],
  ] as const) {
    it(`that leads nowhere: ${uri}`, () => failsAlone(4, ['disk.raw', uri], message));
  }

  it('of an export that is unknown', async () => {
    const socket = place.join('server');
    const kit = place.start(TSNBDKIT, ['-U', socket, 'memory', '1M']);
    await until(
      'tsnbdkit listens',
      async () => (await place.run('test', ['-S', socket])).status === 0,
    );
    try {
      await fails(5, ['disk.raw', `nbd+unix:///no-such-export?socket=${socket}`], /no-such-export/);
    } finally {
      process.kill(kit.pid, 'SIGTERM');
      await kit.ended;
    }
  });
});

describe('other things', () => {
  const server = ['[', 'tsnbdkit', 'memory', '1M', ']'];

  it('a pidfile that cannot be written', () =>
    failsAlone(
      1,
      ['-P', 'none/pid', 'disk.raw', ...server],
      /cannot write the pidfile none\/pid: its directory does not exist/,
    ));

  it('a current directory that was removed', async () => {
    const script = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"';
    const words = ['-c', script, TSNBDFUSE, place.join('disk.raw'), ...server];
    const { status, stderr } = await place.run('sh', words);
    assert.equal(status, 1);
    // The shell that bin/tsnbdfuse begins with has a line of its own about it.
    const ours = stderr.split('\n').filter((line) => line.startsWith('tsnbdfuse: '));
    assert.equal(ours.length, 1, stderr);
    assert.match(
      stderr,
      /(^|getcwd[^\n]*\n)tsnbdfuse: the current directory does not exist any more; [^\n]*\n$/,
    );
  });

  it('too few descriptors', async () => {
    for (const most of [24, 28, 32, 36, 40]) {
      const script = `ulimit -n ${most}; exec "$0" "$@"`;
      const words = ['-c', script, TSNBDFUSE, 'disk.raw', ...server];
      const { status, stderr } = await place.run('sh', words);
      assert.equal(status, 1, stderr);
      assert.match(
        stderr,
        /^tsnbdfuse: too many open files[^\n]*; allow more with: ulimit -n 1024\n$/,
      );
    }
  });

  it('a standard output that takes nothing', async () => {
    for (const program of [TSNBDFUSE, TSNBDKIT]) {
      const { status, stderr } = await place.run('sh', ['-c', '"$0" --help >/dev/full', program]);
      assert.equal(status, 1);
      assert.match(stderr, /^\w+: cannot write to standard output: no space left on device\n$/);
    }
  });

  it('a pidfile that is another file', async () => {
    await place.file('image', 'precious');
    await place.ok('mkfifo', ['pipe']);
    for (const [pidfile, message] of [
      ['image', /the pidfile image: it exists and is no pidfile$/],
      ['pipe', /the pidfile pipe: it is not a regular file$/],
      ['disk.raw', /the pidfile disk\.raw: disk\.raw is mounted on, and would hide it$/],
    ] as const) {
      await failsAlone(1, ['-P', pidfile, 'disk.raw', ...server], message);
    }
    await failsAlone(
      1,
      ['-P', 'run/pid', 'run/x', ...server],
      /run is mounted on, and would hide it$/,
    );
    assert.equal(await readFile(place.join('image'), 'utf8'), 'precious');
    await place.ok('test', ['-p', 'pipe']);
  });

  it('a write to a read-only export', requires({ fuse: true }), async () => {
    const image = await place.file('image.ro', Buffer.alloc(1 << 20, 1));
    const mounted = await place.mount(['-r', 'disk.raw', '[', 'tsnbdkit', 'file', image, ']']);
    const write = await place.run('dd', ['if=/dev/zero', 'of=disk.raw', 'count=1', 'conv=notrunc']);
    assert.notEqual(write.status, 0);
    assert.match(write.stderr, /Read-only file system/);
    assert.deepEqual(await readFile(place.join('disk.raw')), Buffer.alloc(1 << 20, 1));
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
  });

  it('/dev/fuse is not there', requires({ root: true, programs: ['unshare'] }), async () => {
    const script = `mount -t tmpfs none /dev && exec ${TSNBDFUSE} disk.raw [ ${TSNBDKIT} memory 1M ]`;
    const result = await place.run('unshare', ['-m', 'sh', '-c', script]);
    assert.equal(result.status, 3, result.stderr);
    assert.match(result.stderr, /^tsnbdfuse: \/dev\/fuse does not exist; .*modprobe fuse.*\n$/);
  });

  describe('for a normal user', requires({ root: true, programs: ['setpriv', 'unshare'] }), () => {
    const user = '65534';
    /** The project may lie in a folder that others cannot enter: they are shown it elsewhere. */
    const asUser = (words: string, path = place.env['PATH'] ?? ''): Promise<Result> => {
      const project = dirname(dirname(TSNBDFUSE));
      const script = `
        mount -t tmpfs none /mnt && mkdir /mnt/project /mnt/work &&
        mount --bind ${project} /mnt/project && mount --bind ${place.path} /mnt/work &&
        cd /mnt/work && exec setpriv --reuid=${user} --regid=${user} --clear-groups \\
          env "PATH=$0" ${process.execPath} /mnt/project/bin/tsnbdfuse ${words}`;
      return place.run('unshare', ['-m', 'sh', '-c', script, path]);
    };

    before(() => chmod(place.path, 0o755));

    it('the mountpoint is not writable', async () => {
      const result = await asUser('disk.raw [ true ]');
      assert.equal(result.status, 3, result.stderr);
      assert.match(result.stderr, /^tsnbdfuse: disk\.raw is not writable.*\n$/);
    });

    it('fusermount3 is missing', async () => {
      await chmod(place.join('disk.raw'), 0o666);
      const result = await asUser('disk.raw [ true ]', '/none');
      assert.equal(result.status, 3, result.stderr);
      assert.match(
        result.stderr,
        /^tsnbdfuse: fusermount3 was not found in PATH.*apt install fuse3.*\n$/,
      );
    });
  });
});

describe('a server that dies while its disk is mounted', requires({ fuse: true }), () => {
  it('is told of once, and the file gives errors until it is unmounted', async () => {
    const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']']);
    const [pid] =
      [...(await place.processes())].find(([, words]) => words.endsWith('memory 1M')) ?? [];
    assert.ok(pid !== undefined);
    process.kill(pid, 'SIGKILL');
    await until('it is told', () => mounted.running.stderr.includes('\n'));
    assert.match(
      mounted.running.stderr,
      /^tsnbdfuse: server tsnbdkit was killed by SIGKILL; disk\.raw now gives I\/O errors: unmount it with: .* disk\.raw\n$/,
    );
    const read = await place.run('dd', ['if=disk.raw', 'iflag=direct', 'bs=4k', 'count=1']);
    assert.match(read.stderr, /Input\/output error/);
    const result = await mounted.unmount('disk.raw');
    assert.equal(result.status, 7);
    assert.equal(ownLines(result).length, 1, result.stderr);
  });
});

describe('a signal', requires({ fuse: true }), () => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    it(`unmounts: ${signal}`, async () => {
      const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1M', ']']);
      mounted.signal(signal);
      const result = await mounted.running.ended;
      assert.deepEqual([result.status, result.stderr], [0, '']);
    });
  }

  it('while the server is awaited ends everything', async () => {
    const running = place.start(TSNBDFUSE, ['disk.raw', '[', 'sleep', '1000', ']']);
    await until('the server is started', async () =>
      [...(await place.processes()).values()].includes('sleep 1000'),
    );
    process.kill(running.pid, 'SIGTERM');
    const result = await running.ended;
    assert.equal(result.status, 128 + 15);
    assert.equal(result.stderr, 'tsnbdfuse: stopped by SIGTERM before the disk was mounted\n');
  });

  it('does not take the file from who has it open; the second does', async () => {
    const image = await place.file('image', Buffer.alloc(1 << 20));
    const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'file', image, ']']);
    const script = 'exec 5<>disk.raw; printf hello >&5; : >ready; exec sleep 1000';
    const holder = place.start('sh', ['-c', script]);
    await until(
      'the file is open',
      async () => (await place.run('test', ['-e', 'ready'])).status === 0,
    );
    mounted.signal('SIGTERM');
    await until('it is told', () => mounted.running.stderr.includes('\n'));
    assert.match(
      mounted.running.stderr,
      /^tsnbdfuse: disk\.raw is busy, held by (sh|sleep) \(process \d+\); .*\n$/,
    );
    mounted.signal('SIGTERM');
    const result = await mounted.running.ended;
    assert.equal(result.status, 0, result.stderr);
    assert.match(
      result.stderr,
      /detached while it was open; what was written so far is on the disk/,
    );
    assert.equal((await readFile(image)).subarray(0, 5).toString(), 'hello');
    process.kill(holder.pid, 'SIGKILL');
    await holder.ended;
  });
});
