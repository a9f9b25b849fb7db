/** A disk image by its name: the server that is chosen for it, what is refused, and what survives its crash. */

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { chmod, mkdir, readFile, readlink, readdir, rename, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import type { Mounted, RunOptions } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const MIB = 1024 * 1024;
const NOBODY = 65534;
const NEEDED = ['qemu-nbd', 'qemu-img', 'fusermount3'] as const;

let place: Workplace;

beforeEach(async () => {
  place = await Workplace.create();
  await place.file('disk.raw');
});
afterEach(() => place.finish());

const qemuImg = (...args: readonly string[]): Promise<string> => place.ok('qemu-img', args);

/** The servers that were started, with their command lines. */
async function servers(): Promise<[number, string][]> {
  return [...(await place.processes())].filter(([, line]) =>
    /^qemu-nbd |bin\/tsnbdkit |tsnbdkit\.cjs/.test(line),
  );
}

async function endsWell(mounted: Mounted, mountpoint = 'disk.raw'): Promise<string> {
  const { status, stderr } = await mounted.unmount(mountpoint);
  assert.equal(status, 0, stderr);
  return stderr;
}

/** For what may be another way the next time, as a file that is not there, or a server that cannot start. */
const GONE = { expected: 4 };

/** The command has to fail with one line, and nothing beside it. */
async function fails(
  args: readonly string[],
  message: RegExp,
  { expected = 5, ...options }: RunOptions & { readonly expected?: number } = {},
): Promise<void> {
  const { status, stderr } = await place.tsnbdfuse(args, options);
  assert.equal(status, expected, stderr);
  assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
  assert.match(stderr, message);
  await place.nothingLeft();
}

const sha = async (path: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(place.join(path)))
    .digest('hex');

describe('an image that is named', requires({ fuse: true, programs: NEEDED }), () => {
  for (const [name, format, ...options] of [
    ['disk.qcow2', 'qcow2'],
    ['old.qcow', 'qcow'],
    ['disk.vmdk', 'vmdk'],
    ['flat.vmdk', 'vmdk', '-o', 'subformat=monolithicFlat'],
    ['split.vmdk', 'vmdk', '-o', 'subformat=twoGbMaxExtentSparse'],
    ['disk.vdi', 'vdi'],
    ['disk.vhdx', 'vhdx'],
    ['disk.vhd', 'vpc', '-o', 'force_size=on'],
    ['fixed.vhd', 'vpc', '-o', 'subformat=fixed,force_size=on'],
    ['disk.qed', 'qed'],
    ['disk.img', 'raw'],
  ] as const) {
    it(`is served as ${format}: ${name}, ${options.join(' ')}`, async () => {
      const data = randomBytes(3 * MIB + 512);
      await place.file('data', data);
      await qemuImg('create', '-q', '-f', format, ...options, name, '64M');
      const mounted = await place.mount(['disk.raw', name]);
      const [server, ...others] = await servers();
      assert.deepEqual(others, []);
      assert.match(server?.[1] ?? '', format === 'raw' ? /tsnbdkit/ : /^qemu-nbd /);
      const write = ['if=data', 'of=disk.raw', 'bs=1M', 'seek=7', 'conv=notrunc,fsync'];
      await place.ok('dd', [...write, 'status=none']);
      await endsWell(mounted);

      await qemuImg('convert', '-f', format, '-O', 'raw', name, 'copy');
      const copy = await readFile(place.join('copy'));
      assert.equal(copy.length, 64 * MIB);
      assert.ok(copy.subarray(7 * MIB, 7 * MIB + data.length).equals(data));
      assert.ok(copy.subarray(0, 7 * MIB).every((byte) => byte === 0));

      const again = await place.mount(['-r', 'disk.raw', name]);
      await place.ok('cmp', ['copy', 'disk.raw']);
      assert.match((await place.run('dd', [...write, 'status=none'])).stderr, /Read-only/);
      await endsWell(again);
    });
  }

  it('has its holes, its trims and several connections', async () => {
    await qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '64M');
    const mounted = await place.mount(['-C', '3', 'disk.raw', 'disk.qcow2']);
    const fill = ['if=/dev/urandom', 'of=disk.raw', 'bs=1M', 'count=32', 'conv=notrunc,fsync'];
    await place.ok('dd', [...fill, 'status=none']);
    const pid = (await servers())[0]?.[0] ?? 0;
    const sockets = async (): Promise<number> => {
      const links = (await readdir(`/proc/${pid}/fd`)).map((fd) => `/proc/${pid}/fd/${fd}`);
      const targets = await Promise.all(links.map((link) => readlink(link).catch(() => '')));
      return targets.filter((target) => target.startsWith('socket:')).length;
    };
    // The one that it listens to is the fourth.
    await until('three connections are made', async () => (await sockets()) >= 4);
    await place.ok('fallocate', ['--punch-hole', '--offset', '0', '--length', '32M', 'disk.raw']);
    await endsWell(mounted);
    const { 'actual-size': size } = JSON.parse(
      await qemuImg('info', '--output=json', '-f', 'qcow2', 'disk.qcow2'),
    ) as { 'actual-size': number };
    assert.ok(size < 4 * MIB, `${size} bytes are left of what was punched`);
  });

  it('is called so in the table of mounts', async () => {
    await qemuImg('create', '-q', '-f', 'vdi', 'disk.vdi', '8M');
    const mounted = await place.mount(['disk.raw', 'disk.vdi']);
    assert.ok((await readFile('/proc/mounts', 'utf8')).includes(`${place.join('disk.vdi')} `));
    await endsWell(mounted);
  });

  it('has a name that means something else to qemu, to a shell, or to us', async () => {
    for (const name of [
      'nbd:unix:x,y.qcow2',
      'json:{"driver":"raw"}.qcow2',
      '-r.qcow2',
      'a b,,c=d%s\'"\\.qcow2',
      'line\nline.qcow2',
      'ünï ☃.qcow2',
      'fat:rw:.qcow2',
    ]) {
      await qemuImg('create', '-q', '-f', 'qcow2', 'image', '8M');
      await rename(place.join('image'), place.join(name));
      const mounted = await place.mount(['disk.raw', `./${name}`]);
      const write = ['if=/dev/urandom', 'of=disk.raw', 'bs=1M', 'count=1', 'conv=notrunc'];
      await place.ok('dd', [...write, 'status=none']);
      await endsWell(mounted);
      await rename(place.join(name), place.join('image'));
      assert.match(await qemuImg('map', '-f', 'qcow2', 'image'), /0x100000 .*image/);
    }
    // With a name that begins with a dash as it is.
    await rename(place.join('image'), place.join('-x.qcow2'));
    await endsWell(await place.mount(['--', 'disk.raw', '-x.qcow2']));
  });

  it('of raw kind with such a name', async () => {
    for (const name of ['nbd:x.img', '-r.img', 'a b.img']) {
      await place.file(name, Buffer.alloc(MIB));
      const mounted = await place.mount(['disk.raw', `./${name}`]);
      await place.ok('cp', ['/proc/self/exe', 'binary']);
      const write = ['if=binary', 'of=disk.raw', 'bs=4096', 'count=1', 'conv=notrunc'];
      await place.ok('dd', [...write, 'status=none']);
      await endsWell(mounted);
      await place.ok('cmp', ['-n', '4096', 'binary', `./${name}`]);
    }
  });

  it('shows its partitions', requires({ programs: ['sgdisk'] }), async () => {
    await mkdir(place.join('dir'));
    await qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '64M');
    const mounted = await place.mount(['--partitions', 'dir', 'disk.qcow2']);
    await place.ok('sgdisk', ['-n', '1:0:+8M', '-n', '2', 'dir/nbd']);
    const expected = ['nbd', 'nbd1', 'nbd2'];
    await until('they are there', async () =>
      (await readdir(place.join('dir'))).sort().every((name, i) => name === expected[i]),
    );
    await endsWell(mounted, 'dir');
  });

  it('can be what it is mounted on, or be hidden', async () => {
    const data = randomBytes(MIB);
    await place.file('data', data);
    await mkdir(place.join('dir'));
    for (const [mountpoint, image, unmount] of [
      ['dir/a.img', 'dir/a.img', 'dir/a.img'],
      ['dir', 'dir/a.img', 'dir'],
      ['dir/b.raw', 'dir/a.img', 'dir'],
    ] as const) {
      await place.file('dir/a.img', Buffer.alloc(2 * MIB));
      const mounted = await place.mount([mountpoint, image]);
      const shown = mountpoint === 'dir' ? 'dir/nbd' : mountpoint;
      await place.ok('dd', ['if=data', `of=${shown}`, 'bs=1M', 'conv=notrunc', 'status=none']);
      const said = await endsWell(mounted, unmount);
      assert.equal(said.includes('what is in it is hidden'), unmount === 'dir');
      assert.ok((await readFile(place.join('dir/a.img'))).subarray(0, MIB).equals(data));
    }
  });

  it('is on a backing file', async () => {
    const data = randomBytes(2 * MIB);
    await place.file('base.img', data);
    await qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.img', '-F', 'raw', 'over.qcow2');
    await fails(['disk.raw', 'over.qcow2'], /names base\.img as its backing file.*add --backing/);
    const mounted = await place.mount(['--backing', 'disk.raw', 'over.qcow2']);
    await place.ok('cmp', ['base.img', 'disk.raw']);
    const write = ['if=/dev/zero', 'of=disk.raw', 'bs=1M', 'count=1', 'conv=notrunc,fsync'];
    await place.ok('dd', [...write, 'status=none']);
    await endsWell(mounted);
    assert.ok((await readFile(place.join('base.img'))).equals(data));
    await qemuImg('convert', '-f', 'qcow2', '-O', 'raw', 'over.qcow2', 'copy');
    const copy = await readFile(place.join('copy'));
    assert.ok(copy.subarray(0, MIB).every((byte) => byte === 0));
    assert.ok(copy.subarray(MIB).equals(data.subarray(MIB)));
  });

  it('has its data in another file', async () => {
    await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'data_file=data', 'disk.qcow2', '8M');
    await fails(['disk.raw', 'disk.qcow2'], /names data as its data file.*add --backing/);
    const mounted = await place.mount(['--backing', 'disk.raw', 'disk.qcow2']);
    const write = ['if=/dev/urandom', 'of=disk.raw', 'bs=1M', 'count=1', 'conv=notrunc,fsync'];
    await place.ok('dd', [...write, 'status=none']);
    await endsWell(mounted);
    await qemuImg('check', '-q', '-f', 'qcow2', 'disk.qcow2');
  });
});

