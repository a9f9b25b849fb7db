/** Connecting and shaking hands over real sockets, with servers that do little of what they should. */

import assert from 'node:assert/strict';
import dns from 'node:dns/promises';
import { once } from 'node:events';
import { mkdtemp, readdir, readlink, rm, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { createServer } from 'node:net';
import type { ListenOptions, Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { errno, errnoText } from '../../src/errno.js';
import { native } from '../../src/native.js';
import { HandshakeError } from '../../src/nbd/errors.js';
import { readDisk } from '../../src/disk/promises.js';
import type { Address, TlsSettings } from '../../src/nbd/export.js';
import { connectDisk } from '../../src/nbd/nbd-disk.js';
import { openTransport } from '../../src/nbd/dial.js';
import { openExport } from '../../src/nbd/open.js';
import { FakeServer } from '../support/fake-server.js';
import { hex } from '../support/fake-transport.js';

/** Milliseconds; ends a test that hangs. */
const DEADLINE = 30_000;
/** Milliseconds; for what is to run out of time. */
const SHORT = 100;

/** An export of 1 MiB, in the form that asks for no answer. */
const OLDSTYLE = Buffer.concat([
  hex(`'NBDMAGIC' 0000420281861253 0000000000100000 00000001`),
  Buffer.alloc(124),
]);
const GREETING = hex(`'NBDMAGIC' 'IHAVEOPT' 0003`);
const ABORT = hex(`'IHAVEOPT' 00000002 00000000`);

let folder = '';
let servers: Server[] = [];
let peers: Socket[] = [];
let descriptors: number[] = [];
let socketsBefore = 0;

/** How many sockets this process has open. */
async function countSockets(): Promise<number> {
  const links = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) =>
      // The directory that is being read is gone by now.
      readlink(`/proc/self/fd/${fd}`).catch(() => ''),
    ),
  );
  return links.filter((link) => link.startsWith('socket:')).length;
}

/** @returns the address it listens on */
async function serve(
  behave: (peer: Socket) => void,
  listen: ListenOptions = { path: join(folder, `s${servers.length}`) },
): Promise<Address> {
  const server = createServer((peer) => {
    peers.push(peer);
    // A client that hangs up is what these tests are about.
    peer.on('error', () => undefined);
    behave(peer);
  });
  servers.push(server);
  server.listen(listen);
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null);
  return typeof address === 'string'
    ? { kind: 'unix', path: address }
    : { kind: 'tcp', host: address.address, port: address.port };
}

async function failure(address: Address, deadline = DEADLINE, exportName = ''): Promise<string> {
  const error: unknown = await openExport({ address, exportName }, { deadline }).then(
    ({ transport }) => {
      transport.close();
      return assert.fail('it succeeded');
    },
    (problem: unknown) => problem,
  );
  assert.ok(error instanceof HandshakeError, String(error));
  assert.doesNotMatch(error.message, /\p{Cc}/u);
  return error.message;
}

/** Connects until the queue of connections of a listening socket is full. */
async function fill(connect: () => number): Promise<void> {
  for (let i = 0; i < 8; i++) {
    const fd = connect();
    if (fd < 0) return;
    descriptors.push(fd);
  }
  // TCP has no other way to show it than to say nothing: what was started settles in the kernel.
  await sleep(SHORT);
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
});
after(() => rm(folder, { recursive: true }));

beforeEach(async () => {
  servers = [];
  peers = [];
  descriptors = [];
  socketsBefore = await countSockets();
});
afterEach(async () => {
  for (const peer of peers) peer.destroy();
  for (const server of servers) {
    server.close();
    await once(server, 'close');
  }
  for (const fd of descriptors) native.close(fd);
  // Nothing of what failed or succeeded left a descriptor open; our own are closed in a later turn.
  const end = performance.now() + DEADLINE;
  while ((await countSockets()) > socketsBefore) {
    assert.ok(performance.now() < end, 'a socket was left open');
    await sleep(1);
  }
});

