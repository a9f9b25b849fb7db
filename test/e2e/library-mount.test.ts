/** Mounting from a program: its file, its end in every way, and what is left behind. */

import assert from 'node:assert/strict';
import { mkdir, open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import type { Running } from '../support/mounts.js';
import type { Plan } from '../support/library-user.js';
import { startNbdkit } from '../support/real-servers.js';
import { findProgram, requires } from '../support/requires.js';

const USER = join(import.meta.dirname, '..', 'support', 'library-user.js');
const MIB = 1024 * 1024;

describe('a mount of a program', requires({ root: true, fuse: true }), () => {
  let place: Workplace;
  let at: string;

  beforeEach(async () => {
    place = await Workplace.create();
    at = await place.file('disk.raw');
  });
  afterEach(() => place.finish());

  const start = (plan: Partial<Plan>): Running =>
    place.start(process.execPath, [USER, JSON.stringify({ at, disk: 'memory', ...plan })], {
      talk: true,
    });

  const said = (user: Running, what: string | RegExp): Promise<void> =>
    until(`it says ${String(what)}, and not ${user.stdout}${user.stderr}`, () =>
      typeof what === 'string' ? user.stdout.includes(what) : what.test(user.stdout),
    );

  async function mounted(plan: Partial<Plan> = {}): Promise<Running> {
    const user = start(plan);
    await said(user, 'mounted: ');
    return user;
  }

  /** Writes from here, which is another process than the one that serves it. */
  async function write(path: string, text: string, sync = true): Promise<void> {
    const file = await open(path, 'r+');
    try {
      await file.write(text, 0);
      if (sync) await file.sync();
    } finally {
      await file.close();
    }
  }

  it('is a file, whose content is the disk, until it is unmounted', async () => {
    const user = await mounted();
    assert.match(user.stdout, new RegExp(`^handlers: 0\nmounted: ${at}$`, 'm'));
    assert.equal((await stat(at)).size, 16 * MIB);
    await write(at, 'from outside');
    user.tell('show\nunmount\n');
    const { status, stdout } = await user.ended;
    assert.equal(status, 0);
    assert.match(stdout, /^content: from outside\0+\nunmounted\nover$/m);
    assert.equal((await readFile(at)).length, 0);
  });

  it('may be in a directory, a range of the disk, and read-only', async () => {
    await mkdir(place.join('dir'));
    const user = await mounted({
      at: place.join('dir/part'),
      offset: 512,
      size: 1024,
      readOnly: true,
    });
    assert.equal((await readFile(place.join('dir/part'))).length, 1024);
    await assert.rejects(open(place.join('dir/part'), 'r+'), { code: 'EROFS' });
    user.tell('close\n');
    assert.match((await user.ended).stdout, /^closed\nover$/m);
  });

  it('is unmounted by somebody else', async () => {
    const user = await mounted();
    await place.ok(
      findProgram('fusermount3') ?? 'umount',
      ['-u', at].slice(findProgram('fusermount3') === undefined ? 1 : 0),
    );
    const { status, stdout } = await user.ended;
    assert.equal(status, 0);
    assert.match(stdout, /^over$/m);
  });

  it('stays while somebody has it open, unless it is closed', async () => {
    const user = await mounted();
    const holder = await open(at, 'r+');
    try {
      user.tell('unmount-nan\n');
      await said(user, /^unmounted failed: RangeError : the time to unmount is no number of .*$/m);
      user.tell('unmount\n');
      await said(user, /^unmounted failed: MountError EBUSY: .*somebody has it open$/m);
      assert.equal((await place.mounts()).length, 1);
      await holder.write('cached', 0);
      user.tell('close\n');
      await said(user, /^closed$/m);
      assert.deepEqual(await place.mounts(), []);
    } finally {
      await holder.close().catch(() => undefined);
    }
    assert.equal((await user.ended).status, 0);
  });

  it('ends with its signal', async () => {
    const user = await mounted();
    await write(at, 'saved', false);
    user.tell('abort\n');
    const { status, stdout } = await user.ended;
    assert.equal(status, 0);
    assert.match(stdout, /^ended\nover$/m);
  });

  it('never comes about where the signal is given before', async () => {
    const early = await start({ abortAfter: 0, disk: 'no answer' }).ended;
    assert.match(early.stdout, /^over failed: AbortError /m);
    assert.doesNotMatch(early.stdout, /mounted/);
    const late = await start({ abortAfter: 500, disk: 'no answer' }).ended;
    assert.match(late.stdout, /^over failed: AbortError /m);
    assert.equal(late.status, 0);
  });

  it('ends with its signal also where that comes as it is mounted', async () => {
    const user = start({ abortAtLast: true });
    const { status, stdout } = await user.ended;
    assert.deepEqual(await place.mounts(), []);
    assert.equal(status, 0);
    assert.match(stdout, /^mounted: .*\nover$/m);
  });

  it('saves all in the longest time there is', async () => {
    const user = await mounted({ closeTimeout: 2 ** 31 - 1 });
    const holder = await open(at, 'r+');
    try {
      await holder.write('cached', 0);
      user.tell('close\n');
      const { status, stdout, stderr } = await user.ended;
      assert.equal(stderr, '');
      assert.match(stdout, /^closed\nover$/m);
      assert.equal(status, 0);
    } finally {
      await holder.close().catch(() => undefined);
    }
  });

  it('tells each time that a flush failed, whatever its error is', async () => {
    const user = await mounted({ disk: 'no flush' });
    // The kernel would take ENOSYS for a file system that needs none, and ask no more.
    for (let i = 0; i < 2; i++) await assert.rejects(write(at, 'text'), { code: 'EIO' });
    user.tell('unmount\n');
    assert.match((await user.ended).stdout, /^unmounted failed: ErrnoError /m);
  });

  it('tells what could not be written', async () => {
    const user = await mounted({ disk: 'full' });
    await assert.rejects(write(at, 'too much'), { code: 'ENOSPC' });
    user.tell('unmount\n');
    assert.match((await user.ended).stdout, /^unmounted failed: ErrnoError ENOSPC: writing back /m);
  });

  it('ends also where the disk does not answer any more', async () => {
    const user = await mounted({ disk: 'no write', closeTimeout: 500 });
    // Whoever waits there is let go when it ends.
    const writer = place.start('dd', [
      `of=${at}`,
      'if=/dev/zero',
      'bs=4k',
      'count=1',
      'conv=notrunc,fsync',
    ]);
    await place.untilWaits(writer);
    user.tell('close\n');
    const { stdout } = await user.ended;
    assert.match(stdout, /^closed failed: ErrnoError (ETIMEDOUT|EIO)/m);
    assert.notEqual((await writer.ended).status, 0);
  });

  it('refuses in one line what cannot be', async () => {
    const nowhere = await start({ at: place.join('none/disk') }).ended;
    assert.match(nowhere.stdout, /^over failed: MountError ERR_MOUNT: .+\n$/);
    const option = await start({ fuseOptions: ['nonsense'] }).ended;
    assert.match(option.stdout, /^over failed: MountOptionError : .+\n$/);
    const part = await start({ partition: 7 }).ended;
    assert.match(part.stdout, /^over failed: PartError : .+\n$/);
    const none = await start({ disk: 'forgotten' }).ended;
    assert.match(none.stdout, /^over failed: TypeError : it is no disk, nor has one: .+\n$/);
    const both = await start({ partition: 1, offset: 512 }).ended;
    assert.match(both.stdout, /^over failed: RangeError : .+\n$/);
  });

  it('shows the export of a server', requires({ programs: ['nbdkit'] }), async () => {
    const server = await startNbdkit(['memory', '1M']);
    try {
      const user = await mounted({ disk: `nbd+unix:///?socket=${server.socketPath}` });
      await write(at, 'to the server');
      user.tell('show\nclose\n');
      assert.match((await user.ended).stdout, /^content: to the server\0+\nclosed\nover$/m);
    } finally {
      await server.stop();
    }
  });
});
