import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { UsageError } from '../../src/cli/errors.js';
import { isUmountHelper, parseUmountHelper } from '../../src/cli/umount-helper.js';
import type { UmountCall } from '../../src/cli/umount-helper.js';

function umount(...args: string[]): UmountCall {
  const parsed = parseUmountHelper(args);
  assert.equal(parsed.kind, 'umount-helper');
  return parsed;
}

describe('a call of umount(8)', () => {
  it('is told by the name of the command', () => {
    assert.ok(isUmountHelper('umount.fuse.tsnbdfuse'));
    for (const name of ['tsnbdfuse', 'mount.fuse.tsnbdfuse']) assert.ok(!isUmountHelper(name));
  });

  it('is an unmount that waits, for as long as that of the command', () => {
    const { unmount, isPlain } = umount('/mnt/disk');
    assert.deepEqual(unmount, {
      kind: 'unmount',
      mountpoint: '/mnt/disk',
      isLazy: false,
      patience: 30_000,
      verbose: false,
    });
    assert.equal(isPlain, false);
  });

  it('is left to umount(8) where waiting is not wanted, or is for another namespace', () => {
    for (const [words, isPlain] of [
      [['/mnt', '-n', '-v', '-r', '-t', 'fuse.tsnbdfuse'], false],
      [['/mnt', '-nvr'], false],
      [['/mnt', '-l'], true],
      [['/mnt', '-nf'], true],
      [['/mnt', '-N', '/proc/1/ns/mnt'], true],
      [['--', '-l'], false],
    ] as const) {
      const call = umount(...words);
      assert.equal(call.isPlain, isPlain, words.join(' '));
      assert.deepEqual(call.words, words);
    }
  });

  it('is refused in one line where it is not one', () => {
    for (const [words, message] of [
      [[], 'DIR is missing'],
      [[''], 'DIR is missing'],
      [['/mnt', '/other'], '/other: nothing can follow DIR'],
      [['/mnt', '-x'], "Unknown option '-x'"],
      [['/mnt', '-t'], /^Option '-t, --types <value>' argument missing$/],
    ] as const) {
      assert.throws(
        () => parseUmountHelper(words),
        (error) => {
          assert.ok(error instanceof UsageError);
          if (typeof message === 'string') assert.equal(error.message, message);
          else assert.match(error.message, message);
          return true;
        },
      );
    }
  });

  it('prints what it is asked for', () => {
    assert.equal(parseUmountHelper(['-V']).kind, 'version');
    const help = parseUmountHelper(['--help']);
    assert.ok(help.kind === 'help' && help.text.startsWith('usage: umount.fuse.tsnbdfuse DIR'));
  });
});
