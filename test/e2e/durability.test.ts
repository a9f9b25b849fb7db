/** What fsync, close and O_SYNC promise is asked of the server before they return. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Workplace } from '../support/mounts.js';
import { requires } from '../support/requires.js';

describe('durability', requires({ root: true, fuse: true, programs: ['nbdkit', 'dd'] }), () => {
  let place: Workplace;

  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
  });
  afterEach(async () => {
    try {
      await place.nothingLeft();
    } finally {
      await place.remove();
    }
  });

  const dd = ['if=/dev/zero', 'of=disk.raw', 'bs=4096', 'count=1', 'status=none'];

  /** What nbdkit's log filter wrote: a line when a command comes, and one when it is done. */
  const logged = (): Promise<string> => readFile(place.join('log'), 'utf8');

  for (const cache of ['writeback', 'writethrough', 'none']) {
    for (const [name, args] of [
      ['close', ['conv=notrunc']],
      ['fsync', ['conv=notrunc,fsync']],
      ['fdatasync', ['conv=notrunc,fdatasync']],
    ] as const) {
      it(`${name} with --cache=${cache} is answered after a flush`, async () => {
        const server = ['nbdkit', '--filter=log', 'memory', '1M', 'logfile=log'];
        const mounted = await place.mount([`--cache=${cache}`, 'disk.raw', '[', ...server, ']']);
        await place.ok('dd', [...dd, ...args]);
        const commands = await logged();
        assert.match(commands, / Write [^]* Flush /);
        assert.equal((await mounted.unmount('disk.raw')).status, 0);
      });
    }

    for (const flags of ['dsync', 'sync', 'direct,dsync']) {
      it(`a write with oflag=${flags} and --cache=${cache} is durable when it returns`, async () => {
        const server = ['nbdkit', '--filter=log', 'memory', '1M', 'logfile=log'];
        const mounted = await place.mount([`--cache=${cache}`, 'disk.raw', '[', ...server, ']']);
        await place.ok('dd', [...dd, 'conv=notrunc', `oflag=${flags}`]);
        assert.match(await logged(), / Write .*fua=1| Write [^]* Flush /);
        assert.equal((await mounted.unmount('disk.raw')).status, 0);
      });
    }
  }

  it('is by FUA where the server has it and no flush', async () => {
    const script = [
      'nbdkit',
      '--filter=log',
      'eval',
      'logfile=log',
      'get_size=echo 1M',
      'pread=dd if=/dev/zero bs=$3 count=1 status=none',
      'pwrite=cat >/dev/null',
      'can_write=exit 0',
      'can_flush=exit 3',
      'can_fua=echo native',
    ];
    const mounted = await place.mount(['disk.raw', '[', ...script, ']']);
    await place.ok('dd', [...dd, 'conv=notrunc,fsync']);
    assert.match(await logged(), / Write .*fua=1/);
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
  });

  it('cannot be where the server has neither, which is told', async () => {
    const server = ['nbdkit', 'eval', 'get_size=echo 1M', 'can_fua=echo none'];
    const script = ['pread=dd if=/dev/zero bs=$3 count=1 status=none', 'pwrite=cat >/dev/null'];
    const more = ['can_write=exit 0', 'can_flush=exit 3'];
    const mounted = await place.mount(['disk.raw', '[', ...server, ...script, ...more, ']']);
    await place.ok('dd', [...dd, 'conv=notrunc']);
    const ended = await mounted.unmount('disk.raw');
    assert.equal(ended.status, 0);
    assert.match(ended.stderr, /^tsnbdfuse: .*neither flush nor write through/m);
  });

  it('ends with status 7 and a line when a write from the page cache is lost', async () => {
    const server = ['nbdkit', '--filter=error', 'memory', '1M', 'error-pwrite=EIO'];
    const mounted = await place.mount(['disk.raw', '[', ...server, 'error-pwrite-rate=100%', ']']);
    assert.notEqual((await place.run('dd', [...dd, 'conv=notrunc'])).status, 0);
    const ended = await mounted.unmount('disk.raw');
    assert.equal(ended.status, 7);
    assert.match(ended.stderr, /^tsnbdfuse: writing to .* at 0 failed/m);
  });
});
