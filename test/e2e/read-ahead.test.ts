/** Reading ahead of an ordinary user's sequential reader, whose mount the kernel keeps on a short leash. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, chown, readFile, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { Workplace, until } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

const NOBODY = 65534;
const MIB = 1024 * 1024;
const SIZE = 16 * MIB;

describe(
  'reading ahead in user space',
  requires({
    root: true,
    fuse: true,
    programs: ['setpriv', 'fusermount3', 'nbdkit', 'nbdcopy'],
  }),
  () => {
    let place: Workplace;
    let server: RealServer;
    let mode = 0;

    before(async () => {
      // As udev has it on a usual machine.
      ({ mode } = await stat('/dev/fuse'));
      await chmod('/dev/fuse', 0o666);
    });
    after(() => chmod('/dev/fuse', mode & 0o777));

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
      await place.file('old', randomBytes(SIZE));
      await place.file('new', randomBytes(SIZE));
      for (const path of [place.path, place.join('run'), place.join('disk.raw')]) {
        await chown(path, NOBODY, NOBODY);
      }
      const log = `logfile=${place.join('log')}`;
      server = await startNbdkit([
        '--filter=log',
        '--filter=delay',
        'memory',
        String(SIZE),
        log,
        'rdelay=10ms',
      ]);
      await chmod(server.socketPath, 0o777);
      await chmod(dirname(server.socketPath), 0o755);
      await place.ok('nbdcopy', ['old', uri()]);
    });
    afterEach(async () => {
      try {
        await server.stop();
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    const uri = (): string => `nbd+unix:///?socket=${server.socketPath}`;

    /** Runs a script beside the mount, as an ordinary user. */
    async function beside(script: string): Promise<void> {
      const user = ['--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups'];
      const whole = `set -e
        tsnbdfuse -P pid disk.raw "$URI" & job=$!
        i=0; until [ -e pid ]; do sleep 0.05; i=$((i+1)); [ $i -lt 400 ]; done
        ${script}
        fusermount3 -u disk.raw
        wait $job`;
      await place.ok('setpriv', [...user, 'sh', '-c', whole], { env: { URI: uri() } });
    }

    /** The furthest byte that the server was asked for. */
    async function furthest(): Promise<number> {
      const text = await readFile(place.join('log'), 'utf8');
      const ends = [...text.matchAll(/ Read id=\d+ offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+)/g)].map(
        ([, offset, count]) => Number(offset) + Number(count),
      );
      // The mount itself reads the last page.
      return Math.max(...ends.filter((end) => end < SIZE));
    }

    it('asks for more than the kernel does, and gives what is on the disk', async () => {
      await beside(`dd if=disk.raw of=part bs=128K count=32 status=none
        cmp -n 4194304 part old`);
      // Of 4 MiB; the kernel by itself goes no further than some 256 KiB.
      await until('more is read', async () => (await furthest()) >= 5 * MIB);
      await beside('cmp disk.raw old');
    });

    it('shows at the next open what others wrote meanwhile', async () => {
      await beside(`dd if=disk.raw of=/dev/null bs=128K count=32 status=none
        nbdcopy new "$URI"
        dd if=disk.raw of=part bs=128K skip=32 status=none
        tail -c +4194305 new | cmp - part
        cmp disk.raw new`);
    });

    it('shows what is written through the file itself, to those who have it open', async () => {
      await beside(`exec 3<disk.raw
        dd bs=128K count=32 status=none <&3 >part
        dd if=new of=disk.raw bs=128K skip=33 seek=33 count=7 conv=notrunc oflag=direct status=none
        dd if=new of=disk.raw bs=128K skip=50 seek=50 count=3 conv=notrunc,fsync status=none
        cat <&3 >>part
        exec 3<&-
        cp old want; chmod u+w want
        dd if=new of=want bs=128K skip=33 seek=33 count=7 conv=notrunc status=none
        dd if=new of=want bs=128K skip=50 seek=50 count=3 conv=notrunc status=none
        cmp part want; cmp disk.raw want`);
      assert.ok((await furthest()) > 4 * MIB);
    });

    it('gives to O_DIRECT what others wrote before', async () => {
      await beside(`exec 3<disk.raw
        dd bs=128K count=32 status=none <&3 >/dev/null
        nbdcopy new "$URI"
        dd if=disk.raw of=part bs=128K skip=32 iflag=direct status=none
        tail -c +4194305 new | cmp - part
        exec 3<&-`);
    });
  },
);
