/** From what the command line says to where the disk comes from; starts the server, where there is one to start. */

import { existsSync, fstatSync } from 'node:fs';
import { checkResult } from '../errno.js';
import { native } from '../native.js';
import type { CaptiveProcess } from './captive-process.js';
import type { MountCommand } from './command-line.js';
import { CommandError } from './errors.js';
import { say } from './messages.js';
import type { Source } from './modes.js';
import type { Connecting, Origin } from './origin.js';
import type { Interruptions } from './signals.js';
import { openFilesAllowed } from './surroundings.js';

/**
 * Each kind loads what it needs of the rest only: the start of the command takes time. This loads it
 * ahead, for the most usual kind, while something else is waited for.
 */
export function loadOrigin({ kind }: Source): void {
  if (kind !== 'captive' && kind !== 'image') return;
  const image = kind === 'image' ? [import('./image-origin.js')] : [];
  for (const loading of [import('./origin.js'), import('./captive-server.js'), ...image]) {
    // Told to whoever needs it.
    loading.catch(() => undefined);
  }
}

/**
 * @throws CommandError; UriError; Interrupted
 */
export async function openOrigin(
  command: MountCommand,
  interruptions: Interruptions,
): Promise<Origin> {
  const { source } = command;
  const options: Connecting = {
    deadline: command.connectTimeout,
    connections: connectionsAllowed(command.connections),
    patience: command.patience,
  };
  const { CaptiveOrigin, ServerOrigin } = await import('./origin.js');
  switch (source.kind) {
    case 'uri': {
      const { parseNbdUri } = await import('../nbd/uri.js');
      const target = orImage(source.uri, () => parseNbdUri(source.uri));
      return new ServerOrigin(source.uri, target, options);
    }
    case 'address': {
      const { addressText } = await import('../nbd/export.js');
      const { address } = source;
      return new ServerOrigin(addressText(address), { address, exportName: '' }, options);
    }
    case 'fd': {
      const { fd } = source;
      checkResult(native.setNonblocking(fd, true), `file descriptor ${fd}`);
      const name = `file descriptor ${fd}`;
      const target = { address: { kind: 'socket', fd, name }, exportName: '' } as const;
      return new ServerOrigin(name, target, { ...options, connections: 1 });
    }
    case 'image': {
      const { imageOrigin } = await import('./image-origin.js');
      return imageOrigin(source, options, command, interruptions);
    }
    case 'captive': {
      const { CaptiveServer } = await import('./captive-server.js');
      const showOutput = command.verbose;
      const start = (): Promise<CaptiveProcess> =>
        CaptiveServer.start(source.command, { showOutput });
      return new CaptiveOrigin(await start(), options, start);
    }
    case 'command': {
      const { CommandServer } = await import('./captive-command.js');
      const start = (): Promise<CaptiveProcess> =>
        CommandServer.start(source.command, { showOutput: false });
      return new CaptiveOrigin(await start(), options, start);
    }
  }
}

/** What parses a URI. Where that fails, and there is a file of that name, its message tells how to mean the file. */
function orImage<T>(uri: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof Error && existsSync(uri)) {
      error.message += `; for the file of that name write ./${uri}`;
    }
    throw error;
  }
}

/**
 * Descriptors that are kept for all else: the mount, programs that are started, files that are looked at,
 * and the dozen that Node has.
 */
const RESERVED_DESCRIPTORS = 48;

/** As many connections as are wanted, unless nothing else could be opened any more. */
function connectionsAllowed(wanted: number): number {
  const allowed = openFilesAllowed();
  const most = Math.max(1, allowed - RESERVED_DESCRIPTORS);
  if (wanted <= most) return wanted;
  say(
    `at the most ${most} of ${wanted} connections are made, as only ${allowed} open files are allowed; allow more with: ulimit -n ${wanted + RESERVED_DESCRIPTORS}`,
  );
  return most;
}

/** Standard error, which our messages go to. */
const STDERR = 2;

/**
 * Checks a socket that we inherited, before any descriptor of ours can have its number, and keeps it
 * from the programs that we start.
 * @throws CommandError
 */
export function checkInherited(source: Source): void {
  if (source.kind !== 'fd') return;
  const { fd } = source;
  const why = problemOf(fd);
  if (why === undefined) {
    checkResult(native.setCloseOnExec(fd, true), `file descriptor ${fd}`);
    return;
  }
  throw new CommandError(`--fd ${fd}: ${why}; it has to be a connected socket that we inherit`, {
    failure: 'unreachable',
  });
}

function problemOf(fd: number): string | undefined {
  if (fd === STDERR) return 'it is standard error';
  try {
    return fstatSync(fd).isSocket() ? undefined : 'it is not a socket';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EBADF'
      ? 'it is not open'
      : `it cannot be looked at (${String((error as NodeJS.ErrnoException).code)})`;
  }
}