describe('a server at a Unix socket', () => {
  it('that there is not', async () => {
    const path = join(folder, 'none');
    assert.equal(
      await failure({ kind: 'unix', path }),
      `cannot connect to ${path}: no such file or directory`,
    );
  });

  it('that is gone', async () => {
    const path = join(folder, 'gone');
    const fd = native.unixListen(path, 1);
    assert.ok(fd >= 0);
    native.close(fd);
    assert.equal(
      await failure({ kind: 'unix', path }),
      `cannot connect to ${path}: connection refused`,
    );
  });

  it('that is a file', async () => {
    const path = join(folder, 'file');
    await writeFile(path, '');
    assert.match(
      await failure({ kind: 'unix', path }),
      /^cannot connect to \S+: connection refused$/,
    );
  });

  it('whose path is too long', async () => {
    for (const path of [`/${'x'.repeat(107)}`, 'x'.repeat(10_000), `\0${'x'.repeat(4096)}`]) {
      assert.match(
        await failure({ kind: 'unix', path }),
        /^cannot connect to [@/]?x+: a socket path has at most 107 bytes$/,
      );
    }
  });

  it('whose path is one no system takes', async () => {
    assert.match(await failure({ kind: 'unix', path: '' }), /: invalid argument$/);
    assert.match(
      await failure({ kind: 'unix', path: '/a\0b' }),
      /^cannot connect to \/a\?b: invalid argument$/,
    );
  });

  it('that is abstract', async () => {
    const name = `\0tsnbdfuse-test-${process.pid}`;
    // All 108 bytes are for it, as it ends with no NUL.
    for (const path of [name, name.padEnd(108, 'x')]) {
      // Not a server of Node, which fills such a name up with NULs.
      const listener = native.unixListen(path, 1);
      assert.ok(listener >= 0);
      descriptors.push(listener);
      const transport = await openTransport({ kind: 'unix', path }, DEADLINE);
      const peer = native.accept(listener);
      assert.ok(peer >= 0);
      descriptors.push(peer);
      transport.close();
    }
    assert.equal(
      await failure({ kind: 'unix', path: `${name}-none` }),
      `cannot connect to @tsnbdfuse-test-${process.pid}-none: connection refused`,
    );
  });

  it('that accepts nobody any more', async () => {
    const path = join(folder, 'full');
    const listener = native.unixListen(path, 0);
    descriptors.push(listener);
    await fill(() => native.unixConnect(path));
    assert.equal(
      await failure({ kind: 'unix', path }, SHORT),
      `cannot connect to ${path}: its queue of connections is full and it accepts none`,
    );
  });

  it('that accepts later', async () => {
    const path = join(folder, 'busy');
    const listener = native.unixListen(path, 0);
    descriptors.push(listener);
    await fill(() => native.unixConnect(path));
    const opening = openTransport({ kind: 'unix', path }, DEADLINE);
    await sleep(SHORT);
    descriptors.push(native.accept(listener));
    (await opening).close();
  });
});

