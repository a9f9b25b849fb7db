/** Encrypted connections with real servers, and with some that are not what they say. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs, { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { flushDisk, readDisk, writeDisk, zeroDisk } from '../../src/disk/promises.js';
import { Option, OptionReply } from '../../src/nbd/constants.js';
import { HandshakeError } from '../../src/nbd/errors.js';
import { connectDisk } from '../../src/nbd/nbd-disk.js';
import { parseNbdUri } from '../../src/nbd/uri.js';
import { PSK_USER, makeCertificates } from '../support/certificates.js';
import type { Certificates } from '../support/certificates.js';
import { Workplace, until } from '../support/mounts.js';
import {
  startNbdServer,
  startNbdkit,
  startQemuNbd,
  startTsnbdkit,
} from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import { requires } from '../support/requires.js';
import {
  Listener,
  answerStartTls,
  forward,
  optionReply,
  stripStartTls,
} from '../support/starttls-peer.js';

const DEADLINE = 30_000;
const MIB = 1 << 20;
const SIZE = 16 * MIB;

describe(
  'TLS',
  requires({ root: true, fuse: true, programs: ['openssl', 'nbdkit', 'qemu-nbd', 'nbd-server'] }),
  () => {
    let folder = '';
    let image = '';
    let keys: Certificates;
    let cleanups: (() => Promise<unknown>)[] = [];

    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
      // nbd-server gives up being root.
      await chmod(folder, 0o755);
      keys = makeCertificates(folder);
      image = join(folder, 'image');
      await writeFile(image, Buffer.alloc(SIZE));
    });
    after(() => rm(folder, { recursive: true }));
    afterEach(async () => {
      const all = cleanups;
      cleanups = [];
      for (const cleanup of all.reverse()) await cleanup();
    });

    const running = async (starting: Promise<RealServer>): Promise<RealServer> => {
      const server = await starting;
      cleanups.push(() => server.stop());
      return server;
    };
    const listening = async (serve: Parameters<typeof Listener.start>[0]): Promise<Listener> => {
      const listener = await Listener.start(serve);
      cleanups.push(() => listener.stop());
      return listener;
    };

    const nbdkit = (...options: string[]): Promise<RealServer> =>
      running(startNbdkit(['--tls=require', ...options, 'memory', String(SIZE)]));
    const nbdkitX509 = (server = keys.server, ...options: string[]): Promise<RealServer> =>
      nbdkit(`--tls-certificates=${server}`, ...options);
    const qemu = (object: string): Promise<RealServer> =>
      running(
        startQemuNbd(['--shared=8', '--object', object, '--tls-creds', 'tls0', '-f', 'raw', image]),
      );
    const qemuX509 = (verify = 'off'): Promise<RealServer> =>
      qemu(`tls-creds-x509,id=tls0,endpoint=server,dir=${keys.server},verify-peer=${verify}`);
    const nbdServer = (): Promise<RealServer> =>
      running(
        startNbdServer({
          generic: {
            user: 'root',
            group: 'root',
            cacertfile: join(keys.server, 'ca-cert.pem'),
            certfile: join(keys.server, 'server-cert.pem'),
            keyfile: join(keys.server, 'server-key.pem'),
            force_tls: 'true',
          },
          disk: { exportname: image },
        }),
      );

    type Parameters_ = Readonly<Record<string, string>>;
    const query = (parameters: Parameters_): string =>
      Object.entries(parameters)
        .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
        .join('&');
    const unixUri = (server: RealServer, parameters: Parameters_, name = ''): string =>
      `nbds+unix:///${name}?${query({
        socket: server.socketPath,
        ...('tls-psk-file' in parameters ? {} : { 'tls-hostname': 'localhost' }),
        ...parameters,
      })}`;
    /** By TCP: the servers listen on Unix sockets only. */
    const tcpUri = async (
      server: RealServer,
      parameters: Parameters_,
      { name = '', host = 'localhost' } = {},
    ): Promise<string> => {
      const { port } = await listening(forward(server.socketPath));
      return `nbds://${host}:${port}/${name}?${query(parameters)}`;
    };

    async function roundTrip(uri: string, connections = 4): Promise<string[]> {
      const warnings: string[] = [];
      const disk = await connectDisk(parseNbdUri(uri), {
        deadline: DEADLINE,
        connections,
        warn: (line) => warnings.push(line),
      });
      try {
        const data = randomBytes(8 * MIB);
        const pieces: Promise<void>[] = [];
        // Large and small ones, all under way at once.
        for (let at = 0, i = 0; at < data.length; i++) {
          const length = Math.min([MIB, 512, 65536, 4096, 3 * MIB][i % 5] ?? 1, data.length - at);
          pieces.push(writeDisk(disk, BigInt(at), data.subarray(at, at + length)));
          at += length;
        }
        await Promise.all(pieces);
        await zeroDisk(disk, BigInt(MIB), BigInt(MIB));
        data.fill(0, MIB, 2 * MIB);
        if (disk.info.canFlush) await flushDisk(disk);
        const reads = Array.from({ length: 64 }, (_, i) =>
          readDisk(disk, BigInt(i * 131072), 131072),
        );
        assert.ok(Buffer.concat(await Promise.all(reads)).equals(data));
        assert.ok((await readDisk(disk, 0n, data.length)).equals(data));
      } finally {
        await disk.close();
      }
      return warnings;
    }

    async function fails(
      uri: string,
      message: RegExp,
      { deadline = DEADLINE, failure = 'tls' } = {},
    ): Promise<void> {
      await assert.rejects(
        connectDisk(parseNbdUri(uri), { deadline, connections: 1 }).then((disk) => disk.close()),
        (error) => {
          assert.ok(error instanceof HandshakeError, String(error));
          assert.match(error.message, message);
          assert.ok(!error.message.includes('\n'), error.message);
          assert.equal(error.failure, failure, error.message);
          return true;
        },
      );
    }

    const owning = (): Parameters_ => ({ 'tls-certificates': keys.clientWithKey });
    const trusting = (): Parameters_ => ({ 'tls-certificates': keys.client });

    describe('with the certificate of the server', () => {
      for (const [name, start, exportName, parameters] of [
        ['nbdkit', () => nbdkitX509(), '', trusting],
        ['qemu-nbd', () => qemuX509(), '', trusting],
        // It lets nobody in without one of the client's.
        ['nbd-server', () => nbdServer(), 'disk', owning],
      ] as const) {
        it(`goes over a Unix socket: ${name}`, async () => {
          assert.deepEqual(await roundTrip(unixUri(await start(), parameters(), exportName)), []);
        });
        it(`goes over TCP: ${name}`, async () => {
          const server = await start();
          await roundTrip(await tcpUri(server, parameters(), { name: exportName }));
          const address = { name: exportName, host: '127.0.0.1' };
          await roundTrip(await tcpUri(server, parameters(), address), 1);
        });
      }

      it('checks it against another name, where that is given', async () => {
        const server = await nbdkitX509(keys.otherServer);
        await roundTrip(unixUri(server, { ...trusting(), 'tls-hostname': 'other.example' }));
        await fails(
          unixUri(server, trusting()),
          /: its certificate is for DNS:other\.example, and not for localhost$/,
        );
        await fails(await tcpUri(server, trusting()), /for DNS:other.*not for localhost$/);
      });

      it('believes whoever answers only when it is told to', async () => {
        const server = await nbdkitX509(keys.otherServer);
        await roundTrip(unixUri(server, { 'tls-verify-peer': '0' }));
        await fails(
          unixUri(server, {}),
          /TLS: its certificate is from an authority that is not trusted$/,
        );
      });

      it('refuses one that has expired, or is from an authority it does not know', async () => {
        await fails(
          unixUri(await nbdkitX509(keys.expiredServer), trusting()),
          /TLS: its certificate has expired$/,
        );
        await fails(
          unixUri(await nbdkitX509(), { 'tls-certificates': keys.stranger }),
          /TLS: its certificate is from an authority that is not trusted$/,
        );
      });

      it('refuses one that was revoked', async () => {
        const server = await nbdkitX509();
        await fails(
          unixUri(server, { 'tls-certificates': keys.revoking }),
          /TLS: its certificate was revoked \(ca-crl\.pem\)$/,
        );
        await roundTrip(unixUri(server, { 'tls-certificates': keys.clean }), 1);
      });
    });

    describe('with a certificate of the client', () => {
      for (const [name, start] of [
        ['nbdkit', () => nbdkitX509(keys.server, '--tls-verify-peer')],
        ['qemu-nbd', () => qemuX509('on')],
      ] as const) {
        it(`is let in: ${name}`, async () => {
          await roundTrip(unixUri(await start(), owning()));
        });
        it(`is not let in without: ${name}`, async () => {
          await fails(
            unixUri(await start(), trusting()),
            /wants a certificate of ours: client-cert\.pem and client-key\.pem in tls-certificates=$/,
          );
          await fails(
            unixUri(await start(), { 'tls-certificates': keys.clientOfOthers }),
            /TLS|hung up|closed the connection/,
          );
        });
      }

      it('is not let in without: nbd-server', async () => {
        await fails(
          unixUri(await nbdServer(), trusting(), 'disk'),
          /wants a certificate of ours: client-cert\.pem and client-key\.pem in tls-certificates=$/,
        );
      });
    });

    describe('with a key that both have', () => {
      const knowing = (): Parameters_ => ({
        'tls-psk-file': keys.pskFile,
        'tls-username': PSK_USER,
      });
      for (const [name, start] of [
        ['nbdkit', () => nbdkit(`--tls-psk=${keys.pskFile}`)],
        ['qemu-nbd', () => qemu(`tls-creds-psk,id=tls0,endpoint=server,dir=${keys.pskServer}`)],
      ] as const) {
        it(`goes over a Unix socket and TCP: ${name}`, async () => {
          const server = await start();
          await roundTrip(unixUri(server, knowing()));
          const tcp = await tcpUri(server, { 'tls-psk-file': keys.pskFile });
          await roundTrip(tcp.replace('nbds://', `nbds://${PSK_USER}@`));
        });

        it(`refuses another key, or a user that is not known: ${name}`, async () => {
          const server = await start();
          const other = join(folder, 'other.psk');
          await writeFile(other, `${PSK_USER}:${'cd'.repeat(32)}\nmallory:${'cd'.repeat(32)}\n`);
          await chmod(other, 0o600);
          for (const user of [PSK_USER, 'mallory']) {
            const parameters = { 'tls-psk-file': other, 'tls-username': user };
            await fails(unixUri(server, parameters), /TLS|hung up/);
          }
        });
      }

      it('is no way in for a server with a certificate', async () => {
        await fails(unixUri(await nbdkitX509(), knowing()), /TLS|hung up/);
      });

      it('needs the file, the user and a key', async () => {
        const server = await nbdkit(`--tls-psk=${keys.pskFile}`);
        const uri = (file: string, user: string): string =>
          unixUri(server, { 'tls-psk-file': file, 'tls-username': user });
        await fails(uri(join(folder, 'none'), 'x'), /cannot read .*none: it does not exist$/);
        await fails(uri(keys.pskFile, 'carol'), /has no key for the user carol; give another one/);
        const bad = join(folder, 'bad.psk');
        await writeFile(bad, 'carol:xyz\n', { mode: 0o600 });
        await fails(uri(bad, 'carol'), /bad\.psk: the key of carol is not hexadecimal$/);
      });
    });

    it('may be without knowing with whom, when that is asked for', async () => {
      const server = await qemu('tls-creds-anon,id=tls0,endpoint=server');
      await roundTrip(`nbds+unix:///?${query({ socket: server.socketPath, 'tls-type': 'anon' })}`);
      await fails(unixUri(server, trusting()), /TLS|hung up/);
    });

    describe('is never left out', () => {
      it('where the server has none', async () => {
        for (const server of [
          await running(startNbdkit(['memory', '1M'])),
          await running(startQemuNbd(['-f', 'raw', image])),
          await running(startTsnbdkit(['memory', '1M'])),
          await running(startNbdkit(['--mask-handshake=0', 'memory', '1M'])),
          await running(startNbdkit(['-o', 'memory', '1M'])),
        ]) {
          await fails(unixUri(server, trusting()), /offers no encryption, which is asked for/);
        }
      });

      it('where the server insists on it, and the URI has it not', async () => {
        for (const server of [await nbdkitX509(), await qemuX509()]) {
          const uri = `nbd+unix:///?${query({ socket: server.socketPath })}`;
          await fails(uri, /wants an encrypted connection; use a URI that begins with nbds/);
        }
      });

      it('by somebody in between who strips STARTTLS', async () => {
        // It would go on without: only the client can refuse.
        const server = await running(
          startNbdkit(['--tls=on', `--tls-certificates=${keys.server}`, 'memory', '1M']),
        );
        const seen: Buffer[] = [];
        const { port } = await listening(
          stripStartTls(server.socketPath, (data) => seen.push(data)),
        );
        const uri = `nbds://localhost:${port}/?${query(trusting())}`;
        await fails(uri, /offers no encryption, which is asked for/);
        // A goodbye at the most, and no name of an export.
        for (const data of seen) assert.ok(data.length <= 16, data.toString('hex'));
      });

      it('for somebody in between with another certificate', async () => {
        const mallory = await nbdkitX509(keys.otherServer);
        await fails(await tcpUri(mallory, trusting()), /its certificate is for DNS:other\.example/);
      });

      it('where something is slipped in before it', async () => {
        const ack = optionReply(Option.STARTTLS, OptionReply.ACK);
        const slipped = Buffer.concat([ack, optionReply(Option.STRUCTURED_REPLY, OptionReply.ACK)]);
        const { port } = await listening(answerStartTls(slipped, () => undefined));
        await fails(
          `nbds://localhost:${port}/?${query(trusting())}`,
          /agreed to TLS and then did not/,
        );
      });

      it('where the server agrees, and then says nothing', async () => {
        const ack = optionReply(Option.STARTTLS, OptionReply.ACK);
        const { port } = await listening(answerStartTls(ack, () => undefined));
        const uri = `nbds://localhost:${port}/?${query(trusting())}`;
        await fails(uri, /no answer within 0\.5 s/, {
          deadline: 500,
          failure: 'unreachable',
        });
      });

      it('where the server agrees, and then hangs up', async () => {
        const ack = optionReply(Option.STARTTLS, OptionReply.ACK);
        const { port } = await listening(answerStartTls(ack, (_data, socket) => socket.destroy()));
        const uri = `nbds://localhost:${port}/?${query(trusting())}`;
        await fails(uri, /hung up during the TLS handshake/);
      });

      for (const [what, parameters, message] of [
        ['one', owning, /hung up right after the TLS handshake; perhaps it refuses our cert/],
        ['none', trusting, /hung up right after the TLS handshake; perhaps it wants a certificate/],
      ] as const) {
        it(`where the server refuses us without a word afterwards, who have a certificate: ${what}`, async () => {
          const [key, cert] = await Promise.all(
            ['server-key.pem', 'server-cert.pem'].map((name) => readFile(join(keys.server, name))),
          );
          let peer: Socket | undefined;
          const inner = createTlsServer({ key, cert }, (secure) => {
            peer?.destroy();
            secure.on('error', () => undefined).destroy();
          });
          await new Promise<void>((resolve) => inner.listen(0, '127.0.0.1', resolve));
          const behind = connect((inner.address() as AddressInfo).port, '127.0.0.1');
          cleanups.push(async () => {
            behind.destroy();
            await new Promise((resolve) => inner.close(resolve));
          });
          behind.on('data', (data) => peer?.write(data));
          const ack = optionReply(Option.STARTTLS, OptionReply.ACK);
          const answer = answerStartTls(ack, (data, socket) => {
            peer = socket;
            behind.write(data);
          });
          const { port } = await listening(answer);
          await fails(`nbds://localhost:${port}/?${query(parameters())}`, message);
        });
      }
    });

    describe('with files that are not as they should be', () => {
      const own = async (name: string, files: readonly string[]): Promise<string> => {
        const directory = join(folder, name);
        await mkdir(directory);
        for (const file of files) {
          await copyFile(join(keys.clientWithKey, file), join(directory, file));
          await chmod(join(directory, file), 0o600);
        }
        return directory;
      };

      for (const [name, files, message] of [
        ['no-ca', [], /cannot read .*no-ca\/ca-cert\.pem: it does not exist$/],
        [
          'no-key',
          ['ca-cert.pem', 'client-cert.pem'],
          /the key to it is missing: client-key\.pem$/,
        ],
        ['no-cert', ['ca-cert.pem', 'client-key.pem'], /is missing: client-cert\.pem$/],
      ] as const) {
        it(`names the one that is missing: ${name}`, async () => {
          const server = await nbdkitX509();
          const directory = await own(name, files);
          await fails(unixUri(server, { 'tls-certificates': directory }), message);
        });
      }

      it('names the folder that is missing', async () => {
        const server = await nbdkitX509();
        const parameters = { 'tls-certificates': join(folder, 'nowhere') };
        await fails(unixUri(server, parameters), /nowhere\/ca-cert\.pem: it does not exist$/);
      });

      it('tells of a file that holds nothing of the kind', async () => {
        const server = await nbdkitX509();
        const directory = await own('rubbish', []);
        await writeFile(join(directory, 'ca-cert.pem'), 'rubbish');
        await fails(
          unixUri(server, { 'tls-certificates': directory }),
          /^\S+rubbish\/ca-cert\.pem holds no certificate in PEM form$/,
        );
      });

      it('reads them once, and connects as often as it likes', async () => {
        const server = await nbdkitX509();
        const directory = await own('once', ['ca-cert.pem']);
        const uri = unixUri(server, { 'tls-certificates': directory });
        const reads: string[] = [];
        const real = fs.open;
        fs.open = (path, ...rest) => {
          reads.push(String(path));
          return real(path, ...rest);
        };
        syncBuiltinESMExports();
        try {
          const disk = await connectDisk(parseNbdUri(uri), {
            deadline: DEADLINE,
            connections: 4,
          });
          await until('all are there', () => disk.connections === 4);
          await disk.close();
        } finally {
          fs.open = real;
          syncBuiltinESMExports();
        }
        assert.equal(reads.filter((path) => path.endsWith('ca-cert.pem')).length, 1);
      });

      it('warns of keys that others can read, and goes on', async () => {
        const server = await nbdkitX509();
        const all = ['ca-cert.pem', 'client-cert.pem', 'client-key.pem'];
        const directory = await own('open', all);
        await chmod(join(directory, 'client-key.pem'), 0o644);
        const warnings = await roundTrip(unixUri(server, { 'tls-certificates': directory }));
        assert.equal(warnings.length, 1);
        assert.match(
          warnings[0] ?? '',
          /open\/client-key\.pem holds a key and can be read by others/,
        );
      });
    });

    it('carries a mount', async () => {
      const server = await nbdkitX509();
      const place = await Workplace.create();
      try {
        await place.file('disk.raw');
        const uri = unixUri(server, trusting());
        const mounted = await place.mount(['disk.raw', uri]);
        await place.ok('dd', ['if=/dev/urandom', 'of=data', 'bs=1M', 'count=16', 'status=none']);
        await place.ok('dd', ['if=data', 'of=disk.raw', 'bs=1M', 'status=none']);
        await place.ok('cmp', ['data', 'disk.raw']);
        const { status, stderr } = await mounted.unmount('disk.raw');
        assert.deepEqual([status, stderr], [0, '']);
        const again = await place.mount(['-r', '--reconnect=0', 'disk.raw', uri]);
        await place.ok('cmp', ['data', 'disk.raw']);
        await server.stop();
        const result = await place.run('dd', ['if=disk.raw', 'of=out', 'bs=1M', 'iflag=direct']);
        assert.match(result.stderr, /Input\/output error/);
        assert.equal((await again.unmount('disk.raw')).status, 7);

        const refused = await place.tsnbdfuse(['disk.raw', uri.replace('nbds', 'nbd')]);
        assert.equal(refused.status, 2, 'TLS parameters without TLS');
        await place.nothingLeft();
      } finally {
        await place.remove();
      }
    });
  },
);
