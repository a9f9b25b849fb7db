import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, copyFile, open, readFile, stat } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { native } from '../../src/native.js';
import { seeded } from '../support/memory-disk.js';
import { DEADLINE, TSNBDKIT, Workplace, until } from '../support/mounts.js';
import { findProgram, requires } from '../support/requires.js';
import { Kit, startKit } from '../support/server-kit.js';

let place: Workplace;
before(async () => {
  place = await Workplace.create();
});
afterEach(async () => {
  for (const pid of (await place.processes()).keys()) {
    try {
      process.kill(pid, 'SIGTERM');
    } catch {
      // It ended while the others were looked for.
    }
  }
  await place.nothingLeft();
});
after(() => place.remove());

const M = 1 << 20;

async function hashOf(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

/** A file with stretches of data among holes, of a size that is no multiple of 4096. */
async function sparseFile(name: string, size: number, seed: number): Promise<string> {
  const path = place.join(name);
  const random = seeded(seed);
  const file = await open(path, 'w');
  await file.truncate(size);
  for (let at = 0; at < size;) {
    at += Math.floor(random() * 2 * M);
    const length = Math.min(Math.floor(random() * random() * M), Math.max(0, size - at));
    const data = Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)));
    if (length > 0) await file.write(data, 0, length, at);
    at += length;
  }
  await file.close();
  return path;
}

describe('tsnbdkit: the command line', () => {
  const kit = (...args: string[]) => place.run(TSNBDKIT, args);

  it('prints version and help', async () => {
    assert.match((await kit('--version')).stdout, /^tsnbdkit \d+\.\d+\.\d+\n$/);
    const { status, stdout } = await kit('--help');
    assert.equal(status, 0);
    const lines = stdout.split('\n');
    assert.ok(lines.length <= 32, `${lines.length} lines`);
    assert.ok(lines.every((line) => line.length <= 80));
    for (const word of ['memory SIZE', 'file PATH', '--exportname']) {
      assert.ok(stdout.includes(word), word);
    }
  });

  const mistakes: readonly (readonly [string[], RegExp])[] = [
    [[], /the plugin is missing/],
    [['tape', '1G'], /no plugin tape; there are: memory, file/],
    [['memory'], /memory needs a SIZE/],
    [['file', 'a', 'b'], /b: file takes one argument/],
    [['--frob', 'memory', '1G'], /unknown option '--frob'/],
    [['-p', '65536', 'memory', '1G'], /65536/],
    [['-U', 's', '-p', '1', 'memory', '1G'], /--unix cannot be used with --port or --ipaddr/],
    [['-e', 'n'.repeat(4097), 'memory', '1G'], /at most 4096 bytes/],
  ];
  for (const [args, message] of mistakes) {
    it(`explains a mistake: ${args.join(' ').slice(0, 40)}`, async () => {
      const { status, stderr } = await kit(...args);
      assert.equal(status, 2);
      assert.match(stderr, message);
      assert.match(stderr, /^tsnbdkit: .*\nusage: tsnbdkit /);
    });
  }

  const failures: readonly (readonly [string[], RegExp])[] = [
    [['memory', '10X'], /10X is not a size/],
    [['memory', '0'], /size 0/],
    [['file', 'none'], /none does not exist/],
    [['file', '.'], /is a directory/],
    [['-U', 'none/socket', 'memory', '1G'], /cannot listen on socket none\/socket/],
    [['-i', 'localhost', 'memory', '1G'], /cannot listen on address localhost/],
    [['-P', 'none/pid', 'memory', '1G'], /cannot write the pidfile/],
    [['-P', '.', 'memory', '1G'], /the pidfile \.: it is a directory/],
  ];
  for (const [args, message] of failures) {
    it(`tells in a line what cannot be done: ${args.join(' ')}`, async () => {
      const { status, stderr } = await kit(...args);
      assert.equal(status, 1);
      assert.match(stderr, message);
      assert.match(stderr, /^tsnbdkit: [^\n]*\n$/);
    });
  }

  it('does not take the socket of another server away', async () => {
    const first = await Kit.start(place, ['memory', '1M']);
    const { status, stderr } = await kit('-U', first.socket, 'memory', '1M');
    assert.deepEqual([status, stderr.includes('address already in use')], [1, true]);
    assert.ok(existsSync(first.socket));
    await first.stop();
  });

  it('asks for -r where a file cannot be written', async () => {
    // A program that runs cannot be written, by root neither.
    const program = place.join('program');
    await copyFile(findProgram('sleep') ?? '', program);
    await chmod(program, 0o755);
    const running = place.start(program, ['60']);
    const { status, stderr } = await kit('-U', place.join('x.sock'), 'file', program);
    assert.equal(status, 1);
    assert.match(stderr, /program cannot be written \(ETXTBSY\); serve it read-only with -r/);
    const served = await Kit.start(place, ['-r', 'file', program]);
    await served.stop();
    process.kill(running.pid, 'SIGTERM');
    await running.ended;
  });
});

