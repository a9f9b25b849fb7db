/** Holes made in the file, also by way of a loop device, reach the server. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const MIB = 1024 * 1024;
const SIZE = 128 * MIB;

/** A workplace for each test, with a disk whose server notes what is asked of it. */
class Logged {
  readonly place: Workplace;
  #mounted: Mounted | undefined;

  constructor(place: Workplace) {
    this.place = place;
  }

  async mount(options: readonly string[], size: string | number = SIZE): Promise<void> {
    const { place } = this;
    await writeFile(place.join('log'), '');
    const server = ['nbdkit', '--filter=log', 'memory', String(size), 'logfile=log'];
    this.#mounted = await place.mount([...options, 'disk.raw', '[', ...server, ']']);
  }

  async unmount(): Promise<void> {
    assert.equal((await this.#mounted?.unmount('disk.raw'))?.status, 0);
  }

  /** The requests of a kind so far, each as `offset+length`. */
  async requests(kind: 'Trim' | 'Zero'): Promise<string[]> {
    const log = await readFile(this.place.join('log'), 'utf8');
    const lines = log.matchAll(new RegExp(` ${kind} id=\\S+ offset=(\\S+) count=(\\S+)`, 'g'));
    return [...lines].map(([, offset, count]) => `${Number(offset)}+${Number(count)}`);
  }
}

describe('making holes', requires({ root: true, fuse: true, programs: ['nbdkit'] }), () => {
  let place: Workplace;
  let disk: Logged;

  before(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    disk = new Logged(place);
  });
  afterEach(() => place.nothingLeft());
  after(() => place.remove());

  const punch = (offset: number, length: number): Promise<string> =>
    place.ok('fallocate', ['-p', '-o', String(offset), '-l', String(length), 'disk.raw']);

  it('zeroes, and with --trim trims, which zeroing does not', async () => {
    for (const [options, punched, zeroed] of [
      [[], 'Zero', 'Zero'],
      [['--trim'], 'Trim', 'Zero'],
    ] as const) {
      await disk.mount(options);
      await punch(MIB, 2 * MIB);
      assert.deepEqual(await disk.requests(punched), [`${MIB}+${2 * MIB}`]);
      await place.ok('fallocate', ['-z', '-o', '4096', '-l', '8192', 'disk.raw']);
      assert.equal((await disk.requests(zeroed)).at(-1), '4096+8192');
      await disk.unmount();
    }
  });

  it('over more than a request can tell is done in several, up to the end of the disk', async () => {
    const gib = 1024 * MIB;
    for (const [options, kind] of [
      [[], 'Zero'],
      [['--trim'], 'Trim'],
    ] as const) {
      await disk.mount(options, 10 * gib + 1000);
      await punch(MIB, 20 * gib);
      const most = 2 ** 32 - 65536;
      const end = 10 * gib + 1000;
      assert.deepEqual(await disk.requests(kind), [
        `${MIB}+${most}`,
        `${MIB + most}+${most}`,
        `${MIB + 2 * most}+${end - MIB - 2 * most}`,
      ]);
      await disk.unmount();
    }
  });
});

const LOOP = {
  root: true,
  fuse: true,
  loop: true,
  programs: ['nbdkit', 'losetup', 'blkdiscard', 'fstrim', 'mkfs.ext4', 'mount', 'umount'],
};

describe('a loop device over the file', requires(LOOP), () => {
  let place: Workplace;
  let disk: Logged;

  beforeEach(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
    await mkdir(place.join('files'));
    disk = new Logged(place);
  });
  afterEach(async () => {
    try {
      await place.nothingLeft();
    } finally {
      await place.remove();
    }
  });

  /** Whatever the test does, the device lets go of the file. */
  async function withLoop(run: (device: string) => Promise<void>): Promise<void> {
    const device = (await place.ok('losetup', ['--find', '--show', 'disk.raw'])).trim();
    try {
      await run(device);
    } finally {
      await place.run('umount', ['files']);
      await place.ok('losetup', ['-d', device]);
      // It is let go when the last one closes it, which may be somebody who looks at new devices.
      await until('the loop device is free', async () => {
        const { stdout } = await place.run('losetup', ['-n', '-O', 'BACK-FILE', device]);
        return stdout.trim() === '';
      });
    }
  }

  for (const [option, kind] of [
    [[], 'Zero'],
    [['--trim'], 'Trim'],
  ] as const) {
    it(`passes a discard on${option.length > 0 ? ' as a trim, with --trim' : ''}`, async () => {
      await disk.mount(option);
      await place.file('data', randomBytes(4 * MIB));
      await withLoop(async (device) => {
        await place.ok('dd', ['if=data', `of=${device}`, 'bs=1M', 'oflag=direct']);
        await place.ok('blkdiscard', ['-o', String(MIB), '-l', String(MIB), device]);
        assert.deepEqual(await disk.requests(kind), [`${MIB}+${MIB}`]);
        const left = await readFile(place.join('data'));
        left.fill(0, MIB, 2 * MIB);
        await writeFile(place.join('left'), left);
        // nbdkit's memory reads as zeroes where it was trimmed.
        await place.ok('cmp', ['-n', String(4 * MIB), 'left', device]);
        await place.ok('blkdiscard', ['-f', device]);
        assert.equal((await disk.requests(kind)).at(-1), `0+${SIZE}`);
      });
      await disk.unmount();
    });
  }

  it('holds a file system that gives back what is deleted', async () => {
    await disk.mount([]);
    const allocated = async (): Promise<number> =>
      512 * Number(await place.ok('stat', ['-c', '%b', 'disk.raw']));
    await withLoop(async (device) => {
      await place.ok('mkfs.ext4', ['-q', '-E', 'discard', device]);
      assert.equal((await disk.requests('Zero')).includes(`0+${SIZE}`), true);
      await place.ok('mount', [device, 'files']);
      await place.file('files/data', randomBytes(32 * MIB));
      await place.ok('sync', ['-f', 'files']);
      await until('the file takes its room', async () => (await allocated()) >= 32 * MIB);
      await place.ok('rm', ['files/data']);
      await place.ok('sync', ['-f', 'files']);
      await place.ok('fstrim', ['files']);
      await place.ok('sync', ['-f', 'files']);
      await until('its room is given back', async () => (await allocated()) < 16 * MIB);
      await place.ok('umount', ['files']);
      await place.ok('fsck.ext4', ['-fn', device]);
    });
    await disk.unmount();
  });
});
