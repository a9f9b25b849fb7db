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

/** One writes past the page cache, by AIO and not waiting, and meanwhile another one reads there; then once more. */
const AIO_PROGRAM = `
import ctypes, mmap, os, platform, struct, sys, time
AT, LENGTH = 16 * 4096, 16 * 4096
SETUP, SUBMIT, GETEVENTS = (206, 209, 208) if platform.machine() == "x86_64" else (0, 2, 4)
libc = ctypes.CDLL(None)
writer = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
reader = os.open(sys.argv[1], os.O_RDONLY)
area = mmap.mmap(-1, LENGTH)
area[:] = b"n" * LENGTH
place = ctypes.addressof(ctypes.c_char.from_buffer(area))
context = ctypes.c_ulong(0)
assert libc.syscall(SETUP, 1, ctypes.byref(context)) == 0
# struct iocb: a PWRITE.
block = ctypes.create_string_buffer(
    struct.pack("<QIIHhIQQqQII", 0, 0, 0, 1, 0, writer, place, LENGTH, AT, 0, 0, 0))
assert libc.syscall(SUBMIT, context, 1, (ctypes.c_void_p * 1)(ctypes.addressof(block))) == 1
time.sleep(0.1)
os.pread(reader, LENGTH, AT)
event = ctypes.create_string_buffer(32)
assert libc.syscall(GETEVENTS, context, 1, 1, event, None) == 1
assert struct.unpack("<QQqq", event.raw)[2] == LENGTH
old = LENGTH - os.pread(reader, LENGTH, AT).count(b"n")
print(f"pread: {old} bytes are old")
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

    const run = async (cache: string, program: string): Promise<string> => {
      await place.file('image', Buffer.alloc(SIZE));
      const image = place.join('image');
      const server = await startNbdkit(['--filter=delay', 'file', image, 'wdelay=400ms']);
      try {
        const mounted = await place.mount([
          ...[`--cache=${cache}`, 'disk.raw', `nbd+unix:///?socket=${server.socketPath}`],
        ]);
        const seen = await place.ok('python3', ['-c', program, 'disk.raw']);
        assert.equal((await mounted.unmount('disk.raw')).status, 0);
        return seen;
      } finally {
        await server.stop();
      }
    };

    for (const cache of CACHES) {
      it(`leaves nothing old in the page cache, with --cache=${cache}`, async () => {
        const seen = await run(cache, PROGRAM);
        assert.equal(seen, 'pread: 0 bytes are old\nmmap: 0 bytes are old\n');
      });

      it(`that is direct and by AIO leaves nothing old either, with --cache=${cache}`, async () => {
        assert.equal(await run(cache, AIO_PROGRAM), 'pread: 0 bytes are old\n');
      });
    }
  },
);
