/**
 * Whoever has started us and wants to know how the mount is: the caller of `--daemon`, the reader of `--ready-fd`, a
 * service manager. None, one or all of them.
 */

import { isAbsolute } from 'node:path';
import type { MountCommand } from './command-line.js';
import type { Daemon } from './daemon.js';
import { Interrupted } from './errors.js';
import type { Source } from './modes.js';
import type { ReadyFd } from './ready-fd.js';
import type { ServiceEnvironment } from './service-environment.js';
import type { ServiceManager } from './service-manager.js';
import type { Interruptions } from './signals.js';

interface Parts {
  readonly daemon?: Daemon | undefined;
  readonly readyFd?: ReadyFd | undefined;
  readonly manager?: ServiceManager | undefined;
}

/**
 * Whether names that the user gave are used again while the disk is mounted: those of a captive server that is
 * started once more, or of a socket.
 */
function needsDirectory({ source, restartServer }: MountCommand): boolean {
  // The server of an image is one that is started again.
  if (source.kind === 'image' && !isAbsolute(source.path)) return true;
  return restartServer || hasRelativeSocket(source);
}

function hasRelativeSocket(source: Source): boolean {
  if (source.kind === 'uri') return /[?&]socket=(?!\/|%2f|%00)/i.test(source.uri);
  if (source.kind !== 'address' || source.address.kind !== 'unix') return false;
  return !/^[/\0]/.test(source.address.path);
}

export class Supervisors {
  readonly #parts: Parts;
  readonly #interruptions: Interruptions;
  readonly #keepDirectory: boolean;
  #stopping: Promise<unknown> | undefined;

  private constructor(parts: Parts, interruptions: Interruptions, keepDirectory: boolean) {
    this.#parts = parts;
    this.#interruptions = interruptions;
    this.#keepDirectory = keepDirectory;
  }

  /**
   * Checks what can be checked of them before anything is started.
   * @throws CommandError
   */
  static async open(
    command: MountCommand,
    interruptions: Interruptions,
    daemon: Daemon | undefined,
    service: ServiceEnvironment | undefined,
  ): Promise<Supervisors> {
    // Each is loaded where there is one.
    const readyFd =
      command.readyFd === undefined
        ? undefined
        : (await import('./ready-fd.js')).ReadyFd.take(command.readyFd);
    daemon?.watchLauncher();
    if (command.log !== undefined) daemon?.openLog(command.log);
    const manager =
      service === undefined
        ? undefined
        : (await import('./service-manager.js')).ServiceManager.open(service, daemon !== undefined);
    return new Supervisors({ daemon, readyFd, manager }, interruptions, needsDirectory(command));
  }

  /**
   * The disk is mounted.
   * @param status a sentence that says so
   * @throws Interrupted where it is not wanted any more, and was told to nobody
   */
  async ready(status: string): Promise<void> {
    const { daemon, readyFd, manager } = this.#parts;
    this.#checkWanted();
    // Before the caller goes on: a service manager takes its end for ours until it knows of us.
    await manager?.ready(status);
    // One that is busy was waited for.
    this.#checkWanted();
    readyFd?.ready();
    daemon?.ready(this.#keepDirectory);
  }

  /** Who is told that it is there must find it there. @throws Interrupted */
  #checkWanted(): void {
    const { daemon, readyFd } = this.#parts;
    const signal = this.#interruptions.pendingSignal;
    if (signal !== undefined && (daemon ?? readyFd) !== undefined) throw new Interrupted(signal);
  }

  /** Something has changed. @param text a sentence for whoever looks */
  status(text: string): void {
    this.#parts.manager?.status(text);
  }

  /**
   * The end has begun. Told once; whoever calls it later waits until that was told.
   * @param status a sentence that says so
   * @param most milliseconds that it may take, where that is known
   */
  stopping(status: string, most: number | undefined): Promise<unknown> {
    this.#stopping ??= this.#parts.manager?.stopping(status, most);
    return this.#stopping ?? Promise.resolve();
  }

  close(): void {
    this.#parts.readyFd?.close();
    this.#parts.manager?.close();
  }
}