describe('a server that connects, and then', () => {
  const SILENT = /^NBD server at \S+: no answer within 0\.1 s; is it an NBD server\?$/;

  it('says nothing', async () => {
    assert.match(await failure(await serve(() => undefined), SHORT), SILENT);
  });

  it('says less than a greeting', async () => {
    const address = await serve((peer) => peer.write(OLDSTYLE.subarray(0, 7)));
    assert.match(await failure(address, SHORT), SILENT);
  });

  it('stops in the middle', async () => {
    const address = await serve((peer) => peer.write(GREETING));
    assert.match(await failure(address, SHORT), SILENT);
  });

  it('speaks something else, and much of it', async () => {
    const address = await serve((peer) => {
      const more = (): void => {
        while (peer.writable && peer.write('y\n'.repeat(1000)));
      };
      peer.on('drain', more);
      more();
    });
    assert.match(
      await failure(address),
      /^NBD server at \S+: it does not speak NBD; it sent "y\\ny\\ny\\ny\\n"$/,
    );
  });

  it('speaks something else, and waits', async () => {
    const address = await serve((peer) => peer.write('220 smtp.example.com\r\n'));
    assert.match(await failure(address), /: it does not speak NBD; it sent "220 smtp"$/);
  });

  it('hangs up', async () => {
    assert.match(
      await failure(await serve((peer) => peer.end())),
      /^NBD server at \S+: it closed the connection before it said anything$/,
    );
  });

  it('hangs up in the middle', async () => {
    const address = await serve((peer) => peer.end(GREETING));
    assert.match(
      await failure(address),
      /^NBD server at \S+: it closed the connection in the middle of the handshake; has it a default export\?$/,
    );
    assert.match(
      await failure(address, DEADLINE, 'disk\x1b'),
      /: it closed the connection in the middle of the handshake; has it an export named "disk"\?$/,
    );
  });

  it('breaks the connection', async () => {
    const address = await serve(
      (peer) => {
        // Once the client has its answer to wait for.
        peer.once('data', () => peer.resetAndDestroy());
        peer.write(GREETING);
      },
      { host: '127.0.0.1', port: 0 },
    );
    assert.match(
      await failure(address),
      /^NBD server at 127\.0\.0\.1:\d+: (the connection broke in the handshake: connection reset by peer|it closed the connection .*)$/,
    );
  });

  it('refuses is told goodbye before the connection is closed', async () => {
    let heard = Buffer.alloc(0);
    let ended: () => void = () => undefined;
    const end = new Promise<void>((resolve) => (ended = resolve));
    const address = await serve((peer) => {
      peer.on('data', (bytes) => (heard = Buffer.concat([heard, bytes])));
      peer.on('end', () => ended());
      peer.write(GREETING);
      // EXTENDED_HEADERS: ERR_SHUTDOWN
      peer.write(hex('0003e889045565a9 0000000b 80000007 00000000'));
    });
    assert.match(await failure(address), /: the server is shutting down$/);
    await end;
    assert.deepEqual(heard.subarray(-ABORT.length), ABORT);
  });

  it('is given a name that is too long is not even connected to', async () => {
    const address = await serve(() => assert.fail('it was connected to'));
    assert.match(await failure(address, DEADLINE, 'x'.repeat(4097)), /more than 4096 bytes/);
  });

  it('does as it should', async () => {
    const heard: Buffer[] = [];
    const address = await serve((peer) => {
      peer.on('data', (bytes) => heard.push(bytes));
      peer.write(OLDSTYLE);
    });
    const { transport, negotiated } = await openExport(
      { address, exportName: '' },
      { deadline: DEADLINE },
    );
    assert.equal(negotiated.size, 1n << 20n);
    // It is still open, for whoever goes on from here.
    transport.send(Buffer.from('hello'), 0, 5);
    transport.flush();
    const end = performance.now() + DEADLINE;
    while (heard.length === 0 && performance.now() < end) await sleep(1);
    assert.equal(Buffer.concat(heard).toString(), 'hello');
    transport.close();
  });
});

describe('a server over TCP', () => {
  const oldstyle = (peer: Socket): void => void peer.write(OLDSTYLE);
  const opens = async (address: Address): Promise<void> => {
    const { transport } = await openExport({ address, exportName: '' }, { deadline: DEADLINE });
    transport.close();
  };

  it('by its IPv4 address', async () => {
    const address = await serve(oldstyle, { host: '127.0.0.1', port: 0 });
    await opens(address);
  });

  // The name of an interface belongs to the address.
  for (const host of ['::1', '::1%lo']) {
    it(`by its IPv6 address, or a line on why that cannot be: ${host}`, async () => {
      const listener = native.tcpListen('::1', 0, 1);
      if (listener < 0) {
        // The kernel has no IPv6, or it is switched off: there is no other reason.
        assert.ok([errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL].includes(-listener), `${listener}`);
        assert.equal(
          await failure({ kind: 'tcp', host, port: 1 }),
          `cannot connect to [${host}]:1: ${errnoText(-listener)}`,
        );
        return;
      }
      native.close(listener);
      const address = await serve(oldstyle, { host: '::1', port: 0 });
      assert.ok(address.kind === 'tcp');
      await opens({ ...address, host });
    });
  }

  it('by its name', async () => {
    const address = await serve(oldstyle, { host: '127.0.0.1', port: 0 });
    assert.ok(address.kind === 'tcp');
    await opens({ ...address, host: 'localhost' });
  });

  it('that there is not', async () => {
    assert.equal(
      await failure({ kind: 'tcp', host: '127.0.0.1', port: 1 }),
      'cannot connect to 127.0.0.1:1: connection refused',
    );
  });

  it('whose numeric address no system takes', async () => {
    for (const host of ['1.2.3.4%eth0', 'fe80::1%nosuchif', `fe80::1%${'e'.repeat(1000)}`]) {
      assert.match(
        await failure({ kind: 'tcp', host, port: 1 }),
        /^cannot connect to \S+:1: invalid argument$/,
      );
    }
  });

  it('that does not take the connection', async () => {
    const listener = native.tcpListen('127.0.0.1', 0, 0);
    descriptors.push(listener);
    const port = native.tcpPort(listener);
    await fill(() => native.tcpConnect('127.0.0.1', port));
    assert.equal(
      await failure({ kind: 'tcp', host: '127.0.0.1', port }, SHORT),
      `cannot connect to 127.0.0.1:${port}: no answer in time`,
    );
  });
});