describe('tsnbdkit: its life', () => {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    it(`ends on ${signal}, with clients connected, and leaves nothing`, async () => {
      const kit = await Kit.start(place, ['memory', '1M']);
      assert.equal(await readFile(kit.pidfile, 'utf8'), `${kit.running.pid}\n`);
      const idle = createConnection(kit.socket);
      await once(idle, 'data');
      const { status, stderr } = await kit.stop(signal);
      assert.deepEqual([status, stderr], [0, '']);
      assert.equal(existsSync(kit.pidfile), false);
      assert.equal(existsSync(kit.socket), false);
      idle.destroy();
    });
  }

  it('listens on TCP, on loopback only', requires({ programs: ['nbdinfo'] }), async () => {
    const { running } = await startKit(place, ['-p', '0', 'memory', '1M']);
    const port = /listening on port (\d+)/.exec(running.stderr)?.[1] ?? '';
    assert.equal((await place.ok('nbdinfo', ['--size', `nbd://127.0.0.1:${port}`])).trim(), `${M}`);
    process.kill(running.pid, 'SIGTERM');
    assert.equal((await running.ended).status, 0);
  });

  it('traces requests with -v', requires({ programs: ['nbdinfo'] }), async () => {
    const kit = await Kit.start(place, ['-v', 'memory', '1M']);
    await place.ok('nbdinfo', ['--map', kit.uri()]);
    await kit.stop();
    assert.match(kit.running.stderr, /tsnbdfuse:server rx BLOCK_STATUS offset=0 length=1048576/);
  });
});

describe('tsnbdkit: socket activation', () => {
  /** Starts it with a listening socket as descriptor 3. */
  function activate(env: NodeJS.ProcessEnv, ...args: string[]) {
    const socket = place.join('activated.sock');
    const fd = native.unixListen(socket, 8);
    assert.ok(fd >= 0);
    native.setNonblocking(fd, false);
    const child = spawn(TSNBDKIT, args, {
      env: { ...place.env, ...env },
      stdio: ['ignore', 'ignore', 'pipe', fd],
      timeout: DEADLINE,
    });
    native.close(fd);
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const ended = once(child, 'close').then(([status]: unknown[]) => ({ status, stderr }));
    return { child, ended, uri: `nbd+unix:///?socket=${socket}`, socket };
  }
  afterEach(() => place.ok('rm', ['-f', place.join('activated.sock')]));

  it('serves on the socket that is passed', requires({ programs: ['nbdinfo'] }), async () => {
    const kit = activate({ LISTEN_FDS: '1' }, 'memory', '3M');
    assert.equal((await place.ok('nbdinfo', ['--size', kit.uri])).trim(), `${3 * M}`);
    kit.child.kill();
    assert.deepEqual(await kit.ended, { status: 0, stderr: '' });
    assert.ok(existsSync(kit.socket), 'it is not ours to remove');
  });

  it('refuses an address beside it, and any other number of sockets', async () => {
    const both = activate({ LISTEN_FDS: '1' }, '-U', 'x', 'memory', '1M');
    assert.match((await both.ended).stderr, /--unix cannot be used with socket activation/);
    await place.ok('rm', [both.socket]);
    const two = activate({ LISTEN_FDS: '2' }, 'memory', '1M');
    const { status, stderr } = await two.ended;
    assert.deepEqual([status, stderr.includes('LISTEN_FDS is 2')], [2, true]);
  });

  it('ignores what is meant for another process', async () => {
    const own = place.join('own.sock');
    const kit = activate({ LISTEN_FDS: '1', LISTEN_PID: '1' }, '-U', own, 'memory', '1M');
    await until('it listens on its own socket', () => existsSync(own));
    kit.child.kill();
    assert.equal((await kit.ended).status, 0);
  });

  it('says so where descriptor 3 is no socket', async () => {
    const { status, stderr } = await place.run('/bin/sh', [
      '-c',
      `LISTEN_FDS=1 LISTEN_PID=$$ exec "${TSNBDKIT}" memory 1M 3</dev/null`,
    ]);
    assert.equal(status, 1);
    assert.match(stderr, /^tsnbdkit: cannot listen on descriptor 3[^\n]*\n$/);
  });
});

