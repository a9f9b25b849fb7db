/** Who is measured, and the command line of each front end. */

import { join } from 'node:path';
import type { Server } from './servers.js';

export type FrontEnd = 'tsnbdfuse' | 'nbdfuse' | 'qemu-storage-daemon';
export type ServerProgram = 'tsnbdkit' | 'nbdkit';
/** fio's own NBD client, with no FUSE in between, is the limit. */
export type Contender = FrontEnd | ServerProgram | 'nbd engine';

export const FRONT_ENDS: readonly FrontEnd[] = ['tsnbdfuse', 'nbdfuse', 'qemu-storage-daemon'];

export function isFrontEnd(contender: Contender): contender is FrontEnd {
  return (FRONT_ENDS as readonly Contender[]).includes(contender);
}

/** Where the disk of a mount comes from. */
export type Origin =
  | { readonly server: Server; readonly connections?: number }
  | { readonly captive: readonly string[] };

interface MountPlace {
  /** The folder of tsnbdfuse. */
  readonly commands: string;
  /** The mountpoint, a regular file. */
  readonly file: string;
  readonly pidfile: string;
}

/** @throws Error when the front end cannot do it */
export function mountCommand(frontEnd: FrontEnd, place: MountPlace, origin: Origin): string[] {
  const { file, pidfile } = place;
  if (frontEnd === 'qemu-storage-daemon') {
    if ('captive' in origin) throw new Error('qemu-storage-daemon has no captive servers');
    return [
      'qemu-storage-daemon',
      ...['--blockdev', `nbd,node-name=disk,server.type=unix,server.path=${origin.server.socket}`],
      ...['--export', `fuse,id=export,node-name=disk,mountpoint=${file},writable=on`],
      ...['--pidfile', pidfile],
    ];
  }
  const program = frontEnd === 'tsnbdfuse' ? join(place.commands, 'tsnbdfuse') : 'nbdfuse';
  const begin = [program, '-P', pidfile];
  if ('captive' in origin) return [...begin, file, '[', ...origin.captive, ']'];
  if (origin.connections !== undefined) begin.push('-C', String(origin.connections));
  return [...begin, file, origin.server.uri];
}
