/** The options of -o and read-only mounts, for root and for an ordinary user, as other users see them. */

import assert from 'node:assert/strict';
import { chmod, chown, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { parseMountinfo } from '../../src/fuse/mountpoint.js';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted, Result } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const OWNER = 65534;
const OTHER = 65533;
const SERVER = ['[', 'tsnbdkit', 'memory', '4M', ']'];

const asUser = (uid: number): string[] => [
  '--reuid',
  String(uid),
  '--regid',
  String(uid),
  '--clear-groups',
];

describe(
  'the options of FUSE',
  requires({ root: true, fuse: true, programs: ['setpriv', 'fusermount3', 'python3'] }),
  () => {
    let place: Workplace;
    let deviceMode = 0;
    let config: string | undefined;

    before(async () => {
      // As udev has it on a usual machine.
      deviceMode = (await stat('/dev/fuse')).mode;
      await chmod('/dev/fuse', 0o666);
      config = await readFile('/etc/fuse.conf', 'utf8').catch(() => undefined);
    });
    after(() => chmod('/dev/fuse', deviceMode & 0o777));

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
      // Users who have nothing to do with the folder can reach what is in it.
      await chmod(place.path, 0o755);
    });
    afterEach(async () => {
      try {
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });

    const as = (uid: number, ...command: string[]): Promise<Result> =>
      place.run('setpriv', [...asUser(uid), ...command]);

    const read = async (uid: number): Promise<boolean> =>
      (await as(uid, 'dd', 'if=disk.raw', 'of=/dev/null', 'count=1')).status === 0;
    const write = async (uid: number): Promise<boolean> =>
      (await as(uid, 'dd', 'if=/dev/zero', 'of=disk.raw', 'count=1', 'conv=notrunc')).status === 0;

    async function unmounts(mounted: Mounted): Promise<void> {
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.equal(status, 0, stderr);
    }

    async function withMount(args: readonly string[], look: () => Promise<void>): Promise<void> {
      const mounted = await place.mount([...args, 'disk.raw', ...SERVER]);
      await look();
      await unmounts(mounted);
    }

    /** What /proc has of the mount: its options, type and source. */
    async function line(): Promise<{ options: string; type: string; source: string }> {
      const text = await readFile('/proc/self/mountinfo', 'utf8');
      const options = text.split('\n').find((one) => one.includes(place.join('disk.raw'))) ?? '';
      const [entry] = parseMountinfo(options);
      assert.ok(entry !== undefined);
      return { options, type: entry.type, source: entry.source };
    }

    const shown = async (): Promise<string> => {
      const { mode, uid, gid } = await stat(place.join('disk.raw'));
      return `${(mode & 0o7777).toString(8)} ${uid} ${gid}`;
    };

    /** Mounts as an ordinary user, and runs a script of root when that is done. */
    async function asOwner(args: readonly string[], look: () => Promise<void>): Promise<Result> {
      for (const path of [place.path, place.join('run'), place.join('disk.raw')]) {
        await chown(path, OWNER, OWNER);
      }
      const command = ['tsnbdfuse', '-P', 'pid', ...args, 'disk.raw', ...SERVER];
      const running = place.start('setpriv', [...asUser(OWNER), ...command]);
      const mounted = (): Promise<boolean> =>
        stat(place.join('pid')).then(
          () => true,
          () => false,
        );
      await until('it is mounted', async () => running.hasEnded || (await mounted()));
      if (!running.hasEnded) {
        await look();
        await place.ok('fusermount3', ['-u', 'disk.raw']);
      }
      return running.ended;
    }

    describe('of root', () => {
      it('none: the file is for root alone', () =>
        withMount([], async () => {
          assert.equal(await shown(), '600 0 0');
          assert.ok(!(await read(OTHER)));
          assert.equal((await line()).type, 'fuse.tsnbdfuse');
          assert.match((await line()).options, /nosuid,nodev/);
        }));

      it('allow_other: for everybody', () =>
        withMount(['-o', 'allow_other'], async () => {
          assert.equal(await shown(), '666 0 0');
          assert.ok(await read(OTHER));
          assert.ok(await write(OTHER));
          // The mode counts, and is root's to change.
          assert.notEqual((await as(OTHER, 'chmod', '600', 'disk.raw')).status, 0);
          await chmod(place.join('disk.raw'), 0o644);
          assert.ok(await read(OTHER));
          assert.ok(!(await write(OTHER)));
        }));

      it('allow_other, uid=, gid= and umask=: for whom they say', () =>
        withMount(['-o', `allow_other,uid=${OWNER},gid=${OWNER}`, '-o', 'umask=077'], async () => {
          assert.equal(await shown(), `600 ${OWNER} ${OWNER}`);
          assert.ok(await write(OWNER));
          assert.ok(!(await read(OTHER)));
        }));

      it('uid=, gid= and umask= alone change what is shown', () =>
        withMount(['-o', 'uid=5,gid=6,umask=027'], async () => {
          assert.equal(await shown(), '640 5 6');
          assert.ok(!(await read(OTHER)));
        }));

      it('fsname= and subtype=, with commas and all', () =>
        withMount(['-o', String.raw`fsname=a\,b c\\d,subtype=raw`], async () => {
          const { type, source } = await line();
          assert.deepEqual({ type, source }, { type: 'fuse.raw', source: String.raw`a,b c\d` });
        }));

      it('those of mount(8)', () =>
        withMount(['-o', 'rw,suid,dev,noexec,noatime,sync,_netdev,nofail'], async () => {
          const { options } = await line();
          for (const one of ['noexec', 'noatime', 'sync']) assert.match(options, new RegExp(one));
          for (const one of ['nosuid', 'nodev']) assert.doesNotMatch(options, new RegExp(one));
          assert.ok(await write(0));
        }));

      it('max_read= limits what one request asks for', async () => {
        const args = ['-v', '-o', 'max_read=8192', 'disk.raw', ...SERVER];
        const mounted = await place.mount(args);
        assert.match((await line()).options, /max_read=8192/);
        await place.ok('dd', ['if=disk.raw', 'of=/dev/null', 'bs=64K', 'count=1', 'iflag=direct']);
        await unmounts(mounted);
        // A reply is the data and a header of 16 bytes.
        const lengths = [...mounted.running.stderr.matchAll(/tx \d+ READ error=0 length=(\d+)/g)];
        assert.deepEqual([...new Set(lengths.map(([, length]) => length))], ['8208']);
      });

      it('kernel_cache: an open keeps what was read', async () => {
        const server = place.start('tsnbdkit', ['-U', 'sock', '-P', 'kit.pid', 'memory', '4M']);
        await until('the server is ready', () =>
          stat(place.join('kit.pid')).then(
            () => true,
            () => false,
          ),
        );
        const reads = async (args: readonly string[]): Promise<number> => {
          const mounted = await place.mount(['-v', ...args, 'disk.raw', '--unix', 'sock']);
          await place.ok('cmp', ['-n', '65536', 'disk.raw', '/dev/zero']);
          await place.ok('cmp', ['-n', '65536', 'disk.raw', '/dev/zero']);
          await unmounts(mounted);
          const read = [...mounted.running.stderr.matchAll(/rx \d+ READ /g)];
          return read.length;
        };
        const without = await reads([]);
        const kept = await reads(['-o', 'kernel_cache']);
        assert.ok(kept < without, `${kept} and ${without}`);
        process.kill(server.pid, 'SIGTERM');
        await server.ended;
      });

      it('auto_unmount: also when we are killed', async () => {
        const mounted = await place.mount(['-o', 'auto_unmount', 'disk.raw', ...SERVER]);
        assert.ok(await write(0));
        mounted.signal('SIGKILL');
        await mounted.running.ended;
        await until('it is unmounted', async () => (await place.mounts()).length === 0);
      });

      it('auto_unmount: not what somebody else has mounted there since', async () => {
        const mounted = await place.mount(['-o', 'auto_unmount', 'disk.raw', ...SERVER]);
        process.kill(mounted.pid, 'SIGSTOP');
        await place.ok('umount', ['-l', 'disk.raw']);
        const another = await place.mount(['disk.raw', ...SERVER]);
        mounted.signal('SIGKILL');
        await mounted.running.ended;
        const waits = async (): Promise<boolean> =>
          ![...(await place.processes()).values()].some((one) => one.includes('unmounter'));
        await until('the first one is done with', waits);
        assert.ok(await write(0));
        await unmounts(another);
      });

      it('auto_unmount: leaves nothing after an unmount', () =>
        withMount(['-o', 'auto_unmount'], async () => assert.ok(await write(0))));
    });

    describe('of an ordinary user', () => {
      it('none: for nobody else, and not for root', async () => {
        const { status } = await asOwner([], async () => {
          assert.ok(await write(OWNER));
          assert.ok(!(await read(OTHER)));
          assert.ok(!(await read(0)));
        });
        assert.equal(status, 0);
      });

      it('those of mount(8)', async () => {
        const { status } = await asOwner(['-o', 'noexec,noatime,sync,max_read=8192'], async () => {
          assert.match((await line()).options, /noexec.*max_read=8192/);
          assert.ok(await write(OWNER));
        });
        assert.equal(status, 0);
      });

      it('suid: refused', async () => {
        const { status, stderr } = await asOwner(['-o', 'suid'], () => Promise.resolve());
        assert.equal(status, 2);
        assert.match(stderr, /^tsnbdfuse: -o suid: only root may ask for it\n/);
      });

      it('auto_unmount: also when we are killed', async () => {
        const { signal } = await asOwner(['-o', 'auto_unmount'], async () => {
          process.kill(Number(await readFile(place.join('pid'), 'utf8')), 'SIGKILL');
          await until('it is unmounted', async () => (await place.mounts()).length === 0);
          // For the unmount to come, another one.
          await place.mount(['disk.raw', ...SERVER]);
        });
        assert.equal(signal, 'SIGKILL');
      });

      it('allow_other: refused where root has not permitted it', async () => {
        for (const option of ['allow_other', 'allow_root']) {
          const { status, stderr } = await asOwner(['-o', option], () => Promise.resolve());
          assert.equal(status, 3);
          assert.match(
            stderr,
            /^tsnbdfuse: -o allow_other and allow_root .* user_allow_other in \/etc\/fuse\.conf\n$/,
          );
        }
      });

      describe('whom root lets', () => {
        before(() => writeFile('/etc/fuse.conf', `${config ?? ''}\nuser_allow_other\n`));
        after(async () => {
          if (config !== undefined) await writeFile('/etc/fuse.conf', config);
          else await place.run('rm', ['-f', '/etc/fuse.conf']);
        });

        it('allow_other: for everybody', async () => {
          const { status } = await asOwner(['-o', 'allow_other'], async () => {
            assert.equal(await shown(), `666 ${OWNER} ${OWNER}`);
            for (const uid of [OWNER, OTHER, 0]) assert.ok(await write(uid), String(uid));
          });
          assert.equal(status, 0);
        });

        it('allow_root: who is given the open file goes on with it', async () => {
          const script = `
import os
fd = os.open('disk.raw', os.O_RDWR)
# The kernel asks for the attributes again after that.
os.chmod('disk.raw', 0o600)
os.setgroups([]); os.setresgid(${OTHER}, ${OTHER}, ${OTHER}); os.setresuid(${OTHER}, ${OTHER}, ${OTHER})
os.pwrite(fd, b'given', 0); os.fsync(fd)
size = os.lseek(fd, 0, os.SEEK_END)
os.ftruncate(fd, size)
os.pwrite(fd, b'to', 0); os.fsync(fd)
print(os.pread(fd, 5, 0).decode(), size)
os.close(fd)
`;
          const { status } = await asOwner(['-o', 'allow_root'], async () => {
            assert.equal(await place.ok('python3', ['-c', script]), 'toven 4194304\n');
          });
          assert.equal(status, 0);
        });

        it('allow_root: for root as well, and nobody else', async () => {
          for (const options of ['allow_root', 'allow_root,umask=0']) {
            const { status } = await asOwner(['-o', options], async () => {
              for (const uid of [OWNER, 0]) assert.ok(await write(uid), String(uid));
              assert.ok(!(await read(OTHER)));
            });
            assert.equal(status, 0);
          }
        });
      });
    });

    describe('what fusermount3 refuses', () => {
      /** A mount by a fusermount3 that says something and fails. */
      async function refused(said: string): Promise<string> {
        await mkdir(place.join('fake'));
        await place.file(
          'fake/fusermount3',
          `#!/bin/sh\necho "fusermount3: ${said}" >&2\nexit 1\n`,
          0o755,
        );
        await chmod(place.join('fake'), 0o755);
        for (const path of [place.path, place.join('run'), place.join('disk.raw')]) {
          await chown(path, OWNER, OWNER);
        }
        const env = { PATH: `${place.join('fake')}:${place.env['PATH'] ?? ''}` };
        const command = ['tsnbdfuse', 'disk.raw', ...SERVER];
        const result = await place.run('setpriv', [...asUser(OWNER), ...command], { env });
        assert.equal(result.status, 3);
        assert.equal(result.stderr.split('\n').length, 2, 'one line');
        return result.stderr;
      }

      it('by AppArmor: a directory is the way round', async () =>
        assert.match(
          await refused('mount failed: Permission denied'),
          /may not mount on the file .*disk\.raw \(mount failed: Permission denied\): an AppArmor profile.*DIRECTORY\/disk\.raw/,
        ));
      it('the device', async () =>
        assert.match(
          await refused('failed to open /dev/fuse: Permission denied'),
          /cannot open \/dev\/fuse: permission denied; .*0666/,
        ));
      it('allow_other', async () =>
        assert.match(
          await refused(
            "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf",
          ),
          /user_allow_other in \/etc\/fuse\.conf/,
        ));
      it('anything else, in its own words', async () =>
        assert.match(
          await refused(
            'too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf',
          ),
          /cannot mount on .*: too many FUSE filesystems mounted/,
        ));
    });

    describe('read-only', () => {
      const looks = async (uid: number): Promise<void> => {
        assert.ok(await read(uid));
        assert.notEqual((await as(uid, 'test', '-w', 'disk.raw')).status, 0, 'access(2)');
        const written = await as(
          uid,
          'dd',
          'if=/dev/zero',
          'of=disk.raw',
          'conv=notrunc',
          'count=1',
        );
        assert.match(written.stderr, /Read-only file system/);
        assert.match((await line()).options, / ro,/);
        assert.equal(
          (await stat(place.join('disk.raw')).catch(() => undefined))?.mode ?? 0o100400,
          0o100400,
        );
      };
      const READONLY = ['[', 'tsnbdkit', '-r', 'memory', '4M', ']'];

      for (const [name, args] of [
        ['-r', ['-r', 'disk.raw', ...SERVER]],
        ['-o ro', ['-o', 'ro', 'disk.raw', ...SERVER]],
        ['the server says so', ['disk.raw', ...READONLY]],
        ['the server says so, and -o rw', ['-o', 'rw', 'disk.raw', ...READONLY]],
      ] as const) {
        it(`${name}: of root`, async () => {
          const mounted = await place.mount(args);
          await looks(0);
          await unmounts(mounted);
        });
      }

      it('-r: of an ordinary user', async () => {
        const { status } = await asOwner(['-r'], () => looks(OWNER));
        assert.equal(status, 0);
      });
    });
  },
);
