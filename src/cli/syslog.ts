/** The system's log: the journal of systemd, or whichever syslogd listens at its place. */

import { native } from '../native.js';

const PLACE = '/dev/log';
/** Facility "daemon", severity "notice", as <syslog.h> numbers them. */
const PRIORITY = 3 * 8 + 5;
/** Bytes of a line; a log takes no more in one message. */
const LONGEST = 2048;
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `Nov  5 06:07:08`, as RFC 3164 has it, in local time. */
function timestamp(now: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join(':');
  return `${MONTHS[now.getMonth()] ?? ''} ${String(now.getDate()).padStart(2)} ${time}`;
}

export class Syslog {
  readonly #path: string;
  readonly #name: string;
  readonly #socket: number;
  /** The beginning of a line. */
  #rest = '';

  /** @param name of the program */
  constructor(name: string, path = PLACE) {
    this.#name = name;
    this.#path = path;
    this.#socket = native.unixDatagram();
  }

  /** Each line is a message. What cannot be sent, as there is no log or it is busy, is dropped: nothing may wait for it. */
  write(bytes: Buffer): void {
    const lines = (this.#rest + bytes.toString()).split('\n');
    this.#rest = (lines.pop() ?? '').slice(0, LONGEST);
    for (const line of lines) this.#send(line);
  }

  #send(line: string): void {
    if (line === '') return;
    const own = `${this.#name}: `;
    const text = line.startsWith(own) ? line.slice(own.length) : line;
    const head = `<${PRIORITY}>${timestamp(new Date())} ${this.#name}[${process.pid}]: `;
    const message = Buffer.from(head + text).subarray(0, LONGEST);
    native.sendTo(this.#socket, this.#path, message, 0, message.length);
  }

  close(): void {
    if (this.#socket >= 0) native.close(this.#socket);
  }
}
