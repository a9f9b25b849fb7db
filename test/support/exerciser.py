"""Does the same random things to a mounted file and to a plain one, and compares what it sees.

    python3 exerciser.py FILE MODEL SEED STEPS [--grain BYTES] [--map-grain BYTES] [--no-direct] [--read-only]
                         [--tell] [--errors] [--drop-caches]
    python3 exerciser.py FILE MODEL SEED check

Several may run at once on the same two files. Whatever touches a range holds a lock on that range of the
model, so that both files are changed and compared with nobody in between; the grain is what the bounds of
the lock are rounded to. With 4096 each page belongs to one at a time, which page cache and O_DIRECT need
to agree with each other; with 1 the ranges of several meet within a page, and within a block of the server.
The map grain is the same for what is written by mmap, where that needs more.

With --tell each step is a dot on standard output, and each error that is tolerated an exclamation mark. With --errors the server may refuse anything at any
time: whatever fails is told by the call or by the fsync behind it, leaves each byte as it was or as it was
to become, and is done again until it works. So the files are the same again before the range is let go.

`check`, when all are done, compares all of both, and the holes with the content. It is a child of the
test, since a process that touches a mount that it serves would hang; and Python, since it needs mmap(2).
"""

import argparse
import ctypes
import errno
import fcntl
import mmap
import os
import random
import sys

PAGE = mmap.PAGESIZE
LONGEST = 300_000
DROP_CACHES = '/proc/sys/vm/drop_caches'
# How often something is tried that the server refuses now and then, by far.
TRIES = 500
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(fd, mode, at, length):
    if libc.fallocate(fd, mode | KEEP_SIZE, at, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f'fallocate {mode}')


def aligned(length):
    """Memory that O_DIRECT takes."""
    return memoryview(mmap.mmap(-1, max(length, 1)))[:length]


def read_all(fd, length, at):
    data = aligned(length)
    done = 0
    while done < length:
        count = os.preadv(fd, [data[done:]], at + done)
        if count == 0:
            raise AssertionError(f'end of file at {at + done}')
        done += count
    return bytes(data)


def write_all(fd, data, at):
    place = aligned(len(data))
    place[:] = data
    done = 0
    while done < len(data):
        done += os.pwritev(fd, [place[done:]], at + done)


def differ(is_, should, at, what, before=None):
    """Also allowed is what was there before, byte by byte."""
    if is_ == should:
        return
    before = before or should
    wrong = [i for i in range(len(should)) if is_[i] != should[i] and is_[i] != before[i]]
    if not wrong:
        return
    raise AssertionError(
        f'{what}: {len(should)} bytes at {at} differ in {len(wrong)} bytes'
        f' from {at + wrong[0]} to {at + wrong[-1]}: {is_[wrong[0]]} and not {should[wrong[0]]}'
    )