describe(
  'an image on a block device',
  requires({ fuse: true, root: true, loop: true, programs: [...NEEDED, 'losetup'] }),
  () => {
    for (const format of ['raw', 'qcow2'] as const) {
      it(`is served where its format is said: ${format}`, async () => {
        await qemuImg('create', '-q', '-f', 'raw', 'storage', '16M');
        const device = (await place.ok('losetup', ['--find', '--show', 'storage'])).trim();
        try {
          await qemuImg('create', '-q', '-f', format, device, '8M');
          await fails(['disk.raw', device], /is a block device, .* add --format raw/);
          const mounted = await place.mount(['--format', format, 'disk.raw', device]);
          await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', 'count=2', 'status=none']);
          await place.ok('dd', ['if=data', 'of=disk.raw', 'bs=1M', 'conv=notrunc', 'status=none']);
          await endsWell(mounted);
          await qemuImg('convert', '-f', format, '-O', 'raw', device, 'copy');
          await place.ok('cmp', ['-n', String(2 * MIB), 'data', 'copy']);
        } finally {
          await place.ok('losetup', ['-d', device]);
        }
      });
    }
  },
);

describe('an image that lies', requires({ fuse: true, programs: NEEDED }), () => {
  const SECRET = 'root:$6$secret:19000:0:99999:7:::\n'.repeat(64);

  /** Makes what a guest may write to its disk: an image of its own, on somebody's file. */
  async function trap(name: string): Promise<void> {
    await place.file('secret', SECRET);
    const from = ['-b', place.join('secret'), '-F', 'raw'];
    await qemuImg('create', '-q', '-f', 'qcow2', ...from, 'trap.qcow2');
    await rename(place.join('trap.qcow2'), place.join(name));
  }

  it('is no way to a file: a raw disk that looks like qcow2', async () => {
    await trap('guest.raw');
    const before = await sha('guest.raw');
    await fails(
      ['disk.raw', 'guest.raw'],
      /guest\.raw ends as a raw disk does, and looks like qcow2, .* --format raw .* --format qcow2/,
    );
    await rename(place.join('guest.raw'), place.join('guest'));
    await fails(['disk.raw', 'guest'], /name of guest does not tell its format.*--format/);

    const mounted = await place.mount(['--format=raw', 'disk.raw', 'guest']);
    // All that is seen is what the guest wrote.
    await place.ok('cmp', ['guest', 'disk.raw']);
    await endsWell(mounted);
    assert.equal(await sha('guest'), before);
    // Also for who is deceived, the file is not opened.
    await fails(['--format=qcow2', 'disk.raw', 'guest'], /names \/.*\/secret as its backing file/);
  });

  it('is no way to a file: what comes as qcow2, vmdk or qed', async () => {
    await trap('gift.qcow2');
    await fails(['disk.raw', 'gift.qcow2'], /names \/.*\/secret as its backing file/);
    await qemuImg('create', '-q', '-f', 'vmdk', '-o', 'subformat=monolithicFlat', 'g.vmdk', '1M');
    const text = await readFile(place.join('g.vmdk'), 'latin1');
    await place.file('g.vmdk', text.replace('g-flat.vmdk', place.join('secret')));
    await fails(['disk.raw', 'g.vmdk'], /names \/.*\/secret as a part of it/);
  });

  it('shows nothing of its backing file also to who has not seen the name', async () => {
    // What we look at, and what the server opens, is the same file; but another one could be put in its place.
    await trap('late.qcow2');
    await qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '4096');
    const mounted = await place.mount(['--reconnect=1', 'disk.raw', 'disk.qcow2']);
    const [server] = await servers();
    assert.ok(server !== undefined);
    const [pid, line] = server;
    assert.match(line, /"backing":null/);
    await rename(place.join('late.qcow2'), place.join('disk.qcow2'));
    process.kill(pid, 'SIGKILL');
    const read = ['if=disk.raw', 'bs=4096', 'iflag=direct', 'status=none'];
    const { stdout, stderr } = await place.run('dd', read);
    assert.ok(!stdout.includes('secret'));
    assert.match(stderr, /Input\/output error/);
    assert.equal((await mounted.unmount('disk.raw')).status, 7);
    assert.match(mounted.running.stderr, /disk\.qcow2 is another file than it was/);
  });
});

