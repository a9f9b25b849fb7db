/** Clients that mean ill to a server at a Unix socket, each in its own way, for as long as it lets them. */

import { createConnection } from 'node:net';
import type { Socket } from 'node:net';
import { seeded } from './memory-disk.js';
import { clientFlags, goData, option, request } from './server-messages.js';

const MIB = 1024 * 1024;
/** Milliseconds. */
const RECONNECT_AFTER = 20;
const LORIS_INTERVAL = 100;
/** Greeting, export, block sizes, acknowledgement. */
const HANDSHAKE_BYTES = 18 + 32 + 34 + 20;

const HELLO = Buffer.concat([clientFlags(3), option(7, goData(''))]);
const READ_MIB = Buffer.concat(
  Array.from({ length: 64 }, (_, i) => request({ type: 0, cookie: BigInt(i), length: MIB })),
);
const REFUSED = Buffer.concat(
  Array.from({ length: 1000 }, (_, i) => request({ type: 99, cookie: BigInt(i) })),
);

/** What one does with a connection that is made. */
type Behaviour = (socket: Socket, random: () => number) => void;

/** Sends the same again whenever there is room. */
function flood(socket: Socket, bytes: Buffer): void {
  const more = (): void => {
    while (!socket.destroyed && socket.write(bytes));
  };
  socket.on('drain', more);
  more();
}

/** Goes on once the server has let it in, or at once where it hangs up. */
function letIn(socket: Socket, then: () => void): void {
  let left = HANDSHAKE_BYTES;
  const count = (bytes: Buffer): void => {
    left -= bytes.length;
    if (left > 0) return;
    socket.removeListener('data', count);
    then();
  };
  socket.on('data', count);
  socket.write(HELLO);
}

const BEHAVIOURS: Readonly<Record<string, Behaviour>> = {
  'a handshake, byte by byte': (socket) => {
    let at = 0;
    const timer = setInterval(() => {
      if (at < HELLO.length - 1) socket.write(HELLO.subarray(at, ++at));
    }, LORIS_INTERVAL);
    socket.on('close', () => clearInterval(timer)).resume();
  },
  'nothing at all': (socket) => socket.pause(),
  'nothing after the handshake': (socket) => letIn(socket, () => socket.pause()),
  'reads whose replies it does not take': (socket) =>
    letIn(socket, () => {
      socket.pause();
      flood(socket, READ_MIB);
    }),
  'requests that are refused, as fast as it can': (socket) =>
    letIn(socket, () => {
      socket.resume();
      flood(socket, REFUSED);
    }),
  'half of a long write': (socket) =>
    letIn(socket, () => {
      socket.resume();
      const length = 32 * MIB;
      socket.write(request({ type: 1, length, payload: Buffer.alloc(length / 2) }));
    }),
  'huge lengths': (socket, random) => {
    socket.resume();
    if (random() < 0.5) {
      socket.write(Buffer.concat([clientFlags(3), option(7, Buffer.alloc(0), 0xffffffff)]));
    } else {
      letIn(socket, () => {
        socket.resume();
        socket.write(request({ type: 1, length: 0xffffffff }));
      });
    }
    flood(socket, Buffer.alloc(65536));
  },
  'long options without end': (socket) => {
    socket.resume();
    socket.write(clientFlags(3));
    flood(socket, option(3, Buffer.alloc(65536)));
  },
  garbage: (socket, random) => {
    socket.resume();
    const bytes = Buffer.from(Array.from({ length: 4096 }, () => Math.floor(random() * 256)));
    if (random() < 0.5) letIn(socket, () => flood(socket, bytes));
    else flood(socket, bytes);
  },
  'coming and going': (socket) => letIn(socket, () => socket.destroy()),
};

export class HostileClients {
  readonly #path: string;
  readonly #random = seeded(7);
  readonly #sockets = new Set<Socket>();
  readonly #timers = new Set<NodeJS.Timeout>();
  /** How often each was connected, by what it does. */
  readonly connected = new Map<string, number>();
  #stopped = false;

  /** @param count of clients, of each kind as many @param only those of these kinds */
  constructor(path: string, count: number, only = Object.keys(BEHAVIOURS)) {
    this.#path = path;
    const kinds = Object.entries(BEHAVIOURS).filter(([name]) => only.includes(name));
    for (let i = 0; i < count; i++) {
      const [name, behave] = kinds[i % kinds.length] ?? ['', () => undefined];
      this.#connect(name, behave);
    }
  }

  /** Whoever is thrown out comes again. */
  #connect(name: string, behave: Behaviour): void {
    const socket = createConnection(this.#path);
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('connect', () => {
      this.connected.set(name, (this.connected.get(name) ?? 0) + 1);
      behave(socket, this.#random);
    });
    socket.on('close', () => {
      this.#sockets.delete(socket);
      if (this.#stopped) return;
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.#connect(name, behave);
      }, RECONNECT_AFTER);
      this.#timers.add(timer);
    });
  }

  /** How many connections were made. */
  get connections(): number {
    return [...this.connected.values()].reduce((sum, count) => sum + count, 0);
  }

  stop(): void {
    this.#stopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
    for (const socket of this.#sockets) socket.destroy();
  }
}
