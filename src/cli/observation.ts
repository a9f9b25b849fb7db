/** How a mount can be watched while it runs: its status, summaries, the live line, metrics. */

import { resolve } from 'node:path';
import type { Mount } from '../fuse/mount.js';
import type { Mountpoint } from '../fuse/mountpoint.js';
import type { NbdDisk } from '../nbd/nbd-disk.js';
import { publicUri } from '../nbd/public-uri.js';
import { operationsStatus } from '../observe/mount-status.js';
import type { MountStatus, State } from '../observe/mount-status.js';
import type { MountCommand } from './command-line.js';
import type { LiveLine } from './live-line.js';
import { sayLines } from './messages.js';
import type { MetricsServer } from './metrics-server.js';
import type { Origin } from './origin.js';
import type { SummarySignal } from './summary-signal.js';

/** What is watched. */
export interface Observed {
  readonly mount: Mount;
  readonly disk: NbdDisk;
  readonly origin: Origin;
}

export class Observation {
  readonly #command: MountCommand;
  readonly #mountpoint: Mountpoint;
  readonly #signal: SummarySignal;
  readonly #metrics: MetricsServer | undefined;
  #live: LiveLine | undefined;
  #status: (() => MountStatus) | undefined;

  private constructor(
    command: MountCommand,
    mountpoint: Mountpoint,
    signal: SummarySignal,
    metrics: MetricsServer | undefined,
  ) {
    this.#command = command;
    this.#mountpoint = mountpoint;
    this.#signal = signal;
    this.#metrics = metrics;
  }

  /**
   * Takes the address of the metrics, before anything is started that would have to be ended again.
   * @throws CommandError where metrics cannot be served as they were asked for
   */
  static async prepare(
    command: MountCommand,
    mountpoint: Mountpoint,
    signal: SummarySignal,
  ): Promise<Observation> {
    const { metrics } = command;
    if (metrics === undefined) return new Observation(command, mountpoint, signal, undefined);
    const { MetricsServer } = await import('./metrics-server.js');
    const server = await MetricsServer.listen(metrics, mountpoint.path);
    return new Observation(command, mountpoint, signal, server);
  }

  /** The disk is mounted. @returns how it is, whenever it is called */
  begin(observed: Observed): () => MountStatus {
    const since = new Date().toISOString();
    const status = (): MountStatus => this.#statusOf(observed, since);
    this.#status = status;
    const { operations } = observed.mount;
    this.#metrics?.serve({ status, operations });
    this.#signal.show = () => void this.#summarize(status);
    return status;
  }

  /** From now on there is a line on the terminal. */
  async show(): Promise<void> {
    const status = this.#status;
    if (status === undefined) return;
    // Each request is a line with -v, between which nothing can stand.
    if (!this.#command.stats || this.#command.verbose) return;
    const { LiveLine } = await import('./live-line.js');
    this.#live = LiveLine.start(this.#mountpoint.shownFile, status);
  }

  #statusOf({ mount, disk, origin }: Observed, since: string): MountStatus {
    const { trouble } = disk;
    const server = origin.exclusive ? origin.mountSource : publicUri(origin.mountSource);
    return {
      mountpoint: this.#mountpoint.path,
      pid: process.pid,
      state: stateOf(mount, disk),
      server,
      file: fileOf(this.#mountpoint),
      problem: trouble === undefined ? null : `${server}: ${trouble}`,
      captive: origin.exclusive,
      since,
      size: mount.size.toString(),
      readOnly: mount.readOnly,
      cache: this.#command.cache,
      connections: disk.connections,
      reconnects: disk.reconnects,
      inFlight: mount.inFlight[0] ?? 0,
      unflushedBytes: disk.unflushedBytes,
      operations: operationsStatus(mount.operations),
    };
  }

  async #summarize(status: () => MountStatus, isOver = false): Promise<void> {
    const { summaryLines } = await import('../observe/summary.js');
    sayLines(summaryLines(status(), this.#mountpoint.shownFile, Date.now(), isOver));
  }

  /** Frees all of it; with --stats, a summary comes first. Never rejects. */
  async close(): Promise<void> {
    this.#live?.close();
    this.#metrics?.close();
    // Its end was told of, or will be.
    this.#signal.show = () => undefined;
    if (this.#command.stats && this.#status !== undefined)
      await this.#summarize(this.#status, true);
  }
}

function stateOf(mount: Mount, disk: NbdDisk): State {
  if (disk.isDown) return 'reconnecting';
  if (disk.trouble !== undefined) return 'failed';
  return mount.isEnding || mount.isHidden ? 'ending' : 'healthy';
}

/** Where the disk is in a directory, it is a file in that. */
function fileOf({ path, name }: Mountpoint): string {
  return name === undefined ? path : resolve(path, name);
}
