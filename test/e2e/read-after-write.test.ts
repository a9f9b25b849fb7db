/** Who reads beside a write that is under way leaves nothing in the page cache that is older than the write. */

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { CACHES } from '../support/exerciser.js';
import { Workplace } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

/** One writes, and meanwhile another one opens the file and reads there; then a third one looks. */
const PROGRAM = `
import mmap, os, sys, threading, time
AT, LENGTH = 16 * 4096, 16 * 4096
def look(fd):
    with mmap.mmap(fd, AT + LENGTH, mmap.MAP_SHARED, mmap.PROT_READ) as area:
        return os.pread(fd, LENGTH, AT), area[AT:]
third = os.open(sys.argv[1], os.O_RDONLY)
first = os.open(sys.argv[1], os.O_RDWR)
writer = threading.Thread(target=lambda: os.pwrite(first, b"n" * LENGTH, AT))
writer.start()
time.sleep(0.1)
second = os.open(sys.argv[1], os.O_RDONLY)
look(second)
writer.join()
for how, seen in zip(("pread", "mmap"), look(third)):
    old = LENGTH - seen.count(b"n")
    print(f"{how}: {old} bytes are old")
`;

const SIZE = 1024 * 1024;

describe(
  'a read beside a write',
  requires({ root: true, fuse: true, programs: ['nbdkit', 'python3'] }),
  () => {
    let place: Workplace;

    before(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
    });
    afterEach(() => place.nothingLeft());
    after(() => place.remove());

    for (const cache of CACHES) {
      it(`leaves nothing old in the page cache, with --cache=${cache}`, async () => {
        await place.file('image', Buffer.alloc(SIZE));
        const image = place.join('image');
        const server = await startNbdkit(['--filter=delay', 'file', image, 'wdelay=400ms']);
        try {
          const mounted = await place.mount([
            ...[`--cache=${cache}`, 'disk.raw', `nbd+unix:///?socket=${server.socketPath}`],
          ]);
          const seen = await place.ok('python3', ['-c', PROGRAM, 'disk.raw']);
          assert.equal((await mounted.unmount('disk.raw')).status, 0);
          assert.equal(seen, 'pread: 0 bytes are old\nmmap: 0 bytes are old\n');
        } finally {
          await server.stop();
        }
      });
    }
  },
);