describe('a server by vsock', () => {
  const port = 0x5000_0000 + process.pid;

  it('that there is not', async () => {
    assert.match(
      await failure({ kind: 'vsock', cid: 0xffff_fffe, port }),
      new RegExp(`^cannot connect to vsock:4294967294:${port}: [a-z]`),
    );
  });

  it('on this machine, where the kernel lets it be reached', async () => {
    const address: Address = { kind: 'vsock', cid: 1, port };
    const listener = native.vsockListen(1, port, 1);
    if (listener < 0) {
      // What becomes of it then is the business of whoever emulates the machine: a refusal, or nothing.
      assert.match(await failure(address, SHORT), /^cannot connect to vsock:1:\d+: [a-z]/);
      return;
    }
    descriptors.push(listener);
    const transport = await openTransport(address, DEADLINE);
    descriptors.push(native.accept(listener));
    transport.close();
  });

  it('that is given up', async () => {
    const given = AbortSignal.timeout(SHORT);
    const error: unknown = await openTransport(
      { kind: 'vsock', cid: 1, port },
      DEADLINE,
      given,
    ).then(
      (transport) => transport.close(),
      (problem: unknown) => problem,
    );
    // It may have been refused before.
    assert.ok(error instanceof HandshakeError || error === given.reason, String(error));
  });
});

it('is not connected to by vsock with a number that stands for any, or is none', async () => {
  for (const [cid, port] of [
    [0xffff_ffff, 1],
    [2, 0xffff_ffff],
    [-1, 1],
    [2 ** 32 + 2, 1],
    [2, 0.5],
    [Number.NaN, 1],
  ] as const) {
    assert.equal(
      await failure({ kind: 'vsock', cid, port }),
      `cannot connect to vsock:${cid}:${port}: both are numbers from 0 to 4294967294`,
    );
  }
});

describe('a server at the other end of a socket', () => {
  /** @returns our end */
  function inherited(): Address {
    const ends = new Int32Array(2);
    assert.equal(native.socketpair(ends), 0);
    const [fd = -1, theirs = -1] = ends;
    native.setNonblocking(fd, true);
    descriptors.push(theirs);
    return { kind: 'socket', fd, name: 'a socket' };
  }
  // That nothing stays open is looked at after each test.

  it('is let go of when the name is too long', async () => {
    assert.match(await failure(inherited(), DEADLINE, 'x'.repeat(4097)), /more than 4096 bytes/);
  });

  for (const [how, open] of [
    ['openExport', openExport],
    ['connectDisk', connectDisk],
  ] as const) {
    it(`is let go of when there are no certificates: ${how}`, async () => {
      const tls: TlsSettings = {
        type: 'x509',
        hostname: 'h',
        verifyPeer: true,
        certificates: join(folder, 'no-such-folder'),
        pskFile: undefined,
        username: undefined,
      };
      const target = { address: inherited(), exportName: '', tls };
      await assert.rejects(open(target, { deadline: DEADLINE, connections: 4 }), /no-such-folder/);
    });

    it(`is let go of when nobody wants it any more: ${how}`, async () => {
      const target = { address: inherited(), exportName: '' };
      const signal = AbortSignal.abort(new Error('not wanted'));
      const options = { deadline: DEADLINE, connections: 4, signal };
      await assert.rejects(open(target, options), /not wanted/);
    });
  }

  it('is one connection, however many there may be', async () => {
    // Flush and multi-conn.
    const server = await FakeServer.start({ size: 4096n, extendedHeaders: true, flags: 0x105 });
    try {
      const fd = native.unixConnect(server.socketPath);
      assert.ok(fd >= 0);
      const address = { kind: 'socket', fd, name: 'a socket' } as const;
      const disk = await connectDisk(
        { address, exportName: '' },
        { deadline: DEADLINE, connections: 4 },
      );
      assert.ok(disk.info.canMultiConn);
      assert.equal(disk.connections, 1);
      assert.equal((await readDisk(disk, 0n, 4096)).length, 4096);
      await disk.close();
    } finally {
      await server.stop();
    }
  });
});

