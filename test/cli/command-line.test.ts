import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseCommandLine } from '../../src/cli/command-line.js';
import type { MountCommand } from '../../src/cli/command-line.js';
import { UsageError } from '../../src/cli/errors.js';
import type { Patience } from '../../src/cli/options.js';
import { NO_FUSE_OPTIONS } from '../../src/fuse/mount-options.js';

/** Words as a shell would split them; there is no quoting here. */
function parse(line: string): ReturnType<typeof parseCommandLine> {
  return parseCommandLine(line === '' ? [] : line.split(' '));
}

function mount(line: string): MountCommand {
  const parsed = parse(line);
  assert.equal(parsed.kind, 'mount');
  return parsed;
}

describe('a command line that unmounts', () => {
  const unmount = (more: object): object => ({
    kind: 'unmount',
    mountpoint: 'd',
    isLazy: false,
    patience: 30_000,
    verbose: false,
    ...more,
  });
  for (const [line, more] of [
    ['-u d', {}],
    ['--unmount d', {}],
    ['d -u', {}],
    ['--unm d', {}],
    ['-u -- -d', { mountpoint: '-d' }],
    ['-uz d', { isLazy: true }],
    ['-z -u d', { isLazy: true }],
    ['--unmount --lazy d', { isLazy: true }],
    ['-u --timeout 2.5 d', { patience: 2_500 }],
    ['-u --timeout=0 d', { patience: undefined }],
    ['-uv d', { verbose: true }],
  ] as const) {
    it(line, () => assert.deepEqual(parse(line), unmount(more)));
  }

  for (const [line, message] of [
    ['-u', /^the mountpoint is missing: what shall be unmounted\?$/],
    ['-u d e', /^e: --unmount takes one mountpoint$/],
    ['-u d nbd://host/', /^nbd:\/\/host\/: --unmount takes one mountpoint$/],
    ['-u d [ true ]', /^\[: --unmount takes a mountpoint and nothing else$/],
    ['-u d --unix s', /^--unix: --unmount takes a mountpoint and nothing else$/],
    ['-u -r d', /^--unmount and --readonly cannot be used together$/],
    ['-u -C 4 d', /^--unmount and --connections cannot be used together$/],
    ['-u -o ro d', /^--unmount and -o cannot be used together$/],
    ['-u --timeout x d', /^option '--timeout <seconds>' argument 'x' is invalid\. /],
    ['-z d', /^-z is for an unmount: -u -z$/],
    ['-z d [ true ]', /^-z is for an unmount: -u -z$/],
  ] as const) {
    it(`is refused: ${line}`, () => {
      assert.throws(() => parse(line), { name: 'UsageError', message });
    });
  }
});

describe('a command line that says what to mount', () => {
  const defaults = {
    kind: 'mount',
    mountpoint: 'd',
    readOnly: false,
    cache: 'writeback',
    connections: 4,
    fuse: NO_FUSE_OPTIONS,
    pidfile: undefined,
    daemon: false,
    log: undefined,
    readyFd: undefined,
    connectTimeout: 10_000,
    patience: {
      timeout: 30_000,
      reconnect: undefined,
      forever: false,
      unflushedLimit: 64 * 1024 * 1024,
    } as Patience,
    restartServer: false,
    partitions: false,
    partition: undefined,
    window: undefined,
    trim: false,
    verbose: false,
    stats: false,
    metrics: undefined,
  };
  const patience = (value: Partial<Patience>): object => ({
    patience: { ...defaults.patience, ...value },
  });
  const source = (value: object): object => ({ source: value });
  /** A server that can be connected to again. */
  const lasting = (value: object): object => ({
    ...source(value),
    ...patience({ reconnect: 60_000 }),
  });
  const address = (value: object): object => lasting({ kind: 'address', address: value });
  const fuse = (value: object): object => ({ fuse: { ...NO_FUSE_OPTIONS, ...value } });
  const captive = (...command: string[]): object => ({ source: { kind: 'captive', command } });
  const image = (value: object): object =>
    lasting({ kind: 'image', format: undefined, backing: false, ...value });
  const uri = (text: string): object => lasting({ kind: 'uri', uri: text });

  const table: readonly (readonly [string, object])[] = [
    ['d [ nbdkit memory 1G ]', captive('nbdkit', 'memory', '1G')],
    ['d [ true ]', captive('true')],
    ['d nbd://host/export', uri('nbd://host/export')],
    ['d nbd+unix:///?socket=/run/s', uri('nbd+unix:///?socket=/run/s')],
    // Not ours to judge here.
    ['d http://host/', uri('http://host/')],

    // Options before and after the mountpoint.
    ['-r d [ s ]', { ...captive('s'), readOnly: true }],
    ['d -r [ s ]', { ...captive('s'), readOnly: true }],
    ['--readonly d nbd://h', { ...uri('nbd://h'), readOnly: true }],
    ['d nbd://h --readonly', { ...uri('nbd://h'), readOnly: true }],
    ['-v d [ s ]', { ...captive('s'), verbose: true }],
    ['-d d [ s ]', { ...captive('s'), verbose: true }],
    ['--stats d [ s ]', { ...captive('s'), stats: true }],
    [
      '--metrics 9110 d [ s ]',
      { ...captive('s'), metrics: { kind: 'tcp', host: '127.0.0.1', port: 9110 } },
    ],
    ['--metrics=./m d [ s ]', { ...captive('s'), metrics: { kind: 'unix', path: './m' } }],
    ['--verbose d [ s ]', { ...captive('s'), verbose: true }],
    ['--debug d [ s ]', { ...captive('s'), verbose: true }],
    ['-rv d [ s ]', { ...captive('s'), readOnly: true, verbose: true }],
    ['-P f d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['-Pf d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['--pidfile f d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['--pidfile=f d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['--cache=none d [ s ]', { ...captive('s'), cache: 'none' }],
    ['--cache writethrough d [ s ]', { ...captive('s'), cache: 'writethrough' }],
    ['--cache=writeback d [ s ]', { ...captive('s'), cache: 'writeback' }],
    ['--connect-timeout=0.5 d [ s ]', { ...captive('s'), connectTimeout: 500 }],
    ['-- d [ s ]', captive('s')],
    ['-r -- d nbd://h', { ...uri('nbd://h'), readOnly: true }],
    ['-- d --tcp h 1', address({ kind: 'tcp', host: 'h', port: 1 })],
    ['--read-only d [ s ]', { ...captive('s'), readOnly: true }],
    ['--pid-file f d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['--pid-file=f d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['-C 1 d [ s ]', { ...captive('s'), connections: 1 }],
    ['-C1024 d [ s ]', { ...captive('s'), connections: 1024 }],
    ['--connections 2 d [ s ]', { ...captive('s'), connections: 2 }],
    ['--connections=2 d [ s ]', { ...captive('s'), connections: 2 }],
    ['-s d [ s ]', captive('s')],
    ['-srvP f d [ s ]', { ...captive('s'), readOnly: true, verbose: true, pidfile: 'f' }],
    ['-rPf d [ s ]', { ...captive('s'), readOnly: true, pidfile: 'f' }],
    // The value of an option is never an option or a mode.
    ['-P [ d [ s ]', { ...captive('s'), pidfile: '[' }],
    ['-rP --tcp d [ s ]', { ...captive('s'), readOnly: true, pidfile: '--tcp' }],
    ['--pidfile -r d [ s ]', { ...captive('s'), pidfile: '-r' }],
    // As getopt_long(3) takes them.
    ['--read d [ s ]', { ...captive('s'), readOnly: true }],
    ['--pid f d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['--connectio 2 d [ s ]', { ...captive('s'), connections: 2 }],
    [
      '--connections=2 -r -d d [ s ]',
      { ...captive('s'), connections: 2, readOnly: true, verbose: true },
    ],

    // Servers that are lost.
    ['--timeout 2.5 d [ s ]', { ...captive('s'), ...patience({ timeout: 2500 }) }],
    ['--timeout=0 d [ s ]', { ...captive('s'), ...patience({ timeout: undefined }) }],
    ['--reconnect 5 d nbd://h', { ...uri('nbd://h'), ...patience({ reconnect: 5000 }) }],
    ['--reconnect=0 d nbd://h', { ...uri('nbd://h'), ...patience({ reconnect: undefined }) }],
    [
      '--reconnect forever d nbd://h',
      { ...uri('nbd://h'), ...patience({ reconnect: 60_000, forever: true }) },
    ],
    ['--reconnect=0 d [ s ]', captive('s')],
    ['--unflushed-limit 8M d [ s ]', { ...captive('s'), ...patience({ unflushedLimit: 8 << 20 }) }],
    [
      '--restart-server d [ s ]',
      { ...captive('s'), restartServer: true, ...patience({ reconnect: 60_000 }) },
    ],

    // What of the disk.
    ['--partitions d [ s ]', { ...captive('s'), partitions: true }],
    ['--partition 3 d [ s ]', { ...captive('s'), partition: 3 }],
    ['--offset 1M d [ s ]', { ...captive('s'), window: { offset: 1048576n, size: undefined } }],
    ['--size 512 d [ s ]', { ...captive('s'), window: { offset: 0n, size: 512n } }],
    ['--offset=0 --size=1.5K d [ s ]', { ...captive('s'), window: { offset: 0n, size: 1536n } }],
    ['--trim d [ s ]', { ...captive('s'), trim: true }],

    // Options of FUSE.
    [
      '-o allow_other d [ s ]',
      { ...captive('s'), ...fuse({ allowOther: true, defaultPermissions: true }) },
    ],
    ['-ouid=5,gid=6 d [ s ]', { ...captive('s'), ...fuse({ uid: 5, gid: 6 }) }],
    ['-o uid=5 -o gid=6 -o uid=7 d nbd://h', { ...uri('nbd://h'), ...fuse({ uid: 7, gid: 6 }) }],
    ['-o ro d [ s ]', { ...captive('s'), readOnly: true, ...fuse({ readOnly: true }) }],
    ['-r -o rw d [ s ]', { ...captive('s'), readOnly: true }],
    ['-o debug d [ s ]', { ...captive('s'), verbose: true, ...fuse({ debug: true }) }],

    // Images. Whether they are there is not looked at here.
    ['d x', image({ path: 'x' })],
    ['d ./nbd:x -r', { ...image({ path: './nbd:x' }), readOnly: true }],
    ['-- d -x', image({ path: '-x' })],
    ['--format qcow2 d x', image({ path: 'x', format: 'qcow2' })],
    ['d x --format=vpc', image({ path: 'x', format: 'vhd' })],
    ['d x --backing', image({ path: 'x', backing: true })],
    // It keeps its data, and is started again by itself.
    ['--restart-server d x', { ...image({ path: 'x' }), restartServer: true }],
    ['--reconnect=0 d x', { ...image({ path: 'x' }), ...patience({ reconnect: undefined }) }],
    ['--reconnect 9 d x', { ...image({ path: 'x' }), ...patience({ reconnect: 9000 }) }],

    // The other modes.
    ['d --uri nbd://h', uri('nbd://h')],
    ['d --socket-activation s -r ]', captive('s', '-r', ']')],
    ['d --systemd-socket-activation s [ x', captive('s', '[', 'x')],
    [
      'd --command nbdkit -s memory 1G',
      source({ kind: 'command', command: ['nbdkit', '-s', 'memory', '1G'] }),
    ],
    ['d --cmd s --tcp h 1', source({ kind: 'command', command: ['s', '--tcp', 'h', '1'] })],
    ['d --fd 0', source({ kind: 'fd', fd: 0 })],
    ['-r d -v --fd 13', { ...source({ kind: 'fd', fd: 13 }), readOnly: true, verbose: true }],
    ['d --tcp localhost 10809', address({ kind: 'tcp', host: 'localhost', port: 10809 })],
    ['d --tcp ::1 65535', address({ kind: 'tcp', host: '::1', port: 65535 })],
    ['d --unix /run/s', address({ kind: 'unix', path: '/run/s' })],
    ['d --unix -r', address({ kind: 'unix', path: '-r' })],
    ['d --vsock 2 10809', address({ kind: 'vsock', cid: 2, port: 10809 })],
    ['d --vsock 4294967294 0', address({ kind: 'vsock', cid: 4294967294, port: 0 })],

    // What stands in the brackets belongs to the server.
    [
      'd [ s -r -v --cache=none -- --help -V ]',
      captive('s', '-r', '-v', '--cache=none', '--', '--help', '-V'),
    ],
    ['d [ s [ x ] ]', captive('s', '[', 'x', ']')],
    ['d [ s ] ]', captive('s', ']')],
    ['d [ s [ ]', captive('s', '[')],
    ['d [ [ ]', captive('[')],
    ['d [ ] ]', captive(']')],
    ['d [ s [x] ]', captive('s', '[x]')],
    ['d [ sh -c exec\tnbdkit ]', captive('sh', '-c', 'exec\tnbdkit')],
  ];
  for (const [line, expected] of table) {
    it(line, () => assert.deepEqual(parse(line), { ...defaults, ...expected }));
  }

  it('takes no empty word for an image', () => {
    assert.throws(() => parseCommandLine(['d', '']), /name of the image is an empty word/);
  });

  it('keeps empty words of the server', () => {
    assert.deepEqual(parseCommandLine(['d', '[', 's', '', ']']), {
      ...defaults,
      ...captive('s', ''),
    });
  });

  it('takes a mountpoint that begins with a dash, or is a bracket, after --', () => {
    assert.equal(mount('-- -d [ s ]').mountpoint, '-d');
    assert.equal(mount('-- [ [ s ]').mountpoint, '[');
    assert.equal(mount('-- --tcp --tcp h 1').mountpoint, '--tcp');
  });

  // As its manual page has them.
  const examples: readonly (readonly [string, string, string])[] = [
    ['dir nbd://example.com', 'dir', 'uri'],
    ['dir/ramdisk [ nbdkit --exit-with-parent memory 1G ]', 'dir/ramdisk', 'captive'],
    ['dir/file.raw [ qemu-nbd -f qcow2 file.qcow2 ]', 'dir/file.raw', 'captive'],
    [
      'dir/disk.iso [ nbdkit --exit-with-parent curl --filter=xz http://builder.libguestfs.org/fedora-30.xz ]',
      'dir/disk.iso',
      'captive',
    ],
    ['dir nbds://example.com/disk', 'dir', 'uri'],
    ['MOUNTPOINT --command CMD ARGS', 'MOUNTPOINT', 'command'],
    ['MOUNTPOINT --fd 3', 'MOUNTPOINT', 'fd'],
    ['MOUNTPOINT --tcp HOST 10809', 'MOUNTPOINT', 'address'],
    ['MOUNTPOINT --unix SOCKET', 'MOUNTPOINT', 'address'],
    ['MOUNTPOINT --vsock 2 10809', 'MOUNTPOINT', 'address'],
    ['-C 8 -o allow_other,kernel_cache,uid=1000 -P PIDFILE -r -s -v dir nbd://h', 'dir', 'uri'],
    ['--connections 1 --pidfile PIDFILE --readonly --verbose dir nbd://h', 'dir', 'uri'],
  ];
  for (const [line, mountpoint, kind] of examples) {
    it(`of nbdfuse: ${line}`, () => {
      const command = mount(line);
      assert.equal(command.mountpoint, mountpoint);
      assert.equal(command.source.kind, kind);
    });
  }
});

describe('a command line that asks for words', () => {
  it('prints a help that fits a screen of 50 lines', () => {
    const parsed = parse('--help');
    assert.equal(parsed.kind, 'help');
    const lines = (parsed as { text: string }).text.trimEnd().split('\n');
    // What is more is for the manual alone, by hideHelp().
    assert.ok(lines.length <= 50, `${lines.length} lines`);
    for (const line of lines) assert.ok(line.length <= 80, line);
    assert.ok(lines.some((line) => line.includes('tsnbdfuse disk.raw [ tsnbdkit memory 1G ]')));
    assert.ok(lines.some((line) => line.includes('man tsnbdfuse')));
    assert.ok(!lines.some((line) => line.includes('words')));
  });

  const text = (line: string): string => {
    const parsed = parse(line);
    assert.equal(parsed.kind, 'help');
    return (parsed as { text: string }).text;
  };

  it('lists the options of -o', () => {
    const lines = text('--fuse-help').trimEnd().split('\n');
    for (const line of lines) assert.ok(line.length <= 80, line);
    for (const name of ['allow_other', 'allow_root', 'uid=N', 'umask=M', 'kernel_cache', 'ro']) {
      assert.ok(
        lines.some((line) => line.startsWith(`  -o ${name} `)),
        name,
      );
    }
    assert.equal(text('-r --fuse-help d'), text('--fuse-help'));
  });

  it('lists the options for a shell, all that nbdfuse has among them', () => {
    const long = text('--long-options').trimEnd().split('\n');
    const short = text('--short-options').trimEnd().split('\n');
    for (const name of [
      ...['--fuse-help', '--help', '--connections', '--pidfile', '--pid-file'],
      ...['--readonly', '--read-only', '--verbose', '--version'],
    ]) {
      assert.equal(long.filter((one) => one === name).length, 1, name);
    }
    for (const name of ['-C', '-d', '-o', '-P', '-r', '-s', '-v', '-V']) {
      assert.equal(short.filter((one) => one === name).length, 1, name);
    }
    for (const name of long) assert.match(name, /^--[a-z][a-z-]+$/);
    for (const name of short) assert.match(name, /^-[a-zA-Z]$/);
  });

  const statuses: readonly (readonly [string, object])[] = [
    ['--status', { kind: 'status', mountpoint: undefined, json: false }],
    ['--status d', { kind: 'status', mountpoint: 'd', json: false }],
    ['d --status --json', { kind: 'status', mountpoint: 'd', json: true }],
    ['--json --status', { kind: 'status', mountpoint: undefined, json: true }],
    ['--status -- -d', { kind: 'status', mountpoint: '-d', json: false }],
  ];
  for (const [line, command] of statuses) {
    it(line, () => assert.deepEqual(parse(line), command));
  }

  for (const line of ['-V', '--version', '-V d [ s ]']) {
    it(line, () => assert.deepEqual(parse(line), { kind: 'version' }));
  }
});

describe('a command line that cannot be understood', () => {
  const table: readonly (readonly [string, RegExp])[] = [
    ['', /mountpoint is missing/],
    ['d', /what shall d show/],
    ['d x y', /^y: nothing can follow the image x; .* as \[ x y \]$/],
    ['--format vhdy d x', /'vhdy' is invalid. The formats are raw, qcow2, .*qed$/],
    ['--format qcow2 d nbd://h', /^--format is for a disk image that follows the mountpoint/],
    ['--format raw d [ s ]', /^--format is for a disk image/],
    ['--backing d --fd 3', /^--backing is for a disk image/],
    ['--json d [ s ]', /^--json is for --status$/],
    ['--status d e', /^e: --status takes one mountpoint, and starts nothing$/],
    ['--status d [ s ]', /^\[: --status takes one mountpoint/],
    ['--status d nbd://h', /^nbd:\/\/h: --status takes one mountpoint/],
    ['--status -r d', /^--readonly has no meaning with --status$/],
    ['--status --stats', /^--stats has no meaning with --status$/],
    ['--stat', /--stat can be --stats or --status/],
    ['--metrics x d [ s ]', /It is a port, 0 for a free one/],
    ['d nbd://h x', /^x: nothing can follow the URI/],
    ['nbd://h', /mountpoint is missing: it stands before the URI/],
    ['nbd://h d', /mountpoint d goes before the URI nbd:\/\/h/],
    ['d nbd://h [ s ]', /both a URI \(nbd:\/\/h\) and \[ CMD \]/],
    ['d e [ s ]', /^e: only one mountpoint/],
    ['[ s ]', /mountpoint is missing/],
    ['-r [ s ]', /mountpoint is missing/],

    ['d --command', /^there is no command behind --command$/],
    ['d --cmd', /^there is no command behind --cmd$/],
    ['d --socket-activation', /^there is no command behind --socket-activation$/],
    ['d --uri', /^--uri needs more words behind it: --uri URI$/],
    ['d --fd', /^--fd needs more words/],
    ['d --tcp h', /^--tcp needs more words behind it: --tcp HOST PORT$/],
    ['d --vsock 2', /^--vsock needs more words/],
    ['d --unix', /^--unix needs more words/],
    ['d --fd x', /^x is not a file descriptor/],
    ['d --fd -1', /^-1 is not a file descriptor/],
    ['d --fd 9999999999', /^9999999999 is not a file descriptor/],
    ['d --fd=3', /^--fd takes its words apart: --fd 3$/],
    ['d --tcp h nbd', /^nbd is not a port: it is a number from 1 to 65535$/],
    ['d --tcp h 0', /^0 is not a port/],
    ['d --tcp h 65536', /^65536 is not a port/],
    ['d --vsock x 1', /^x is not a context id/],
    ['d --vsock 1 4294967296', /^4294967296 is not a port/],
    // What stands for any is nobody to connect to.
    ['d --vsock 4294967295 1', /^4294967295 is not a context id: .* from 0 to 4294967294/],
    ['d --vsock 1 4294967295', /^4294967295 is not a port/],
    ['d --vsock -1 1', /^-1 is not a context id/],
    ['d --vsock 99999999999999999999 1', /is not a context id/],
    ['d --unix s -r', /^-r: nothing can follow --unix SOCKET; options go before it$/],
    ['d --tcp h 1 x', /^x: nothing can follow --tcp HOST PORT$/],
    ['d --uri nbd://h x', /^x: nothing can follow/],
    ['--tcp h 1', /mountpoint is missing.*goes before --tcp/],
    ['d e --tcp h 1', /^e: only one mountpoint can stand before --tcp$/],
    ['d nbd://h --tcp h 1', /both a URI \(nbd:\/\/h\) and --tcp are given/],

    ['-C 0 d [ s ]', /'-C, --connections <n>' argument '0' is invalid.*from 1 to 1024/],
    ['-C x d [ s ]', /from 1 to 1024/],
    ['-C 1025 d [ s ]', /from 1 to 1024/],
    ['-C -1 d [ s ]', /from 1 to 1024/],
    [
      '--reconnect 9 d [ s ]',
      /^--reconnect needs --restart-server, for a server that keeps its data$/,
    ],
    ['--reconnect 9 d --fd 3', /^--reconnect: a socket that we inherit cannot be connected again$/],
    ['--reconnect soon d nbd://h', /number of seconds, 0 for not at all, or "forever"/],
    ['--timeout -1 d nbd://h', /number of seconds/],
    ['--unflushed-limit 1K d nbd://h', /size from 1M to 16G/],
    ['--restart-server d nbd://h', /^--restart-server is for a server that is started here/],
    ['-o foo d [ s ]', /^-o there is no option foo; see --fuse-help/],
    ['-o allow_other,uid=x d [ s ]', /^-o uid=x: it is a number/],
    ['d nbd://h -o', /argument missing/],
    ['--partition 0 d [ s ]', /number from 1 on/],
    ['--partition x d [ s ]', /number from 1 on/],
    ['--offset -1 d [ s ]', /-1 is not a size: it has a sign/],
    ['--offset 1X d [ s ]', /the units are K, M, G/],
    ['--size 0 d [ s ]', /a size over 0/],
    ['--partition 1 --partitions d [ s ]', /^--partitions and --partition cannot be used together/],
    ['--partition 1 --offset 1M d [ s ]', /^--partition and --offset cannot be used together/],
    ['--partition 1 --size 1M d [ s ]', /^--partition and --size cannot be used together/],
    ['--partitions --offset 1M d [ s ]', /^--partitions and --offset cannot/],

    ['d [ s', /^\[ without \]/],
    ['d [', /^\[ without \]/],
    ['[', /^\[ without \]/],
    ['d [ ]', /no command between/],
    ['d s ]', /^\] without a \[/],
    ['d ]', /^\] without a \[/],
    ['d [ s ] -r', /^-r stands after the \]/],
    ['d [ s ] nbd://h', /^nbd:\/\/h stands after the \]/],
    ['d [ s 1G]', /put a space before the \] in 1G\]/],
    ['d [s 1G ]', /^\] without a \[/],
    ['d [s 1G]', /^\[s: put a space after the \[/],

    ['--cahce none d [ s ]', /unknown option '--cahce' \(Did you mean --cache\?\)/],
    ['--conn 2 d [ s ]', /^--conn can be --connect-timeout or --connections$/],
    ['--ver d [ s ]', /^--ver can be --verbose or --version$/],
    ['-x d [ s ]', /unknown option '-x'/],
    [
      '--cache=all d [ s ]',
      /'--cache <mode>' argument 'all' is invalid.*writeback, writethrough, none/,
    ],
    ['d [ s ] --cache', /stands after the \]/],
    ['d nbd://h --cache', /argument missing/],
    ['d nbd://h -P', /argument missing/],
    ['--connect-timeout=0 d [ s ]', /number of seconds/],
    ['--connect-timeout=-1 d [ s ]', /number of seconds/],
    ['--connect-timeout=1h d [ s ]', /number of seconds/],
    ['--connect-timeout=9e9 d [ s ]', /number of seconds/],
    ['--connect-timeout=99999999 d [ s ]', /number of seconds/],
  ];
  for (const [line, message] of table) {
    it(line === '' ? '(nothing)' : line, () =>
      assert.throws(
        () => parse(line),
        (error) => {
          assert.ok(error instanceof UsageError, String(error));
          assert.match(error.message, message);
          assert.ok(!error.message.includes('\n'));
          assert.ok(!error.message.startsWith('error:'));
          return true;
        },
      ),
    );
  }

  it('an empty word for a name', () => {
    assert.throws(() => parseCommandLine(['', '[', 's', ']']), /mountpoint is an empty word/);
    assert.throws(() => parseCommandLine(['d', '[', '', ']']), /empty word/);
    assert.throws(() => parseCommandLine(['d', '--command', '']), /empty word/);
    assert.throws(() => parseCommandLine(['d', '--unix', '']), /empty word behind it/);
    assert.throws(() => parseCommandLine(['d', '--tcp', '', '1']), /empty word behind it/);
  });
});

describe('the name of the command', () => {
  const cacheOf = (calledAs: string, ...options: string[]): unknown => {
    const parsed = parseCommandLine([...options, 'd', '[', 's', ']'], calledAs);
    return parsed.kind === 'mount' ? parsed.cache : parsed.kind;
  };

  it('nbdfuse has writes at the server when they return, unless it is told otherwise', () => {
    assert.equal(cacheOf('nbdfuse'), 'writethrough');
    assert.equal(cacheOf('nbdfuse', '--cache=writeback'), 'writeback');
    assert.equal(cacheOf('tsnbdfuse'), 'writeback');
  });
});