describe('tsnbdkit: nbdinfo', requires({ programs: ['nbdinfo'] }), () => {
  const nbdinfo = (...args: string[]) => place.ok('nbdinfo', args);

  it('is told all that there is to know', async () => {
    const kit = await Kit.start(place, ['memory', '1T']);
    const { exports } = JSON.parse(await nbdinfo('--json', kit.uri())) as {
      exports: [Record<string, unknown>];
    };
    const expected = {
      'export-name': '',
      'export-size': 2 ** 40,
      contexts: ['base:allocation'],
      is_rotational: false,
      is_read_only: false,
      can_cache: false,
      can_df: true,
      can_fast_zero: false,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * M,
    };
    for (const [key, value] of Object.entries(expected)) {
      assert.deepEqual(exports[0][key], value, key);
    }
    assert.match(await nbdinfo('--map', kit.uri()), /^ *0 +1099511627776 +3 +hole,zero\n$/);
    await kit.stop();
  });

  it('is told by --can and --is', async () => {
    const kit = await Kit.start(place, ['-r', 'memory', '1M']);
    for (const can of ['connect', 'read', 'flush', 'fua', 'multi-conn', 'df', 'structured-reply']) {
      assert.equal((await place.run('nbdinfo', ['--can', can, kit.uri()])).status, 0, can);
    }
    for (const cannot of ['write', 'trim', 'zero', 'cache', 'fast-zero']) {
      assert.equal((await place.run('nbdinfo', ['--can', cannot, kit.uri()])).status, 2, cannot);
    }
    assert.equal((await place.run('nbdinfo', ['--is', 'read-only', kit.uri()])).status, 0);
    await kit.stop();
  });

  it('finds the export by its name, by none, and not by another', async () => {
    const kit = await Kit.start(place, ['-e', 'the disk', 'memory', '2M']);
    assert.match(await nbdinfo('--list', kit.uri()), /export="the disk"/);
    for (const name of ['', 'the%20disk']) {
      assert.equal((await nbdinfo('--size', kit.uri(name))).trim(), `${2 * M}`);
    }
    const other = await place.run('nbdinfo', ['--size', kit.uri('other')]);
    assert.equal(other.status, 1);
    assert.match(other.stderr, /there is no export of that name|has no export/);
    await kit.stop();
  });
});

describe('tsnbdkit: nbdcopy', requires({ programs: ['nbdcopy', 'nbdinfo'] }), () => {
  for (const plugin of ['memory', 'file'] as const) {
    it(`copies sparse data to and from ${plugin}`, async () => {
      const size = 20 * M + 1234;
      const source = await sparseFile('source', size, 5);
      const target = place.join('served');
      await place.ok('truncate', ['-s', `${size}`, target]);
      const kit = await Kit.start(place, [plugin, plugin === 'memory' ? `${size}` : target]);
      await place.ok('nbdcopy', ['--flush', source, kit.uri()]);
      if (plugin === 'file') assert.equal(await hashOf(target), await hashOf(source));
      const back = place.join('back');
      await place.ok('nbdcopy', ['--connections=4', kit.uri(), back]);
      assert.equal(await hashOf(back), await hashOf(source));
      assert.ok(
        (await place.ok('nbdinfo', ['--map', '--totals', kit.uri()])).includes('hole,zero'),
      );
      await kit.stop();
      await place.ok('rm', [source, target, back]);
    });
  }

  it('copies from one server to another', async () => {
    const source = await sparseFile('source', 8 * M, 6);
    const from = await Kit.start(place, ['-r', 'file', source]);
    const to = await Kit.start(place, ['memory', '8M']);
    await place.ok('nbdcopy', [from.uri(), to.uri()]);
    const back = place.join('back');
    await place.ok('nbdcopy', [to.uri(), back]);
    assert.equal(await hashOf(back), await hashOf(source));
    await from.stop();
    await to.stop();
  });
});

