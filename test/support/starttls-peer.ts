/** Servers that are not honest about TLS, and those that stand between a client and a server. */

import { createServer, connect } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import {
  IHAVEOPT,
  NBDMAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
} from '../../src/nbd/constants.js';
import { ByteWriter } from '../../src/bytes.js';

/** A TCP port of this machine, and what comes of each connection to it. */
export class Listener {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;

  private constructor(server: Server, sockets: Set<Socket>) {
    this.#server = server;
    this.#sockets = sockets;
    this.port = (server.address() as AddressInfo).port;
  }

  static async start(serve: (socket: Socket) => void): Promise<Listener> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
      serve(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Listener(server, sockets);
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** By TCP to a server that listens on a Unix socket. */
export const forward =
  (path: string) =>
  (client: Socket): void => {
    const server = connect(path);
    server.on('error', () => client.destroy()).on('close', () => client.destroy());
    client.on('close', () => server.destroy());
    client.pipe(server);
    server.pipe(client);
  };

const GREETING = new ByteWriter('big').u64(NBDMAGIC).u64(IHAVEOPT).u16(3).finish();

export const optionReply = (option: number, type: number): Buffer =>
  new ByteWriter('big').u64(OPTION_REPLY_MAGIC).u32(option).u32(type).u32(0).finish();

/**
 * A server that greets, and answers STARTTLS with these bytes.
 * @param then told of all that comes after it
 */
export const answerStartTls =
  (answer: Buffer, then: (data: Buffer, socket: Socket) => void) =>
  (client: Socket): void => {
    client.write(GREETING);
    let all = Buffer.alloc(0);
    let answered = false;
    client.on('data', (data) => {
      if (answered) {
        then(data, client);
        return;
      }
      all = Buffer.concat([all, data]);
      // The client's flags, and an option without data.
      if (all.length < 4 + 16) return;
      answered = true;
      if (all.readUInt32BE(4 + 8) === Option.STARTTLS) client.write(answer);
      else client.destroy();
      if (all.length > 4 + 16) then(all.subarray(4 + 16), client);
    });
  };

/** Stands between client and server, and says to the client that the server knows nothing of TLS. */
export const stripStartTls =
  (path: string, seen: (data: Buffer) => void) =>
  (client: Socket): void => {
    const server = connect(path);
    server.on('error', () => client.destroy()).on('close', () => client.destroy());
    client.on('close', () => server.destroy());
    server.pipe(client);
    let before = 0;
    client.on('data', (data) => {
      before += data.length;
      if (data.includes(new ByteWriter('big').u64(IHAVEOPT).u32(Option.STARTTLS).finish())) {
        server.write(data.subarray(0, data.length - 16));
        client.write(optionReply(Option.STARTTLS, OptionReply.ERR_UNSUP));
        before = 0;
        return;
      }
      if (before > 0) seen(data);
      server.write(data);
    });
  };