class Worker:
    def __init__(self, args):
        self.path = args.file
        self.grain = args.grain
        self.map_grain = args.map_grain or args.grain
        self.random = random.Random(args.seed)
        self.tell = args.tell
        self.tolerant = args.errors
        self.drop_caches = args.drop_caches
        self.model = os.open(args.model, os.O_RDWR)
        self.size = os.fstat(self.model).st_size
        reads = args.read_only or args.steps == 'check'
        self.access = os.O_RDONLY if reads else os.O_RDWR
        direct = [] if args.no_direct else [os.O_DIRECT, os.O_DIRECT | os.O_DSYNC]
        self.ways = [0, 0, os.O_DSYNC, os.O_SYNC, *direct]
        self.open(0)
        # Where all of them meet.
        self.hot = [random.Random(i).randrange(self.size) for i in range(3)]
        self.kinds = [
            (self.read, 25),
            (self.sync, 6),
            (self.forget, 3),
            (self.reopen, 8),
            (self.holes, 2),
        ]
        # A page that cannot be read ends whoever maps it, by SIGBUS.
        if not self.tolerant:
            self.kinds.append((self.map_read, 6))
        if args.read_only:
            self.kinds.append((self.refused, 2))
            return
        if not self.tolerant:
            self.kinds.append((self.map_write, 8))
        self.kinds += [
            (self.write, 30),
            (self.punch, 6),
            (self.zero, 4),
            (self.same_size, 2),
            (self.cut, 1),
        ]

    def tolerate(self, error):
        if not self.tolerant or error.errno != errno.EIO:
            raise error
        if self.tell:
            print('!', end='', flush=True)

    def attempt(self, act):
        """Until it works, where it may fail. What gave an error is done when it is done again."""
        for _ in range(TRIES if self.tolerant else 1):
            try:
                return act()
            except OSError as error:
                self.tolerate(error)
                last = error
        raise last

    def close(self):
        """What a close tells of others' writes, they are told as well."""
        try:
            os.close(self.fd)
        except OSError as error:
            self.tolerate(error)

    def change(self, at, data, act, grain=None):
        """Makes a change of a range that belongs to us meanwhile."""
        with self.locked(at, len(data), grain=grain):
            self.make(at, data, act)

    def make(self, at, data, act):
        before = read_all(self.model, len(data), at) if self.tolerant else None

        def act_and_sync():
            try:
                act()
                if self.tolerant:
                    os.fsync(self.fd)
            except OSError:
                # Only a range that was refused may be one or the other.
                if self.tolerant:
                    seen = self.attempt(lambda: read_all(self.fd, len(data), at))
                    differ(seen, data, at, 'after an error', before)
                raise

        self.attempt(act_and_sync)
        write_all(self.model, data, at)

    def open(self, way):
        self.fd = self.attempt(lambda: os.open(self.path, self.access | way))
        if os.fstat(self.fd).st_size != self.size:
            raise AssertionError(f'the file has {os.fstat(self.fd).st_size} bytes')

    def locked(self, at, length, how=fcntl.LOCK_EX, grain=None):
        grain = grain or self.grain
        return Lock(self.model, at - at % grain, at + length, grain, how)

    def whole(self, how=fcntl.LOCK_EX):
        return Lock(self.model, 0, self.size, 1, how)

    def range(self):
        """Of all kinds: within a block, over many, aligned, up to the end, where others are."""
        random = self.random
        length = random.randint(1, random.choice([10, 600, 5000, 70_000, LONGEST]))
        at = random.randrange(self.size)
        if random.random() < 0.4:
            at = max(0, min(self.size - 1, random.choice(self.hot) + random.randint(-70_000, 70_000)))
        align = random.choice([1, 512, PAGE, 65536])
        if random.random() < 0.6:
            at -= at % align
            length += align - length % align
        if random.random() < 0.05:
            at = max(0, self.size - length)
        return at, min(length, self.size - at)

    def data(self, length):
        if self.random.random() < 0.5:
            return bytes([self.random.randrange(4)]) * length
        return self.random.randbytes(length)

    def read(self):
        at, length = self.range()
        self.say(f'read {length} at {at}')
        with self.locked(at, length, fcntl.LOCK_SH):
            seen = self.attempt(lambda: read_all(self.fd, length, at))
            differ(seen, read_all(self.model, length, at), at, 'read')

    def write(self):
        at, length = self.range()
        data = self.data(length)
        self.say(f'write {length} at {at}')
        self.change(at, data, lambda: write_all(self.fd, data, at))

    def map(self, at, length):
        """The pages of a range, shared, and where in them it begins."""
        start = at - at % mmap.ALLOCATIONGRANULARITY
        access = mmap.PROT_READ | (mmap.PROT_WRITE if self.access == os.O_RDWR else 0)
        length += at - start
        return mmap.mmap(self.fd, length, mmap.MAP_SHARED, access, offset=start), at - start

    def map_read(self):
        at, length = self.range()
        self.say(f'read {length} at {at} by mmap')
        with self.locked(at, length, fcntl.LOCK_SH):
            area, skip = self.map(at, length)
            with area:
                differ(area[skip:], read_all(self.model, length, at), at, 'mmap')

    def map_write(self):
        at, length = self.range()
        data = self.data(length)
        sync = self.random.random() < 0.5
        self.say(f'write {length} at {at} by mmap, {"with" if sync else "without"} msync')

        def write_mapped():
            area, skip = self.map(at, length)
            with area:
                area[skip:] = data
                if sync:
                    area.flush()

        self.change(at, data, write_mapped, self.map_grain)

    def punch(self):
        self.make_zero(PUNCH_HOLE)

    def zero(self):
        self.make_zero(ZERO_RANGE)

    def make_zero(self, mode):
        at, length = self.range()
        # One that goes on behind the end is cut there, with FALLOC_FL_KEEP_SIZE.
        more = self.random.choice([0, 0, 0, 5000]) if at + length == self.size else 0
        self.say(f'fallocate {mode} of {length + more} at {at}')
        self.change(at, bytes(length), lambda: fallocate(self.fd, mode, at, length + more))

    def sync(self):
        self.say('sync')
        how = os.fsync if self.random.random() < 0.5 else os.fdatasync
        self.attempt(lambda: how(self.fd))

    def forget(self):
        """What is read next comes from the server."""
        self.say('fsync and drop the page cache')
        self.attempt(lambda: os.fsync(self.fd))
        if self.drop_caches and self.random.random() < 0.1:
            with open(DROP_CACHES, 'w') as file:
                file.write('1')
        else:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def reopen(self):
        way = self.random.choice(self.ways)
        self.say(f'close and open with {way:#o}')
        self.close()
        self.open(way)

    def same_size(self):
        self.say('truncate to the size that it has')
        self.attempt(lambda: os.ftruncate(self.fd, self.size))

    def holes(self):
        """What is told to be a hole reads as zeroes. Others may have it open; then all is data."""
        self.say('look for holes')
        self.close()
        with self.whole(fcntl.LOCK_SH):
            self.attempt(self.find_holes)
        self.open(0)

    def find_holes(self):
        """How many bytes of holes there are."""
        fd = os.open(self.path, os.O_RDONLY)
        at, holes = 0, 0
        try:
            while at < self.size:
                try:
                    data = os.lseek(fd, at, os.SEEK_DATA)
                except OSError as error:
                    if error.errno != errno.ENXIO:
                        raise
                    data = self.size
                if not at <= data <= self.size:
                    raise AssertionError(f'SEEK_DATA from {at} gave {data}')
                zeroes = read_all(self.model, data - at, at)
                differ(bytes(data - at), zeroes, at, 'a hole and what is there')
                holes += data - at
                if data == self.size:
                    break
                at = os.lseek(fd, data, os.SEEK_HOLE)
                if self.tolerant and at == data:
                    # All counts as data as long as the server refuses to tell, and the next time it did.
                    raise OSError(errno.EIO, 'a hole where there was data')
                if not data < at <= self.size:
                    raise AssertionError(f'SEEK_HOLE from {data} gave {at}')
        finally:
            os.close(fd)
        return holes

    def cut(self):
        """As cp of a sparse file: cut, write some of it, and what was skipped before the end of it is
        zeroes. What lies behind stays, as the disk has its size. In whole pages: see "Cutting the file"
        in ARCHITECTURE.md."""
        pages = self.size // PAGE
        # Seldom all of it: what is zeroes anyway shows no mistakes.
        some = pages if self.random.random() < 0.2 else pages // 16
        pieces = sorted(self.random.sample(range(some), min(some, self.random.randint(1, 4))))
        sized = self.random.random() < 0.2
        self.say(f'cut, write the pages {pieces}, {"with" if sized else "without"} ftruncate')
        data = bytearray(self.size if sized else (pieces[-1] + 1) * PAGE)
        for page in pieces:
            data[page * PAGE : (page + 1) * PAGE] = self.random.randbytes(PAGE)

        def cut_and_write():
            # This writes back also what others have written, which would count as written after the cut.
            self.close()
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_TRUNC)
                try:
                    for page in pieces:
                        write_all(fd, data[page * PAGE : (page + 1) * PAGE], page * PAGE)
                    if sized:
                        os.ftruncate(fd, self.size)
                finally:
                    os.close(fd)
            finally:
                self.open(0)

        with self.whole():
            self.make(0, bytes(data), cut_and_write)

    def refused(self):
        self.say('open for writing')
        try:
            os.close(os.open(self.path, os.O_RDWR))
        except OSError as error:
            if error.errno == errno.EROFS:
                return
            raise
        raise AssertionError('a disk that cannot be written was opened for writing')

    def say(self, what):
        self.last = what

    def check(self):
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        differ(read_all(self.fd, self.size, 0), read_all(self.model, self.size, 0), 0, 'in the end')
        os.close(self.fd)
        print(f'{self.find_holes()} bytes of holes')

    def work(self, steps):
        self.last = ''
        kinds, weights = zip(*self.kinds)
        for step in range(steps):
            try:
                self.random.choices(kinds, weights)[0]()
            except Exception as error:
                sys.exit(f'step {step}, {self.last}: {type(error).__name__}: {error}')
            if self.tell:
                print('.', end='', flush=True)
        try:
            self.close()
        except OSError as error:
            sys.exit(f'the last close: {error}')


class Lock:
    """A lock on a range of a file, against other processes."""

    def __init__(self, fd, start, end, grain, how):
        self.what = (end - start + -(end - start) % grain, start)
        self.fd = fd
        self.how = how

    def __enter__(self):
        fcntl.lockf(self.fd, self.how, *self.what)

    def __exit__(self, *_):
        fcntl.lockf(self.fd, fcntl.LOCK_UN, *self.what)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('file')
    parser.add_argument('model')
    parser.add_argument('seed', type=int)
    parser.add_argument('steps')
    parser.add_argument('--grain', type=int, default=PAGE)
    parser.add_argument('--map-grain', type=int)
    parser.add_argument('--no-direct', action='store_true')
    parser.add_argument('--read-only', action='store_true')
    parser.add_argument('--tell', action='store_true')
    parser.add_argument('--errors', action='store_true')
    parser.add_argument('--drop-caches', action='store_true')
    args = parser.parse_args()
    worker = Worker(args)
    if args.steps == 'check':
        worker.check()
    else:
        worker.work(int(args.steps))


main()
