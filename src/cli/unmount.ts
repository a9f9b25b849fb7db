/** `tsnbdfuse --unmount`: ends a mount, and returns when its process has, with the exit status of that. */

import { constants } from 'node:os';
import { MountProcess } from '../control/mount-process.js';
import { listSockets } from '../control/socket-name.js';
import { errno, errnoText } from '../errno.js';
import { detach } from '../fuse/attach.js';
import { isDead } from '../fuse/dead-mount.js';
import { lookAside } from '../fuse/look-aside.js';
import { ownerOf, unmountCommand, userText } from '../fuse/mountpoint.js';
import type { MountEntry } from '../fuse/mountpoint.js';
import { CommandError, InternalError } from './errors.js';
import { ExitStatus } from './exit-status.js';
import { findOwnMount, isStillThere } from './find-mount.js';
import type { FoundMount } from './find-mount.js';
import { say } from './messages.js';
import type { Interruptions } from './signals.js';
import type { UnmountCommand } from './unmount-command.js';
import { Unmounting } from './unmounting.js';

/**
 * @returns the exit status
 * @throws CommandError
 */
export async function unmount(
  command: UnmountCommand,
  interruptions: Interruptions,
): Promise<number> {
  const stop = new AbortController();
  const state: State = { mount: undefined };
  const work = run(command, state, stop.signal);
  const event = await Promise.race([work, interruptions.next]);
  if (typeof event === 'number') return event;
  // What was asked for is not taken back.
  interruptions.take();
  work.catch(() => undefined);
  stop.abort();
  if (event.kind === 'crash') throw new InternalError(event.error);
  const { mountpoint } = command;
  const { mount } = state;
  say(
    mount !== undefined && (await isStillThere(mount))
      ? `stopped by ${event.signal}: ${mountpoint} is still mounted`
      : `stopped by ${event.signal}: the process of ${mountpoint} may still write what is left; wait for it with: ${unmountCommand(mountpoint, 'tsnbdfuse -u')}`,
  );
  return 128 + constants.signals[event.signal];
}

/** What a signal that comes in between has to tell of. */
interface State {
  mount: MountEntry | undefined;
}

async function run(command: UnmountCommand, state: State, signal: AbortSignal): Promise<number> {
  const found = await findOwnMount(command.mountpoint, await listSockets());
  // It may be our own current directory that keeps it busy.
  process.chdir('/');
  if (found.mount === undefined) {
    return waitForEnding(command, found.path, signal);
  }
  const { mount, obstacle } = found;
  state.mount = mount;
  const owner = ownerOf(mount).uid;
  checkOwner(command, owner);
  await checkFile(command, found);
  const serving = await MountProcess.ofDevice(mount.device, owner);
  if (serving === undefined) return unserved(command, found);
  const unmounting = new Unmounting(command, serving, signal);
  return unmounting.run({ mount, obstacle });
}

/** It was unmounted before: by another command, or by a program that does not wait. */
async function waitForEnding(
  command: UnmountCommand,
  path: string,
  signal: AbortSignal,
): Promise<number> {
  const serving = await MountProcess.ending(
    ({ mountpoint, isDirectory }) =>
      path === mountpoint || (isDirectory && path.startsWith(`${mountpoint}/`)),
  );
  if (serving === undefined) {
    throw new CommandError(`${command.mountpoint} is not mounted`, { failure: 'mountpoint' });
  }
  return new Unmounting(command, serving, signal).waitForEnd();
}

function checkOwner({ mountpoint }: UnmountCommand, owner: number): void {
  const us = process.geteuid?.() ?? 0;
  if (us === 0 || us === owner) return;
  throw new CommandError(
    `${mountpoint} is the mount of ${userText(owner)}, who alone can end it, or root`,
    { failure: 'mountpoint' },
  );
}

/** A slip in the name of a file in a directory is not to end the mount of that. */
async function checkFile({ mountpoint }: UnmountCommand, found: FoundMount): Promise<void> {
  const { path, mount } = found;
  if (path === mount.mountpoint) return;
  const said = await lookAside(['--', path]);
  if (said?.trimEnd().endsWith('No such file or directory') !== true) return;
  throw new CommandError(
    `there is no ${mountpoint}; the mount of its directory is ended with: ${unmountCommand(mount.mountpoint, 'tsnbdfuse -u')}`,
    { failure: 'mountpoint' },
  );
}

/** A mount whose process has not answered: it was killed, or it is out of our reach. */
async function unserved({ mountpoint }: UnmountCommand, found: FoundMount): Promise<number> {
  const { mount, obstacle } = found;
  const at = mount.mountpoint;
  if (obstacle !== undefined || !(await isDead(mount))) {
    throw new CommandError(
      `the process that serves ${mountpoint} cannot be found (it may be in a container, or a program of its own), so that its end cannot be waited for; unmount it with: ${unmountCommand(at)}`,
      { failure: 'mountpoint' },
    );
  }
  const result = (await isStillThere(mount)) ? await detach(at, true) : 0;
  if (result < 0 && result !== -errno.EINVAL) {
    throw new CommandError(
      `${mountpoint} is dead, as its process was killed, and cannot be taken away: ${errnoText(-result)}`,
      { failure: 'mountpoint' },
    );
  }
  say(
    `${mountpoint} was dead, as its process was killed, and was taken away; what was written last may be lost`,
  );
  return ExitStatus.LOST;
}
