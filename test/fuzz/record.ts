/**
 * Records the sessions in corpus/ anew: `node dist/test/fuzz/record.js`. It needs the servers and clients that
 * the end-to-end tests need.
 */

import { execFile } from 'node:child_process';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Owner } from '../../src/buffer-pool.js';
import { clientHandshake } from '../../src/nbd/handshake.js';
import { NbdDisk } from '../../src/nbd/nbd-disk.js';
import { openTransport } from '../../src/nbd/dial.js';
import { converse } from '../../src/transport/dialogue.js';
import type { Transport, TransportEvents } from '../../src/transport/transport.js';
import {
  startNbdServer,
  startNbdkit,
  startQemuNbd,
  startTsnbdkit,
} from '../support/real-servers.js';
import type { RealServer } from '../support/real-servers.js';
import type { Asked } from '../support/reply-client.js';
import { clientFlags, option, request } from '../support/server-messages.js';
import { Asking } from './asking.js';
import { CORPUS, DISK_BYTES } from './corpus.js';
import type { ClientSession, ServerSession } from './corpus.js';
import { pack } from './findings.js';
import { clientFrames, serverFrames } from './framing.js';

/** Milliseconds. */
const DEADLINE = 30_000;
const run = promisify(execFile);

/** Of each command several, over data, holes and the end of the disk. */
const ASKED: readonly Asked[] = [
  { type: 'read', offset: 0n, length: 512 },
  { type: 'read', offset: 1024n, length: 2048 },
  { type: 'read', offset: 16384n, length: 1024 },
  { type: 'status', offset: 0n, length: DISK_BYTES },
  { type: 'write', offset: 8192n, length: 512 },
  { type: 'flush' },
  { type: 'zero', offset: 0n, length: 4096 },
  { type: 'trim', offset: 32768n, length: 4096 },
  { type: 'read', offset: BigInt(DISK_BYTES) - 512n, length: 512 },
  { type: 'read', offset: BigInt(DISK_BYTES), length: 512 },
  { type: 'write', offset: BigInt(DISK_BYTES), length: 512 },
  { type: 'flush' },
];

/** A transport that keeps what it received. */
class Recorder implements Transport {
  readonly #over: Transport;
  readonly #received: Buffer[] = [];

  constructor(over: Transport) {
    this.#over = over;
  }

