import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  MountOptionError,
  NO_FUSE_OPTIONS,
  filePermissions,
  flagBits,
  parseFuseOptions,
  splitOptions,
} from '../../src/fuse/mount-options.js';
import type { FuseOptions } from '../../src/fuse/mount-options.js';

const parse = (...texts: string[]): FuseOptions => parseFuseOptions(texts, false);

describe('splitOptions', () => {
  const table: readonly (readonly [string, readonly string[]])[] = [
    ['', []],
    ['a', ['a']],
    ['a,b=c', ['a', 'b=c']],
    [',a,,b,', ['a', 'b']],
    [String.raw`fsname=a\,b,c`, ['fsname=a,b', 'c']],
    [String.raw`a\\,b`, ['a\\', 'b']],
    [String.raw`a\b`, ['ab']],
    // A backslash with nothing to guard is one.
    ['a\\', ['a\\']],
    // Octal: a comma, and an é of two bytes.
    [String.raw`a\054b\303\251`, ['a,bé']],
    [String.raw`\05x`, ['05x']],
    ['fsname=é\n', ['fsname=é\n']],
  ];
  for (const [text, words] of table) {
    it(JSON.stringify(text), () => assert.deepEqual(splitOptions(text), words));
  }

  it('gives back what was guarded', () =>
    fc.assert(
      fc.property(fc.array(fc.string({ minLength: 1, unit: 'grapheme' })), (words) => {
        const text = words.map((word) => word.replace(/[\\,]/g, String.raw`\$&`)).join(',');
        assert.deepEqual(splitOptions(text), words);
      }),
    ));
});

describe('the options of -o', () => {
  const table: readonly (readonly [string, Partial<FuseOptions>])[] = [
    ['', {}],
    ['allow_other', { allowOther: true, defaultPermissions: true }],
    ['allow_root', { allowRoot: true, defaultPermissions: true }],
    ['default_permissions', { defaultPermissions: true }],
    ['auto_unmount', { autoUnmount: true }],
    ['kernel_cache', { kernelCache: true }],
    ['uid=0', { uid: 0 }],
    ['uid=1000,gid=4294967294', { uid: 1000, gid: 4294967294 }],
    ['umask=077', { umask: 0o77 }],
    ['umask=0022', { umask: 0o22 }],
    ['max_read=4096', { maxRead: 4096 }],
    ['max_read=0', {}],
    ['fsname=a=b', { fsname: 'a=b' }],
    ['subtype=disk', { subtype: 'disk' }],
    ['ro', { readOnly: true }],
    ['ro,rw', {}],
    ['rw,ro', { readOnly: true }],
    ['debug', { debug: true }],
    [
      'nosuid,nodev,noexec,noatime,sync',
      { flags: ['nosuid', 'nodev', 'noexec', 'noatime', 'sync'] },
    ],
    // Of libfuse, without a meaning here.
    ['clone_fd,max_idle_threads=-1,max_threads=10,noforget,remember=5', {}],
    ['auto_cache,noauto_cache,no_rofd_flush', {}],
    ['entry_timeout=1.0,negative_timeout=0,attr_timeout=2.,ac_attr_timeout=1', {}],
    // Of fstab.
    ['defaults,noauto,nofail,_netdev,user,nouser,users,x-systemd.automount,comment=a', {}],
    ['relatime,norelatime,lazytime,strictatime,nodiratime', {}],
  ];
  for (const [text, expected] of table) {
    it(text === '' ? '(none)' : text, () =>
      assert.deepEqual(parse(text), { ...NO_FUSE_OPTIONS, ...expected }),
    );
  }

  it('may come in several -o, of which the last one counts', () =>
    assert.deepEqual(parse('uid=1,ro', 'uid=2'), { ...NO_FUSE_OPTIONS, uid: 2, readOnly: true }));

  const wrong: readonly (readonly [string, RegExp])[] = [
    ['foo', /^there is no option foo; see --fuse-help/],
    ['ALLOW_OTHER', /^there is no option ALLOW_OTHER/],
    // Would change what the file is called, or is the mount's own business.
    ['modules=subdir', /^there is no option modules=subdir/],
    ['fd=3', /^there is no option fd=3/],
    ['rootmode=40000', /^there is no option rootmode/],
    ['toString', /^there is no option toString/],
    ['uid', /^uid needs a value: uid=N$/],
    ['uid=', /^uid=: it is a number/],
    ['uid=root', /^uid=root: it is a number/],
    ['uid=-1', /^uid=-1: it is a number/],
    ['gid=4294967295', /^gid=4294967295: it is a number/],
    ['umask=8', /^umask=8: it is an octal number up to 777$/],
    ['umask=1000', /^umask=1000: it is an octal/],
    ['max_read=1k', /^max_read=1k: it is a number of bytes$/],
    ['max_read=4294967296', /^max_read=/],
    ['fsname=', /^fsname= is without a value$/],
    ['allow_other=1', /^allow_other takes no value$/],
    ['ro=', /^ro takes no value$/],
    ['nosuid=1', /^there is no option nosuid=1/],
    ['attr_timeout=x', /^there is no option attr_timeout=x/],
    ['allow_other,allow_root', /only one of them/],
    ['suid', /^suid: only root may ask for it$/],
    ['dev', /^dev: only root may ask for it$/],
  ];
  for (const [text, message] of wrong) {
    it(`refuses ${text}`, () =>
      assert.throws(
        () => parse(text),
        (error) => {
          assert.ok(error instanceof MountOptionError);
          assert.match(error.message, message);
          return true;
        },
      ));
  }

  it('lets root have suid and dev, which mount(8) passes', () =>
    assert.deepEqual(parseFuseOptions(['rw,dev,suid'], true).flags, ['dev', 'suid']));

  it('never throw anything else', () =>
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          parse(text);
        } catch (error) {
          assert.ok(error instanceof MountOptionError);
        }
      }),
    ));
});

describe('what is made of them', () => {
  it('the bits for mount(2)', () => {
    const [nosuid, nodev, noexec, sync, noatime] = [2, 4, 8, 16, 1024];
    assert.equal(flagBits([]), nosuid | nodev);
    assert.equal(flagBits(['suid', 'dev']), 0);
    assert.equal(flagBits(['suid', 'nosuid', 'noexec']), nosuid | nodev | noexec);
    assert.equal(flagBits(['sync', 'noatime']), nosuid | nodev | sync | noatime);
    assert.equal(flagBits(['sync', 'async']), nosuid | nodev);
  });

  it('the permissions of the file', () => {
    assert.equal(filePermissions(parse('')), 0o600);
    assert.equal(filePermissions(parse('allow_root')), 0o600);
    assert.equal(filePermissions(parse('allow_other')), 0o666);
    assert.equal(filePermissions(parse('umask=027')), 0o640);
    assert.equal(filePermissions(parse('allow_other,umask=022')), 0o644);
  });
});