describe('an image that cannot be served', requires({ programs: NEEDED }), () => {
  it('because there is none', async () => {
    await fails(
      ['disk.raw', 'none'],
      /none does not exist: what follows the mountpoint is a disk image, or a URI as nbd:.*, or a command in brackets, as \[ none \]$/m,
      GONE,
    );
    await fails(['disk.raw', 'none/x.img'], /x\.img does not exist/, GONE);
    await place.file('full.raw', 'x');
    await fails(['full.raw', 'disk.raw'], /disk\.raw is empty.*mountpoint stands before the image/);
  });

  it('because it is something else', async () => {
    await mkdir(place.join('folder.img'));
    await fails(['disk.raw', 'folder.img'], /folder\.img is a directory/);
    await place.ok('mkfifo', ['pipe.img']);
    await fails(['disk.raw', 'pipe.img'], /neither a regular file nor a block device/);
    await fails(['disk.raw', '/dev/null'], /neither a regular file nor a block device/);
    const server = createServer().listen(place.join('socket.img'));
    try {
      await until('it is there', async () => (await readdir(place.path)).includes('socket.img'));
      await fails(['disk.raw', 'socket.img'], /neither a regular file nor a block device/);
    } finally {
      server.close();
    }
  });

  it('because a URI is meant by such a name', async () => {
    await place.file('nbd:x.qcow2', 'x');
    const { status, stderr } = await place.tsnbdfuse(['disk.raw', 'nbd:x.qcow2']);
    assert.equal(status, 2);
    assert.match(stderr, /not a URI.*; for the file of that name write \.\/nbd:x\.qcow2$/m);
  });

  it('because it is broken', async () => {
    await qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '8M');
    const bytes = await readFile(place.join('disk.qcow2'));
    // The place of the L1 table, which only its server looks at.
    bytes.writeUInt32BE(7, 44);
    await place.file('disk.qcow2', bytes);
    await fails(
      ['disk.raw', 'disk.qcow2'],
      /^tsnbdfuse: disk\.qcow2 cannot be served: qemu-nbd: [^{]*L1[^{]*$/,
      GONE,
    );
    await place.file('cut.vmdk', (await readFile(place.join('disk.qcow2'))).subarray(0, 3));
    await fails(['disk.raw', 'cut.vmdk'], /ends in \.vmdk, but its content has no mark/);
  });

  it('because somebody has it', requires({ fuse: true }), async () => {
    await qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '8M');
    await place.file('other.raw');
    const mounted = await place.mount(['disk.raw', 'disk.qcow2']);
    for (const options of [[], ['-r']]) {
      const { status, stderr } = await place.tsnbdfuse([...options, 'other.raw', 'disk.qcow2']);
      assert.equal(status, 4);
      assert.match(stderr, /^tsnbdfuse: disk\.qcow2 is in use: another program[^\n]*\n$/);
    }
    await endsWell(mounted);
  });

  it('because somebody has it: a raw one', requires({ fuse: true }), async () => {
    await qemuImg('create', '-q', '-f', 'raw', 'disk.img', '8M');
    await place.file('other.raw');
    const inUse = /^tsnbdfuse: disk\.img is in use: another program[^\n]*\n$/;
    const lines: readonly (readonly string[])[] = [
      ['other.raw', 'disk.img'],
      ['-r', 'other.raw', 'disk.img'],
    ];
    const mounted = await place.mount(['disk.raw', 'disk.img']);
    for (const line of lines) assert.match((await place.tsnbdfuse(line)).stderr, inUse);
    assert.match((await place.run('qemu-io', ['-f', 'raw', 'disk.img'])).stderr, /"write" lock/);
    await endsWell(mounted);

    // Those who only read do not mind each other, but do mind one who writes.
    const reading = await place.mount(['-r', 'disk.raw', 'disk.img']);
    const second = await place.mount(['-r', 'other.raw', 'disk.img']);
    assert.match((await place.run('qemu-io', ['-f', 'raw', 'disk.img'])).stderr, /"write" lock/);
    await place.ok('qemu-io', ['-r', '-f', 'raw', '-c', 'read 0 512', 'disk.img']);
    await endsWell(second, 'other.raw');
    await endsWell(reading);

    const machine = place.start('qemu-io', ['-f', 'raw', 'disk.img'], { talk: true });
    machine.tell('read 0 512\n');
    await until('it has the image', () => machine.stdout.includes('read 512/512'));
    for (const line of lines) assert.match((await place.tsnbdfuse(line)).stderr, inUse);
    machine.tell('quit\n');
    assert.equal((await machine.ended).status, 0);
    await endsWell(await place.mount(['disk.raw', 'disk.img']));
  });

  it('because its server is not installed', async () => {
    await qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '8M');
    await mkdir(place.join('bin'));
    for (const program of ['env', 'node', 'sh']) {
      const found = (await place.ok('which', [program])).trim();
      await place.ok('ln', ['-s', found, `bin/${program}`]);
    }
    await fails(
      ['disk.raw', 'disk.qcow2'],
      /qemu-nbd was not found in PATH; on Debian: apt install qemu-utils/,
      { ...GONE, env: { PATH: place.join('bin') } },
    );
  });

  it('because its user may not', requires({ root: true, programs: ['setpriv'] }), async () => {
    await place.file('mine.img', 'x'.repeat(4096), 0o444);
    await place.file('closed.img', 'x'.repeat(4096), 0o000);
    await place.give(NOBODY, 'disk.raw');
    await chmod(place.path, 0o755);
    const user = { user: NOBODY };
    await fails(['disk.raw', 'mine.img'], /mine\.img cannot be written: .*; add -r/, user);
    await fails(['disk.raw', 'closed.img'], /cannot read closed\.img: permission denied/, user);
    const mounted = await place.mount(['-r', 'disk.raw', 'mine.img'], user);
    await place.ok('cmp', ['mine.img', 'disk.raw'], user);
    await place.ok('fusermount3', ['-u', 'disk.raw'], user);
    assert.equal((await mounted.running.ended).status, 0);
  });
});

