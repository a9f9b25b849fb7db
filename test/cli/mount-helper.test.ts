import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { MountCommand } from '../../src/cli/command-line.js';
import { CommandError, UsageError } from '../../src/cli/errors.js';
import { helperStatus, isMountHelper, parseMountHelper } from '../../src/cli/mount-helper.js';

const URI = 'nbd://server.example/export';

function mount(...args: string[]): MountCommand {
  const parsed = parseMountHelper([URI, '/tmp', ...args]);
  assert.equal(parsed.kind, 'mount');
  return parsed;
}

describe('a call of mount(8)', () => {
  it('is told by the name of the command, or by a form that nobody types', () => {
    for (const [args, name, isOne] of [
      [[], 'mount.fuse.tsnbdfuse', true],
      [[URI, '/mnt', '-o', 'rw,dev,suid'], 'tsnbdfuse', true],
      [['nbd+unix:///?socket=/s', '/mnt', '-o', 'rw'], 'tsnbdfuse', true],
      [[URI, '/mnt', '-o', 'rw'], 'nbdfuse', false],
      [[URI, '/mnt'], 'tsnbdfuse', false],
      [[URI, 'mnt', '-o', 'rw'], 'tsnbdfuse', false],
      [['/mnt', URI, '-o', 'rw'], 'tsnbdfuse', false],
      [[URI, '/mnt', '-o', 'rw', '-r'], 'tsnbdfuse', false],
      [['http://server/', '/mnt', '-o', 'rw'], 'tsnbdfuse', false],
    ] as const) {
      assert.equal(isMountHelper(args, name), isOne, `${name} ${args.join(' ')}`);
    }
  });

  it('is a daemon that shows the source in the directory', () => {
    const { mountpoint, source, daemon, cache } = mount();
    assert.deepEqual(
      [mountpoint, source, daemon, cache],
      ['/tmp', { kind: 'uri', uri: URI }, true, 'writeback'],
    );
  });

  it('takes options of our own by their names', () => {
    const options = [
      'cache=none,connections=2,timeout=5,reconnect=forever,connect_timeout=1.5',
      'unflushed-limit=2M,offset=1M,size=10M,trim,pidfile=/run/a\\,b.pid,log=/var/log/x=y',
    ];
    const { cache, connections, patience, connectTimeout, window, trim, pidfile, log } = mount(
      ...options.flatMap((option) => ['-o', option]),
    );
    assert.deepEqual(
      { cache, connections, patience, connectTimeout, window, trim, pidfile, log },
      {
        cache: 'none',
        connections: 2,
        patience: { timeout: 5000, reconnect: 60_000, forever: true, unflushedLimit: 2 << 20 },
        connectTimeout: 1500,
        window: { offset: 1n << 20n, size: 10n << 20n },
        trim: true,
        pidfile: '/run/a,b.pid',
        log: '/var/log/x=y',
      },
    );
    assert.equal(mount('-opartition=2').partition, 2);
    assert.equal(mount('-o', 'partitions').partitions, true);
  });

  it('takes what is to be said of an image, and where metrics are served', () => {
    const line = ['-o', 'format=qcow2,backing,metrics=/run/disk.metrics'];
    const parsed = parseMountHelper(['/srv/disk', '/tmp', ...line]);
    assert.ok(parsed.kind === 'mount');
    assert.deepEqual(
      [parsed.source, parsed.metrics],
      [
        { kind: 'image', path: '/srv/disk', format: 'qcow2', backing: true },
        { kind: 'unix', path: '/run/disk.metrics' },
      ],
    );
  });

  it('takes those of FUSE and of mount(8), and passes over those of fstab', () => {
    const { fuse, readOnly } = mount(
      '-o',
      'defaults,rw,ro,allow_other,uid=5,noexec,fsname=a\\,b,_netdev,_rnetdev,nofail,noauto,auto,user,users,owner,group,nouser,user=joe,x-systemd.automount,X-mount.mkdir,comment=hi',
    );
    assert.equal(readOnly, true);
    assert.deepEqual([fuse.allowOther, fuse.uid, fuse.fsname], [true, 5, 'a,b']);
    assert.deepEqual(fuse.flags, ['noexec']);
    assert.equal(mount('-r').readOnly, true);
    assert.equal(mount('-o', 'ro,rw').readOnly, false);
  });

  it('takes the flags of a helper', () => {
    assert.equal(mount('-nvw', '-t', 'fuse.tsnbdfuse', '-s', '-o', 'frob,ro').readOnly, true);
    assert.deepEqual(parseMountHelper(['-f', URI, '/tmp']), { kind: 'help', text: '' });
    assert.equal(parseMountHelper(['-V']).kind, 'version');
    const help = parseMountHelper(['--help']);
    assert.ok(help.kind === 'help' && help.text.includes('cache=, connections='));
  });

  for (const [args, message] of [
    [[], 'SOURCE and DIR are missing'],
    [[URI], 'DIR is missing'],
    [[URI, '/tmp', 'more'], 'more: nothing can follow SOURCE and DIR'],
    [[URI, '/tmp', '-x'], 'there is no option -x'],
    [[URI, '/tmp', '-o'], '-o needs a word behind it'],
    [[URI, '/tmp', '-N', '/proc/1/ns/mnt'], /^-N: another mount namespace cannot be had/],
    [[URI, '/tmp', '-o', 'frob'], /^-o there is no option frob;/],
    [[URI, '/tmp', '-o', 'cache=fast'], /^-o cache=fast is invalid\. Allowed choices are/],
    [[URI, '/tmp', '-o', 'connections=0'], /^-o connections=0 is invalid\. It is a number/],
    [[URI, '/tmp', '-s', '-o', 'cache=fast'], /^-o cache=fast is invalid/],
    [[URI, '/tmp', '-o', 'timeout'], '-o timeout needs a value: timeout=...'],
    [[URI, '/tmp', '-o', 'trim=1'], '-o trim takes no value'],
    [[URI, '/tmp', '-o', 'remount,ro'], /^-o remount: .*unmount it/],
    [['', '/tmp'], /empty/],
  ] as const) {
    it(`is refused: ${args.join(' ')}`, () => {
      assert.throws(
        () => parseMountHelper(args),
        (error) => {
          assert.ok(error instanceof UsageError);
          if (typeof message === 'string') assert.equal(error.message, message);
          else assert.match(error.message, message);
          return true;
        },
      );
    });
  }

  it('makes no file of a directory that is not there', () => {
    for (const missing of ['/nowhere', '/dev/null/x']) {
      assert.throws(() => parseMountHelper([URI, missing]), CommandError);
    }
  });

  it('ends with what mount(8) passes on', () => {
    assert.deepEqual([0, 1, 2, 3, 130, 143].map(helperStatus), [0, 32, 1, 32, 8, 8]);
  });
});
