import assert from 'node:assert/strict';
import { it } from 'node:test';
import { newSocketName, parseSocketNames, peerOf } from '../../src/control/socket-name.js';
import { checkResult } from '../../src/errno.js';
import { native } from '../../src/native.js';

const TABLE = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000001: 00000002 00000000 00010000 0001 01 4019314 /run/other.sock
0000000000000002: 00000002 00000000 00010000 0001 01 4020545 @tsnbdfuse/0:41/25951-28733
0000000000000003: 00000003 00000000 00000000 0001 03  402054 @tsnbdfuse/0:42/25952-28734
0000000000000004: 00000003 00000000 00000000 0001 03  402055
0000000000000005: 00000002 00000000 00010000 0001 01     546 @tsnbdfuse/0:43/7-1
0000000000000006: 00000002 00000000 00010000 0001 01     547 @tsnbdfuse/0:44/7-1@
0000000000000007: 00000002 00000000 00010000 0001 01     548 @tsnbdfuse/../../x
0000000000000008: 00000002 00000000 00010000 0001 01     549 /tmp/@tsnbdfuse/0:45/7-1
`;

it('the table of sockets is read for those of ours that are listened to', () => {
  assert.deepEqual(parseSocketNames(TABLE), [
    { name: 'tsnbdfuse/0:41/25951-28733', device: '0:41' },
    { name: 'tsnbdfuse/0:43/7-1', device: '0:43' },
  ]);
});

it('a name is found again, and no two are the same', () => {
  const name = newSocketName('0:41');
  assert.notEqual(newSocketName('0:41'), name);
  const line = `0: 00000002 00000000 00010000 0001 01 4020545 @${name}`;
  assert.deepEqual(parseSocketNames(line), [{ name, device: '0:41' }]);
});

it('the kernel tells who is at the other end, and of what is no socket nobody', () => {
  const ends = new Int32Array(2);
  checkResult(native.socketpair(ends), 'socketpair');
  const [ours = -1, theirs = -1] = ends;
  try {
    assert.deepEqual(peerOf(ours), { pid: process.pid, uid: process.geteuid?.() });
  } finally {
    native.close(ours);
    native.close(theirs);
  }
  assert.equal(peerOf(-1), undefined);
});
