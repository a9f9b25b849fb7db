/** The NBD servers that the jobs run against: a table, and how one is started, filled and ended. */

import { chmodSync, existsSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { basename, join } from 'node:path';
import { fillDisk } from './fio.js';
import { run, start, stop, until } from './processes.js';
import type { Started } from './processes.js';
import type { Workshop } from './workshop.js';

/** Milliseconds. */
const START_DEADLINE = 30_000;
const FILL_DEADLINE = 120_000;

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;

/** The disk of few data: its size, and where they are. */
export const SPARSE_SIZE = 100 * GIB;
export const SPARSE_EXTENT = 64 * MIB;
export const SPARSE_OFFSETS: readonly number[] = Array.from(
  { length: 16 },
  (_, i) => i * 6 * GIB + 4096 * i,
);

export type ServerName =
  | 'nbdkit memory'
  | 'nbdkit file'
  | 'tsnbdkit memory'
  | 'tsnbdkit file'
  | 'qemu-nbd raw'
  | 'qemu-nbd qcow2'
  | 'nbdkit memory, 1 ms'
  | 'nbdkit memory, 10 ms'
  | 'nbdkit sparse file';

interface Place {
  readonly socket: string;
  readonly pidfile: string;
  /** For those that serve a file: where there is no disk to wait for, as far as the machine allows. */
  readonly image: string;
  /** The folder of tsnbdkit. */
  readonly commands: string;
  /** Bytes. */
  readonly size: number;
}

interface Plan {
  /** Makes what is to be served. */
  readonly prepare?: (place: Place) => Promise<void>;
  readonly command: (place: Place) => readonly string[];
  /** It has its data already, and is not to be written to. */
  readonly filled?: boolean;
}

async function makeRaw({ image, size }: Place): Promise<void> {
  await run(['truncate', '-s', String(size), image]);
}

async function makeSparse({ image }: Place): Promise<void> {
  await run(['truncate', '-s', String(SPARSE_SIZE), image]);
  const file = await open(image, 'r+');
  try {
    for (const offset of SPARSE_OFFSETS) {
      for (let done = 0; done < SPARSE_EXTENT; done += 4 * MIB) {
        await file.write(randomBytes(4 * MIB), 0, 4 * MIB, offset + done);
      }
    }
  } finally {
    await file.close();
  }
}

const nbdkit = ({ socket, pidfile }: Place): string[] => [
  ...['nbdkit', '-f', '-U', socket, '-P', pidfile],
];
const tsnbdkit = ({ commands, socket, pidfile }: Place): string[] => [
  ...[join(commands, 'tsnbdkit'), '-U', socket, '-P', pidfile],
];
const qemuNbd = ({ socket, pidfile, image }: Place, format: string): string[] => [
  ...['qemu-nbd', '-t', '-e', '32', '-f', format, '-k', socket, '--pid-file', pidfile, image],
];
/** wdelay counts for zero and trim as well; a flush is not delayed. */
const delayed = (place: Place, delay: string): string[] => [
  ...[...nbdkit(place), '--filter=delay', 'memory', String(place.size)],
  ...[`rdelay=${delay}`, `wdelay=${delay}`, `delay-extents=${delay}`],
];

const PLANS: Readonly<Record<ServerName, Plan>> = {
  'nbdkit memory': { command: (place) => [...nbdkit(place), 'memory', String(place.size)] },
  'nbdkit file': { prepare: makeRaw, command: (place) => [...nbdkit(place), 'file', place.image] },
  'tsnbdkit memory': { command: (place) => [...tsnbdkit(place), 'memory', String(place.size)] },
  'tsnbdkit file': {
    prepare: makeRaw,
    command: (place) => [...tsnbdkit(place), 'file', place.image],
  },
  'qemu-nbd raw': { prepare: makeRaw, command: (place) => qemuNbd(place, 'raw') },
  'qemu-nbd qcow2': {
    prepare: async ({ image, size }) => {
      await run(['qemu-img', 'create', '-q', '-f', 'qcow2', image, String(size)]);
    },
    command: (place) => qemuNbd(place, 'qcow2'),
  },
  'nbdkit memory, 1 ms': { command: (place) => delayed(place, '1ms') },
  'nbdkit memory, 10 ms': { command: (place) => delayed(place, '10ms') },
  'nbdkit sparse file': {
    prepare: makeSparse,
    command: (place) => [...nbdkit(place), 'file', place.image],
    filled: true,
  },
};

export interface Server {
  readonly name: ServerName;
  readonly pid: number;
  readonly socket: string;
  readonly uri: string;
  /** Bytes. */
  readonly size: number;
  /** The file it serves, if it serves one. */
  readonly image: string;
  stop(): Promise<void>;
}

/** Waits for the pidfile, which a server writes when it listens: some serve one client only. */
export async function serve(
  command: readonly string[],
  socket: string,
  pidfile: string,
  signal: AbortSignal,
): Promise<Started> {
  const started = start(command);
  try {
    const isThere = (): boolean => {
      if (started.hasEnded()) throw new Error(`${started.program}: ${started.said()}`);
      return existsSync(pidfile) && existsSync(socket);
    };
    await until(`the start of ${started.program}`, isThere, START_DEADLINE, signal);
    // One job mounts as an ordinary user.
    chmodSync(socket, 0o777);
    return started;
  } catch (error) {
    await stop(started);
    throw error;
  }
}

/** Starts a server, with random data all over its disk, so that none of its memory is still to be made. */
export async function startServer(
  name: ServerName,
  size: number,
  commands: string,
  workshop: Workshop,
): Promise<Server> {
  const plan = PLANS[name];
  const folder = workshop.newFolder('server');
  const socket = join(folder, 'nbd.sock');
  const pidfile = join(folder, 'pid');
  const image = join(workshop.memory, basename(folder));
  const place: Place = { socket, pidfile, image, commands, size };
  await plan.prepare?.(place);
  const started = await serve(plan.command(place), socket, pidfile, workshop.signal);
  const uri = `nbd+unix:///?socket=${encodeURIComponent(socket)}`;
  const server: Server = {
    name,
    pid: started.pid,
    socket,
    uri,
    size: plan.filled === true ? SPARSE_SIZE : size,
    image,
    stop: async () => {
      await stop(started);
      rmSync(image, { force: true });
      rmSync(folder, { recursive: true, force: true });
    },
  };
  try {
    if (plan.filled !== true) {
      await run(fillDisk(uri, size), { deadline: FILL_DEADLINE, signal: workshop.signal });
    }
    return server;
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** Servers that are started when they are first asked for, and stopped together. */
export class Servers {
  readonly #started = new Map<ServerName, Server>();
  readonly #start: (name: ServerName) => Promise<Server>;

  constructor(size: number, commands: string, workshop: Workshop) {
    this.#start = (name) => startServer(name, size, commands, workshop);
  }

  async get(name: ServerName): Promise<Server> {
    const server = this.#started.get(name) ?? (await this.#start(name));
    this.#started.set(name, server);
    return server;
  }

  async stop(): Promise<void> {
    for (const server of this.#started.values()) await server.stop();
    this.#started.clear();
  }
}