describe('a server of an image that dies', requires({ fuse: true, programs: NEEDED }), () => {
  for (const [name, format] of [
    ['disk.qcow2', 'qcow2'],
    ['disk.img', 'raw'],
  ] as const) {
    it(`is started again, and nothing is missing: ${format}`, async () => {
      await qemuImg('create', '-q', '-f', format, name, '128M');
      await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', 'count=24', 'status=none']);
      // It hides something, but nothing that the server could open.
      if (format === 'raw') await place.file('disk.raw', 'hidden');
      const mounted = await place.mount(['disk.raw', name]);
      // It writes on until the last server is back: one that is killed when all is written is no case for this.
      const copies = `until [ -e stop ]; do
        dd if=data of=disk.raw bs=256K oflag=direct conv=notrunc,fsync status=none || exit
      done`;
      const copy = place.start('sh', ['-c', copies], { deadline: 120_000 });
      for (let kills = 1; kills <= 3; kills++) {
        await sleep(100);
        for (const [pid] of await servers()) process.kill(pid, 'SIGKILL');
        await until(
          'it is back',
          () => copy.hasEnded || mounted.running.stderr.split('restored after').length > kills,
        );
      }
      await place.file('stop');
      assert.equal((await copy.ended).status, 0, copy.stderr + mounted.running.stderr);
      await endsWell(mounted);
      await qemuImg('convert', '-f', format, '-O', 'raw', name, 'copy');
      await place.ok('cmp', ['-n', String(24 * MIB), 'data', 'copy']);
    });
  }

  it('is given up where its file system hangs, and does not keep us', async () => {
    await mkdir(place.join('dir'));
    const hung = await place.mount(['dir', '[', 'tsnbdkit', 'memory', '4M', ']']);
    hung.signal('SIGSTOP');
    try {
      const words = ['--connect-timeout=1', '--format=raw', 'disk.raw', 'dir/nbd'];
      const { status, stderr } = await place.tsnbdfuse(words);
      assert.deepEqual([status, stderr], [4, 'tsnbdfuse: dir/nbd could not be read within 1 s\n']);
    } finally {
      hung.signal('SIGCONT');
    }
    assert.equal((await hung.unmount('dir')).status, 0);
  });

  for (const [what, words] of [
    ['the image', ['disk.raw', 'dir/nbd']],
    ['the mountpoint', ['dir/nbd/disk.raw', '[', 'true', ']']],
  ] as const) {
    it(`is not waited for after a signal, where the file system of ${what} hangs`, async () => {
      await mkdir(place.join('dir'));
      const hung = await place.mount(['dir', '[', 'tsnbdkit', 'memory', '4M', ']']);
      hung.signal('SIGSTOP');
      try {
        // Longer than the test has.
        const patience = [
          '--connect-timeout=600',
          ...(what === 'the image' ? ['--format=raw'] : []),
        ];
        const running = place.start(TSNBDFUSE, ['-v', ...patience, ...words]);
        await until('it looks there', () => running.stderr.includes(`looking at ${what}`));
        process.kill(running.pid, 'SIGINT');
        const { status, stderr } = await running.ended;
        assert.equal(status, 130, stderr);
        assert.match(stderr, /^tsnbdfuse: stopped by SIGINT before the disk was mounted$/m);
      } finally {
        hung.signal('SIGCONT');
      }
      assert.equal((await hung.unmount('dir')).status, 0);
      await place.nothingLeft();
    });
  }

  it('is not waited for at the end, where the file system of its image hangs', async () => {
    await mkdir(place.join('dir'));
    const hung = await place.mount(['dir', '[', 'tsnbdkit', 'memory', '4M', ']']);
    const patience = ['--connect-timeout=0.2', '--reconnect=2', '--format=raw'];
    const mounted = await place.mount([...patience, 'disk.raw', 'dir/nbd']);
    const [server] = (await servers()).filter(([, line]) => line.includes('dir/nbd'));
    assert.ok(server !== undefined);
    // It ends while it still can.
    mounted.signal('SIGSTOP');
    const [pid] = server;
    process.kill(pid, 'SIGKILL');
    await until('the server has ended', async () =>
      / Z \d+ /.test(await readFile(`/proc/${pid}/stat`, 'latin1')),
    );
    await until(
      'with all its threads',
      async () => (await readdir(`/proc/${pid}/task`)).length === 1,
    );
    hung.signal('SIGSTOP');
    try {
      mounted.signal('SIGCONT');
      // Tried more often than there are threads, and all the same one is left that unmounts.
      await until('it was tried', () =>
        mounted.running.stderr.includes('dir/nbd could not be read'),
      );
      const { status, stderr } = await place.tsnbdfuse(['-u', 'disk.raw']);
      assert.match(stderr, /^tsnbdfuse: disk\.raw ended with status 7 \(process \d+\)/);
      assert.equal(status, 7);
    } finally {
      hung.signal('SIGCONT');
    }
    // No process can go that has a file open there.
    assert.equal((await mounted.running.ended).status, 7);
    assert.equal((await hung.unmount('dir')).status, 0);
    await place.nothingLeft();
  });

  it('is not started again with --reconnect=0', async () => {
    await qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '8M');
    const mounted = await place.mount(['--reconnect=0', 'disk.raw', 'disk.qcow2']);
    for (const [pid] of await servers()) process.kill(pid, 'SIGKILL');
    assert.match((await place.run('cat', ['disk.raw'])).stderr, /Input\/output error/);
    const { status, stderr } = await mounted.unmount('disk.raw');
    assert.equal(status, 7);
    assert.match(stderr, /server qemu-nbd was killed by SIGKILL; disk\.raw now gives/);
  });

  it('is not started again where its image is hidden by the mount', async () => {
    await place.file('disk.img', Buffer.alloc(MIB));
    const mounted = await place.mount(['disk.img', 'disk.img']);
    for (const [pid] of await servers()) process.kill(pid, 'SIGKILL');
    assert.match((await place.run('cat', ['disk.img'])).stderr, /Input\/output error/);
    assert.equal((await mounted.unmount('disk.img')).status, 7);
    assert.match(mounted.running.stderr, /disk\.img now gives I\/O errors/);
  });

  it('is not started again where its image is gone', async () => {
    await qemuImg('create', '-q', '-f', 'qcow2', 'disk.qcow2', '8M');
    const mounted = await place.mount(['--reconnect=1', 'disk.raw', 'disk.qcow2']);
    await rm(place.join('disk.qcow2'));
    for (const [pid] of await servers()) process.kill(pid, 'SIGKILL');
    assert.match((await place.run('cat', ['disk.raw'])).stderr, /Input\/output error/);
    assert.equal((await mounted.unmount('disk.raw')).status, 7);
    assert.match(mounted.running.stderr, /disk\.qcow2 does not exist/);
  });
});