it('is not waited for by who does not want it any more', async () => {
  // Nobody would answer: documentation is all that these addresses are for (RFC 5737).
  const signal = AbortSignal.abort(new Error('not wanted'));
  const address = { kind: 'tcp', host: '192.0.2.1', port: 10809 } as const;
  await assert.rejects(openTransport(address, DEADLINE, signal), /not wanted/);
});

describe('a name', () => {
  const real = dns.lookup;
  /** Lets names resolve as a test wants, also where it runs without a network. */
  function resolveWith(answer: () => Promise<readonly string[]>): void {
    const fake = async (): Promise<{ address: string; family: number }[]> =>
      (await answer()).map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
    dns.lookup = fake as unknown as typeof dns.lookup;
    syncBuiltinESMExports();
  }
  const failing = (code: string) => (): Promise<never> =>
    Promise.reject(Object.assign(new Error('lookup failed'), { code }));
  afterEach(() => {
    dns.lookup = real;
    syncBuiltinESMExports();
  });
  const host = 'server.example';

  it('that nobody has', async () => {
    resolveWith(failing('ENOTFOUND'));
    assert.equal(
      await failure({ kind: 'tcp', host, port: 10809 }),
      'cannot connect to server.example:10809: there is no host of this name',
    );
  });

  it('that cannot be resolved now', async () => {
    resolveWith(failing('EAI_AGAIN'));
    assert.equal(
      await failure({ kind: 'tcp', host, port: 10809 }),
      'cannot connect to server.example:10809: its name was not resolved (EAI_AGAIN)',
    );
  });

  it('that is not resolved in time', async () => {
    resolveWith(() => new Promise(() => undefined));
    assert.equal(
      await failure({ kind: 'tcp', host, port: 10809 }, SHORT),
      'cannot connect to server.example:10809: its name was not resolved in time',
    );
  });

  it('that is not waited for any more', async () => {
    const unwanted = new AbortController();
    resolveWith(() => {
      unwanted.abort(new Error('not wanted'));
      return new Promise(() => undefined);
    });
    await assert.rejects(
      openTransport({ kind: 'tcp', host, port: 10809 }, DEADLINE, unwanted.signal),
      { message: 'not wanted' },
    );
  });

  it('without an address', async () => {
    resolveWith(() => Promise.resolve([]));
    assert.equal(
      await failure({ kind: 'tcp', host, port: 10809 }),
      'cannot connect to server.example:10809: it has no address',
    );
  });

  it('with one address that works among others', async () => {
    const address = await serve(
      (peer) => {
        // It needs time, which those before it must not have used up.
        setTimeout(() => peer.write(OLDSTYLE), SHORT);
      },
      { host: '127.0.0.1', port: 0 },
    );
    assert.ok(address.kind === 'tcp');
    // One refuses, one is of no kind that there is, one swallows everything.
    const listener = native.tcpListen('127.0.0.2', address.port, 0);
    assert.ok(listener >= 0);
    descriptors.push(listener);
    await fill(() => native.tcpConnect('127.0.0.2', address.port));
    resolveWith(() => Promise.resolve(['127.0.0.3', 'nonsense', '127.0.0.2', '127.0.0.1']));
    const opened = await openExport(
      { address: { ...address, host }, exportName: '' },
      { deadline: 4_000 },
    );
    opened.transport.close();
  });

  it('with addresses of which none works', async () => {
    resolveWith(() => Promise.resolve(['127.0.0.2', '127.0.0.3']));
    assert.equal(
      await failure({ kind: 'tcp', host, port: 1 }),
      'cannot connect to server.example:1: connection refused',
    );
  });
});