describe('tsnbdkit: qemu', requires({ programs: ['qemu-img', 'qemu-io'] }), () => {
  const qemuImg = (...args: string[]) => place.ok('qemu-img', args);

  it('converts, compares, maps and checks', async () => {
    const source = await sparseFile('source', 16 * M, 7);
    const image = place.join('image.qcow2');
    await place.ok('truncate', ['-s', '24M', image]);
    const raw = await Kit.start(place, ['memory', '16M']);
    await qemuImg('convert', '-n', '-f', 'raw', '-O', 'raw', source, raw.uri());
    await qemuImg('compare', '-f', 'raw', '-F', 'raw', source, raw.uri());
    assert.match(await qemuImg('info', raw.uri()), /virtual size: 16 MiB/);

    // A qcow2 that grows, on a file that is served.
    const file = await Kit.start(place, ['file', image]);
    await qemuImg('create', '-f', 'qcow2', file.uri(), '16M');
    await qemuImg('convert', '-n', '-f', 'raw', '-O', 'qcow2', raw.uri(), file.uri());
    await qemuImg('check', '-f', 'qcow2', file.uri());
    await qemuImg('compare', '-f', 'qcow2', '-F', 'raw', file.uri(), source);
    const map = JSON.parse(await qemuImg('map', '--output=json', '-f', 'raw', raw.uri())) as {
      zero: boolean;
    }[];
    assert.deepEqual([map.some(({ zero }) => zero), map.some(({ zero }) => !zero)], [true, true]);
    await raw.stop();
    await file.stop();
  });

  for (const plugin of ['memory', 'file'] as const) {
    it(`writes, zeroes, discards and flushes (${plugin})`, async () => {
      const file = place.join('io.raw');
      await place.ok('truncate', ['-s', '8M', file]);
      const kit = await Kit.start(place, [plugin, plugin === 'memory' ? '8M' : file]);
      const commands = [
        'write -P 0x11 0 1M',
        'write -f -P 0x22 1M 64k',
        'write -z 512 1k',
        'write -z -u 64k 64k',
        'discard 2M 1M',
        'flush',
        'read -P 0x11 0 512',
        'read -P 0 512 1k',
        'read -P 0x11 1536 1k',
        'read -P 0 64k 64k',
        'read -P 0x22 1M 64k',
        'read -P 0 4M 4M',
        // Unaligned, which is allowed here.
        'write -P 0x33 7M 13',
        'read -P 0x33 7M 13',
      ];
      const output = await place.ok('qemu-io', [
        ...['-f', 'raw', '-t', 'writeback', '-d', 'unmap'],
        ...commands.flatMap((command) => ['-c', command]),
        kit.uri(),
      ]);
      assert.doesNotMatch(output, /failed|error/i);
      await kit.stop();
    });
  }

  it('holds 1 TiB with 1 MiB in it, in little more than that', async () => {
    const kit = await Kit.start(place, ['memory', '1T']);
    await qemuImg('map', '-f', 'raw', kit.uri());
    const before = await kit.memory();
    const writes = ['0', '256G', '512G', '1048575M'].map((offset) => `write -P 1 ${offset} 256k`);
    const zeroes = ['write -z 1G 1G', 'discard 600G 1G'];
    const commands = [...writes, ...zeroes, 'read -P 1 512G 256k', 'read -P 0 1G 256k'];
    await place.ok('qemu-io', [
      ...['-f', 'raw', '-d', 'unmap'],
      ...commands.flatMap((command) => ['-c', command]),
      kit.uri(),
    ]);
    const grown = (await kit.memory()) - before;
    assert.ok(grown < 48 * M, `${grown} bytes more`);
    const map = JSON.parse(await qemuImg('map', '--output=json', '-f', 'raw', kit.uri())) as {
      zero: boolean;
      length: number;
    }[];
    const data = map.filter((extent) => !extent.zero).reduce((sum, { length }) => sum + length, 0);
    assert.equal(data, M);
    await kit.stop();
  });

  it('is refused writes on a read-only export', async () => {
    const kit = await Kit.start(place, ['-r', 'memory', '1M']);
    const { status } = await place.run('qemu-io', ['-f', 'raw', '-c', 'write 0 512', kit.uri()]);
    assert.notEqual(status, 0);
    await place.ok('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 0 0 512', kit.uri()]);
    await kit.stop();
  });
});

describe(
  'tsnbdkit: block devices',
  requires({ root: true, programs: ['losetup', 'nbdinfo', 'nbdcopy'] }),
  () => {
    it('serves one, in its blocks', async () => {
      const source = await sparseFile('source', 8 * M, 8);
      const backing = place.join('backing');
      await place.ok('truncate', ['-s', '8M', backing]);
      const device = (await place.ok('losetup', ['--show', '-b', '4096', '-f', backing])).trim();
      try {
        const kit = await Kit.start(place, ['file', device]);
        const info = await place.ok('nbdinfo', [kit.uri()]);
        assert.match(info, /block_size_minimum: 4096/);
        assert.match(info, /export-size: 8388608/);
        await place.ok('nbdcopy', ['--flush', source, kit.uri()]);
        const back = place.join('back');
        await place.ok('nbdcopy', [kit.uri(), back]);
        assert.equal(await hashOf(back), await hashOf(source));
        await kit.stop();
        assert.equal((await stat(back)).size, 8 * M);
      } finally {
        await place.ok('losetup', ['-d', device]);
      }
    });
  },
);
