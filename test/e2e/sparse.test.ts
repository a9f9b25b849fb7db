/** Disks that are nearly empty: what stat tells of them, and tools that copy what there is and no more. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readFile, stat } from 'node:fs/promises';
import { after, afterEach, before, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const MIB = 1024 * 1024;
const TIB = 1024 ** 4;
const PIECES = 32;
const PROGRAMS = ['nbdkit', 'qemu-img', 'qemu-nbd', 'xfs_io', 'tar', 'du'];

describe('sparse disks', requires({ root: true, fuse: true, programs: PROGRAMS }), () => {
  let place: Workplace;

  before(async () => {
    place = await Workplace.create();
    await place.file('disk.raw');
  });
  afterEach(() => place.nothingLeft());
  after(() => place.remove());

  /** Writes pieces of data, far apart and with one at each end. */
  async function scatter(size: number, piece: number, pieces: number): Promise<void> {
    const handle = await open(place.join('disk.raw'), 'r+');
    try {
      const step = Math.floor((size - piece) / (pieces - 1) / piece) * piece;
      for (let i = 0; i < pieces; i++) {
        await handle.write(
          randomBytes(piece),
          0,
          piece,
          i === pieces - 1 ? size - piece : i * step,
        );
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  const allocated = async (name = 'disk.raw'): Promise<number> =>
    512 * Number(await place.ok('stat', ['-c', '%b', name]));

  const isAllocated = (bytes: number): Promise<void> =>
    until(`${bytes} bytes are allocated`, async () => (await allocated()) === bytes);

  /** Copies the disk with each tool and compares. None could read all of it in the time it has. */
  async function copyWithAll(room: number): Promise<void> {
    const compare = (format: string, name: string): Promise<string> =>
      place.ok('qemu-img', ['compare', '-f', 'raw', '-F', format, 'disk.raw', name]);
    const convert = ['convert', '-f', 'raw', 'disk.raw'];
    for (const [program, args, made, format] of [
      ['cp', ['disk.raw', 'out'], 'out', 'raw'],
      ['cp', ['--sparse=always', 'disk.raw', 'out'], 'out', 'raw'],
      ['qemu-img', [...convert, '-O', 'raw', 'out'], 'out', 'raw'],
      ['qemu-img', [...convert, '-O', 'qcow2', 'out.qcow2'], 'out.qcow2', 'qcow2'],
    ] as const) {
      await place.ok('rm', ['-f', made]);
      await place.ok(program, args);
      await compare(format, made);
      assert.ok((await allocated(made)) < 2 * room, `${program} copied what there is and no more`);
    }
    await place.ok('tar', ['-Scf', 'disk.tar', 'disk.raw']);
    await place.ok('tar', ['-xf', 'disk.tar', '--transform=s/disk.raw/out/']);
    await compare('raw', 'out');
    assert.ok((await allocated('disk.tar')) < 2 * room, 'tar stored what there is and no more');
    await place.ok('rm', ['-f', 'out', 'out.qcow2', 'disk.tar']);
  }

  for (const server of [
    ['tsnbdkit', 'memory', '1T'],
    ['nbdkit', 'memory', '1T'],
    ['qemu-nbd', '-f', 'qcow2', 'image.qcow2'],
    ['tsnbdkit', 'file', 'image'],
  ]) {
    it(`of 1 TiB of ${server.join(' ')} are copied by what is in them`, async () => {
      await place.ok('rm', ['-f', 'image']);
      await place.ok('truncate', ['-s', '1T', 'image']);
      await place.ok('qemu-img', ['create', '-q', '-f', 'qcow2', 'image.qcow2', '1T']);
      const mounted = await place.mount(['disk.raw', '[', ...server, ']']);
      assert.equal((await stat(place.join('disk.raw'))).size, TIB);
      // Not 0, which tar takes for a file that needs no look.
      await isAllocated(512);
      await copyWithAll(MIB);

      await scatter(TIB, MIB, PIECES);
      await isAllocated(PIECES * MIB);
      assert.equal(await place.ok('du', ['-m', 'disk.raw']), `${PIECES}\tdisk.raw\n`);
      await copyWithAll(PIECES * MIB);
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
    });
  }

  it('have their end behind a hole', async () => {
    const mounted = await place.mount(['disk.raw', '[', 'tsnbdkit', 'memory', '1T', ']']);
    const seek = async (flag: string, from: number): Promise<string> =>
      (await place.ok('xfs_io', ['-r', '-c', `seek ${flag} ${from}`, 'disk.raw'])).trim();
    assert.match(await seek('-d', 0), /DATA\s+EOF$/);
    assert.match(await seek('-d', TIB - 1), /DATA\s+EOF$/);
    assert.match(await seek('-h', 0), /HOLE\s+0$/);
    assert.match(await seek('-h', TIB - 1), new RegExp(`HOLE\\s+${TIB - 1}$`));
    for (const flag of ['-d', '-h']) {
      assert.match(await seek(flag, TIB), /(DATA|HOLE)\s+EOF$/);
      assert.match(await seek(flag, 2 * TIB), /(DATA|HOLE)\s+EOF$/);
    }
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
  });

  it('are asked about once for what the server tells at once', async () => {
    const server = ['nbdkit', '--filter=log', 'memory', '64M', 'logfile=log'];
    const mounted = await place.mount(['disk.raw', '[', ...server, ']']);
    await scatter(64 * MIB, 32 * 1024, 256);
    await isAllocated(256 * 32 * 1024);
    const asked = async (): Promise<number> =>
      (await readFile(place.join('log'), 'utf8')).split(' Extents id=').length;
    const before = await asked();
    await place.ok('cp', ['disk.raw', 'out']);
    assert.equal((await asked()) - before, 1);
    await place.ok('cmp', ['disk.raw', 'out']);
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
  });

  for (const cache of ['writeback', 'writethrough', 'none']) {
    it(`grow by what is written and shrink by holes, with --cache=${cache}`, async () => {
      const server = ['nbdkit', 'memory', '1G'];
      const mounted = await place.mount([`--cache=${cache}`, 'disk.raw', '[', ...server, ']']);
      await isAllocated(512);
      await scatter(1024 * MIB, MIB, 4);
      await isAllocated(4 * MIB);
      await place.ok('fallocate', ['-p', '-o', '0', '-l', String(512 * MIB), 'disk.raw']);
      await isAllocated(2 * MIB);
      // Also for somebody who keeps the file open, and while it is written.
      const handle = await open(place.join('disk.raw'), 'r+');
      try {
        await handle.write(randomBytes(MIB), 0, MIB, 0);
        await handle.sync();
        await until('it has grown', async () => (await handle.stat()).blocks === (3 * MIB) / 512);
      } finally {
        await handle.close();
      }
      await isAllocated(3 * MIB);
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
    });
  }

  it('are full where the server cannot tell, or fails to', async () => {
    for (const server of [
      ['nbdkit', '--no-sr', 'memory', '8M'],
      ['nbdkit', '--filter=error', 'memory', '8M', 'error-extents=EIO', 'error-extents-rate=100%'],
    ]) {
      const mounted = await place.mount(['disk.raw', '[', ...server, ']']);
      await isAllocated(8 * MIB);
      await place.ok('cmp', ['-n', String(8 * MIB), 'disk.raw', '/dev/zero']);
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.deepEqual([status, stderr.replaceAll(/^nbdkit: .*\n/gm, '')], [0, '']);
    }
  });

  it('are told of before all is known where the server is slow', async () => {
    // A request reaches over 4 GiB at the most.
    const slow = ['--filter=delay', 'memory', '24G', 'delay-extents=700ms'];
    const mounted = await place.mount(['disk.raw', '[', 'nbdkit', ...slow, ']']);
    assert.ok((await allocated()) > 4096 * MIB, 'what is not known counts as allocated');
    await isAllocated(512);
    assert.equal((await mounted.unmount('disk.raw')).status, 0);
  });

  it('that others write are seen as they are by who opens the file', async () => {
    const server = await startNbdkit(['memory', '64M']);
    try {
      await place.file('other.raw');
      const uri = `nbd+unix:///?socket=${server.socketPath}`;
      const mounted = await place.mount(['disk.raw', uri]);
      const other = await place.mount(['other.raw', uri]);
      await isAllocated(512);
      await place.ok('cp', ['disk.raw', 'out']);
      const data = await place.file('data', randomBytes(MIB));
      await place.ok('dd', [`if=${data}`, 'of=other.raw', 'bs=1M', 'seek=9', 'conv=notrunc']);
      await place.ok('cp', ['disk.raw', 'out']);
      await place.ok('cmp', ['other.raw', 'out']);
      await isAllocated(MIB);
      assert.equal((await other.unmount('other.raw')).status, 0);
      assert.equal((await mounted.unmount('disk.raw')).status, 0);
    } finally {
      await server.stop();
    }
  });
});