  get received(): Buffer {
    return Buffer.concat(this.#received);
  }

  get queuedBytes(): number {
    return this.#over.queuedBytes;
  }

  open(events: TransportEvents): void {
    this.#over.open(events);
  }

  receive(bytes: Buffer, start: number, length: number): number {
    const count = this.#over.receive(bytes, start, length);
    if (count > 0) this.#received.push(Buffer.from(bytes.subarray(start, start + count)));
    return count;
  }

  pause(): void {
    this.#over.pause();
  }

  resume(): void {
    this.#over.resume();
  }

  send(bytes: Buffer, start: number, length: number, owner?: Owner): void {
    this.#over.send(bytes, start, length, owner);
  }

  flush(): void {
    this.#over.flush();
  }

  close(): void {
    this.#over.close();
  }

  reset(): void {
    this.#over.reset();
  }
}

async function save(name: string, session: ServerSession | ClientSession): Promise<void> {
  await writeFile(join(CORPUS, `${name}.json`), pack(session));
  process.stdout.write(`${name}: ${session.frames.length} messages\n`);
}

async function recordServer(
  name: string,
  of: string,
  server: RealServer,
  exportName = '',
): Promise<void> {
  try {
    const address = { kind: 'unix' as const, path: server.socketPath };
    const transport = new Recorder(await openTransport(address, DEADLINE));
    const agreed = await converse(transport, clientHandshake({ exportName }), DEADLINE);
    const handshakeBytes = transport.received.length;
    const disk = new NbdDisk(agreed);
    disk.addConnection(transport, agreed);
    const asking = new Asking(disk, []);
    const { info } = disk;
    const asked = ASKED.filter(
      ({ type }) =>
        (type !== 'trim' || info.canTrim) &&
        (type !== 'zero' || info.canZero) &&
        (type !== 'status' || info.canExtents),
    );
    // All of them at once, as they are replayed.
    for (const one of asked) asking.ask(one);
    const end = performance.now() + DEADLINE;
    while (asking.answered < asking.asked) {
      if (performance.now() > end) throw new Error(`${of} does not answer`);
      await delay(5);
    }
    await disk.close();
    const frames = serverFrames(transport.received, handshakeBytes, asked);
    await save(name, { from: 'server', of, exportName, asked, answers: asking.answers, frames });
  } finally {
    await server.stop();
  }
}

async function version(program: string, ...args: string[]): Promise<string> {
  const { stdout, stderr } = await run(program, args);
  return /[^\n]*\d+\.\d+[^\n(]*/.exec(stdout + stderr)?.[0].trim() ?? program;
}

/**
 * Runs a client of tsnbdkit through a socket that listens to it.
 * @param image to serve @param args get the URI of that socket
 */
async function recordClient(
  name: string,
  of: string,
  program: string,
  image: string,
  args: (uri: string) => readonly string[],
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-record-'));
  const server = await startTsnbdkit(['file', image]);
  const heard: Buffer[][] = [];
  const proxy = createServer((client) => {
    const pieces: Buffer[] = [];
    heard.push(pieces);
    const upstream = connect(server.socketPath);
    client.on('data', (piece: Buffer) => pieces.push(piece));
    client.pipe(upstream);
    upstream.pipe(client);
    client.on('error', () => upstream.destroy());
    upstream.on('error', () => client.destroy());
  });
  try {
    const socket = join(folder, 'socket');
    await new Promise<void>((resolve) => proxy.listen(socket, resolve));
    await run(program, args(`nbd+unix:///?socket=${socket}`));
    const whole = heard.map((pieces) => Buffer.concat(pieces));
    // A client may have several connections, and some to look around: the one that did the most is kept.
    const longest = whole.toSorted((a, b) => b.length - a.length)[0];
    if (longest === undefined) throw new Error(`${of} did not connect`);
    await save(name, { from: 'client', of, frames: clientFrames(longest) });
  } finally {
    proxy.close();
    await server.stop();
    await rm(folder, { recursive: true });
  }
}

/** As the kernel's client speaks, which needs a device and root to be heard: simple replies, 16 deep. */
function kernelFrames(): Buffer[] {
  const cookie = (tag: number): bigint => (BigInt(tag) << 32n) | BigInt(tag);
  const requests = Array.from({ length: 16 }, (_, tag) =>
    tag % 4 === 3
      ? request({ type: 3, cookie: cookie(tag) })
      : tag % 4 === 2
        ? request({ type: 4, cookie: cookie(tag), offset: 4096n, length: 4096 })
        : request({
            type: tag % 2,
            cookie: cookie(tag),
            offset: BigInt(4096 * tag),
            length: 512,
            payload: Buffer.alloc(tag % 2 === 1 ? 512 : 0, tag),
          }),
  );
  return [clientFlags(3), option(1), ...requests, request({ type: 2 })];
}

async function main(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-record-'));
  try {
    const image = async (name: string): Promise<string> => {
      const path = join(folder, name);
      const file = await open(path, 'w');
      await file.write(Buffer.alloc(3000, 'tsnbdfuse '), 0, 3000, 0);
      await file.truncate(DISK_BYTES);
      await file.close();
      return path;
    };
    const raw = await image('raw');
    const qcow2 = join(folder, 'qcow2');
    await run('qemu-img', ['convert', '-O', 'qcow2', raw, qcow2]);
    const qemu = await version('qemu-nbd', '--version');
    const kit = await version('nbdkit', '--version');
    const nbdServer = await version('nbd-server', '-V').catch(() => 'nbd-server');
    await recordServer('qemu-nbd-raw', `${qemu}, raw`, await startQemuNbd(['-f', 'raw', raw]));
    await recordServer(
      'qemu-nbd-qcow2',
      `${qemu}, qcow2`,
      await startQemuNbd(['-f', 'qcow2', qcow2]),
    );
    await recordServer('nbdkit-file', `${kit}, file`, await startNbdkit(['file', raw]));
    await recordServer('nbdkit-memory', `${kit}, memory`, await startNbdkit(['memory', '64K']));
    const simple = await startNbdkit(['--no-sr', 'file', raw]);
    await recordServer('nbdkit-simple', `${kit}, simple replies`, simple);
    const failing = ['--filter=error', 'memory', '64K', 'error-pread-rate=50%', 'error=ENOSPC'];
    await recordServer('nbdkit-error', `${kit}, with errors`, await startNbdkit(failing));
    const exports = { disk: { exportname: raw } };
    await recordServer('nbd-server', nbdServer, await startNbdServer(exports), 'disk');
    await recordServer('tsnbdkit', 'tsnbdkit, file', await startTsnbdkit(['file', raw]));

    const source = await image('source');
    const target = await image('target');
    const libnbd = await version('nbdcopy', '--version');
    const single = ['--connections=1', '--requests=4', '--request-size=4096'];
    await recordClient('nbdcopy-write', `${libnbd}, writing`, 'nbdcopy', target, (uri) => [
      ...single,
      source,
      uri,
    ]);
    await recordClient('nbdcopy-read', `${libnbd}, reading`, 'nbdcopy', source, (uri) => [
      ...single,
      uri,
      'null:',
    ]);
    await recordClient('nbdinfo-map', `${libnbd}, map`, 'nbdinfo', source, (uri) => ['--map', uri]);
    const qemuIo = await version('qemu-io', '--version');
    const commands = [
      'write -P 5 4k 8k',
      'read 0 16k',
      'write -z 8k 4k',
      'discard 16k 4k',
      'flush',
      'map',
    ];
    await recordClient('qemu-io', qemuIo, 'qemu-io', target, (uri) => [
      '-f',
      'raw',
      ...commands.flatMap((command) => ['-c', command]),
      uri,
    ]);
    await save('kernel-like', {
      from: 'client',
      of: 'the requests of the kernel, made by hand',
      frames: kernelFrames(),
    });
  } finally {
    await rm(folder, { recursive: true });
  }
}

await main();
