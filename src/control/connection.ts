/** The side of who asks: a connection to the process of a mount. */

import { Socket } from 'node:net';
import { errno } from '../errno.js';
import { native } from '../native.js';
import { traceMain } from '../trace.js';
import { LONGEST_ANSWER, LineSplitter, encodeQuestion } from './messages.js';
import type { Question } from './messages.js';
import { peerOf } from './socket-name.js';

export class Connection {
  /** Of the process. */
  readonly pid: number;
  readonly closed: Promise<void>;
  /** Called with each line that comes. */
  heard: (line: string) => void = () => undefined;
  readonly #socket: Socket;
  readonly #lines = new LineSplitter(LONGEST_ANSWER);

  private constructor(fd: number, pid: number) {
    this.pid = pid;
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.setEncoding('utf8');
    this.#socket.on('data', (chunk: string) => this.#received(chunk));
    // It ends as well then.
    this.#socket.on('error', (error) => traceMain('control socket: %s', error));
    this.closed = new Promise((resolve) => {
      this.#socket.once('close', () => resolve());
    });
  }

  /**
   * @param owner of the process; nobody else but root is believed
   * @returns a negated errno where there is none: -EACCES for somebody else's, -ECONNREFUSED for nobody's
   */
  static open(name: string, owner: number): Connection | number {
    const fd = native.unixConnect(`\0${name}`);
    if (fd < 0) return fd;
    const peer = peerOf(fd);
    const isBelieved = peer?.uid === owner || peer?.uid === 0;
    if (peer === undefined || peer.pid <= 0 || !isBelieved) {
      native.close(fd);
      return -errno.EACCES;
    }
    return new Connection(fd, peer.pid);
  }

  #received(chunk: string): void {
    const lines = this.#lines.push(chunk);
    if (lines === undefined) {
      traceMain('process %d answers without end', this.pid);
      this.close();
      return;
    }
    for (const line of lines) this.heard(line);
  }

  ask(question: Question): void {
    this.#socket.write(encodeQuestion(question));
  }

  close(): void {
    this.#socket.destroy();
  }
}
