/**
 * The name of the socket by which a running command is asked. It is an abstract one (unix(7)): nothing is left
 * behind when the process is killed, and it is found whatever environment either side was started in. Anybody can
 * see such a name and take one, so that each side looks who the other is.
 */

import { readFile } from 'node:fs/promises';
import { native } from '../native.js';

const PREFIX = 'tsnbdfuse/';

/** Of __SO_ACCEPTCON in /proc/net/unix: a socket that is listened to. */
const LISTENS = 0x10000;

/**
 * @param device of the mount, `major:minor`, which is another for each mount that there is
 * @returns a name that nobody else has: the number of a device is used again once its mount is gone
 */
export function newSocketName(device: string): string {
  return `${PREFIX}${device}/${process.pid}-${process.hrtime.bigint()}`;
}

export interface FoundSocket {
  readonly name: string;
  /** Of the mount, `major:minor`. */
  readonly device: string;
}

/** @param table of /proc/net/unix */
export function parseSocketNames(table: string): FoundSocket[] {
  const found: FoundSocket[] = [];
  for (const line of table.split('\n')) {
    // Num RefCount Protocol Flags Type St Inode Path
    const match = /^\S+ \S+ \S+ ([0-9A-F]{8}) \S+ \S+ +\d+ @(tsnbdfuse\/(\d+:\d+)\/\d+-\d+)$/.exec(
      line,
    );
    const [, flags = '', name, device] = match ?? [];
    if (name === undefined || device === undefined) continue;
    if ((Number.parseInt(flags, 16) & LISTENS) !== 0) found.push({ name, device });
  }
  return found;
}

/** The sockets of all commands that run, of whomever. */
export async function listSockets(): Promise<FoundSocket[]> {
  return parseSocketNames(await readFile('/proc/net/unix', 'latin1'));
}

export interface Peer {
  readonly pid: number;
  readonly uid: number;
}

/** Who is at the other end of a connection, as the kernel has it; undefined where it does not tell. */
export function peerOf(fd: number): Peer | undefined {
  const out = new Int32Array(2);
  if (native.peerCredentials(fd, out) < 0) return undefined;
  const [pid = -1, uid = -1] = out;
  return { pid, uid };
}
