/** What is made ready before a mount, its server, and the exit status after it. */

import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { checkMountpoint, partitionsNeedDirectory } from '../fuse/mountpoint.js';
import type { Mountpoint } from '../fuse/mountpoint.js';
import type { NbdDisk } from '../nbd/nbd-disk.js';
import type { MountCommand } from './command-line.js';
import { CommandError } from './errors.js';
import { checkFuse } from '../fuse/available.js';
import { traceMain } from '../trace.js';
import { deadMountsCleared } from '../fuse/dead-mount.js';
import { ExitStatus } from './exit-status.js';
import { say } from './messages.js';
import { Observation } from './observation.js';
import { checkInherited, loadOrigin, openOrigin } from './open-origin.js';
import type { Origin, Urgency } from './origin.js';
import { Pidfile } from './pidfile.js';
import type { Interruptions } from './signals.js';
import type { SummarySignal } from './summary-signal.js';
import type { Supervisors } from './supervisors.js';
import { Session } from './session.js';
import type { Place } from './session.js';

/**
 * Serves the disk until it is unmounted.
 *
 * @returns the exit status
 * @throws CommandError, MountError, UriError, HandshakeError: nothing was mounted; Interrupted
 */
export async function serve(
  command: MountCommand,
  interruptions: Interruptions,
  summaries: SummarySignal,
  supervisors: Supervisors,
): Promise<number> {
  checkInherited(command.source);
  // All of it looks at paths of the user, which may be in a file system that hangs.
  const { mountpoint, pidfile } = await interruptions.orEarlier(checkPlaces(command));
  const observation = await interruptions.orEarlier(
    Observation.prepare(command, mountpoint, summaries),
    (late) => late.close(),
  );
  try {
    return await serveOrigin(
      command,
      { mountpoint, pidfile, observation, supervisors },
      interruptions,
    );
  } finally {
    await observation.close();
  }
}

/**
 * In the order of their cost; the server is not started before all that can fail without it is known. Holds nothing
 * that would have to be freed.
 */
async function checkPlaces(command: MountCommand): Promise<Pick<Place, 'mountpoint' | 'pidfile'>> {
  traceMain('looking at the mountpoint %s', command.mountpoint);
  const checking = checkMountpoint(command.mountpoint, deadMountsCleared(say));
  loadOrigin(command.source);
  const mountpoint = await checking;
  if (command.partitions && mountpoint.name === undefined) {
    throw new CommandError(partitionsNeedDirectory(mountpoint), { failure: 'mountpoint' });
  }
  await checkFuse();
  const pidfile =
    command.pidfile === undefined ? undefined : await Pidfile.prepare(command.pidfile);
  if (pidfile?.isBelow(mountpoint.path) === true) {
    throw new CommandError(
      `cannot write the pidfile ${command.pidfile ?? ''}: ${mountpoint.shown} is mounted on, and would hide it`,
    );
  }
  const { log } = command;
  if (log !== undefined && isHidden(await realpath(log), mountpoint)) {
    throw new CommandError(
      `cannot write the log ${log}: ${mountpoint.shown} is mounted on, and would hide it`,
    );
  }
  return { mountpoint, pidfile };
}

const isHidden = (path: string, { path: mountedOn }: Mountpoint): boolean =>
  path === mountedOn || path.startsWith(join(mountedOn, '/'));

async function serveOrigin(
  command: MountCommand,
  place: Place,
  interruptions: Interruptions,
): Promise<number> {
  const { mountpoint } = place;
  const origin = await openOrigin(command, interruptions);
  let session: Session | undefined;
  try {
    const disk = await connect(origin, interruptions);
    if (mountpoint.hides) {
      // The server may serve what is about to be hidden, an image of that name: what it opens from now
      // on would be the mount itself.
      if (mayOpen(origin, mountpoint.path)) disk.joinNoMore();
      if (mountpoint.name !== undefined) warnHidden(mountpoint);
    }
    session = new Session(command, place, origin, disk);
    const status = await session.run(interruptions);
    const serverStatus = await closeOrigin(origin, session.urgency);
    return status === ExitStatus.SAFE ? serverStatus : status;
  } catch (error) {
    // What went wrong first is what the user is to hear.
    await origin.close(session?.urgency ?? 'in its time');
    throw error;
  } finally {
    session?.close();
  }
}

/** Whether a server may open something at a path, or below it. */
function mayOpen({ files }: Origin, path: string): boolean {
  return files?.some((file) => file === path || file.startsWith(`${path}/`)) ?? true;
}

function warnHidden({ shown, shownFile }: Mountpoint): void {
  say(
    `${shown} is not empty: what is in it is hidden until the unmount; an existing file, or an empty directory, hides nothing (${shownFile})`,
  );
}

/** @returns the exit status as far as the end of the server goes */
async function closeOrigin(origin: Origin, urgency: Urgency): Promise<ExitStatus> {
  const problem = await origin.close(urgency);
  if (problem === undefined) return ExitStatus.SAFE;
  say(problem);
  return ExitStatus.LOST;
}

async function connect(origin: Origin, interruptions: Interruptions): Promise<NbdDisk> {
  const connecting = origin.connect();
  // Loaded while the server starts.
  import('../fuse/mount.js').catch(() => undefined);
  if (process.geteuid?.() !== 0) import('../fuse/fusermount.js').catch(() => undefined);
  return interruptions.orEarlier(connecting, (disk) => disk.close());
}
