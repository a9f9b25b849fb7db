/** Connecting to an NBD server, and asking it what it has. */

import { TransmissionFlag } from '../nbd/constants.js';
import { parseNbdUri } from '../nbd/uri.js';
import type { Target } from '../nbd/export.js';
import type { BlockLimits } from '../disk/disk.js';
import { NbdClient } from './client.js';
import { milliseconds } from './numbers.js';

/** How a server is reached. */
export interface ReachOptions {
  /** Milliseconds in which the connection has to be made and the handshake done; 10,000 if left out. */
  readonly connectTimeout?: number | undefined;
  /** Ends the attempt, and leaves nothing of it behind. It has no effect on what has come about. */
  readonly signal?: AbortSignal | undefined;
  /** Told in one line what is dangerous about the TLS keys in use. */
  readonly onWarning?: ((line: string) => void) | undefined;
}

/** What `connect` takes beside the URI. */
export interface ConnectOptions extends ReachOptions {
  /** How many connections at the most, where the server allows several (multi-conn); 1 if left out. */
  readonly connections?: number | undefined;
  /**
   * Milliseconds for each request, after which the server counts as lost; a request that moves much data has
   * more of them. 30,000 if left out, and 0 for no limit.
   */
  readonly timeout?: number | undefined;
  /**
   * Milliseconds for which a server that is lost is connected to again, while requests wait; what it had not
   * flushed is written to it again. If left out, or 0, all requests fail once it is lost.
   */
  readonly reconnect?: number | undefined;
  /** Told of each loss and return of the server, in one line. */
  readonly onReconnect?: ((line: string) => void) | undefined;
  /**
   * Meta contexts for `blockStatus`, beside base:allocation, which is always asked for: as
   * `qemu:dirty-bitmap:NAME`. Those that the server has are in `NbdClient.contexts`.
   */
  readonly contexts?: readonly string[] | undefined;
}

/** An export, as `listExports` tells of it. */
export interface ExportEntry {
  /** Its name; empty for the default export. */
  readonly name: string;
  /** What the server says of it; nothing that a terminal would obey is in it. */
  readonly description: string | undefined;
  /** Undefined where details were not asked for, or the server does not give them for this one. */
  readonly details: ExportDetails | undefined;
}

/** What an export is. */
export interface ExportDetails {
  /** In bytes. */
  readonly size: bigint;
  /** It cannot be written. */
  readonly readOnly: boolean;
  /** Sizes that requests have to keep to. */
  readonly blockSizes: BlockLimits;
}

/** What `listExports` takes beside the URI. */
export interface ListOptions extends ReachOptions {
  /** Asks for the size of each export as well, for which a server may have to open each. */
  readonly details?: boolean | undefined;
}

const CONNECT_TIMEOUT = 10_000;
const TIMEOUT = 30_000;
const UNFLUSHED_LIMIT = 64 * 1024 * 1024;
const MOST_CONNECTIONS = 16;

/**
 * Connects to an export of an NBD server.
 *
 * The client holds the process, so that it has to be closed: `await using client = await connect(uri)` does so at
 * the end of the block, whatever happens in it. Closing does not flush.
 *
 * ```ts
 * await using client = await connect('nbd://server.example/export');
 * const bootSector = await client.pread(512, 0);
 * ```
 *
 * @param uri as the command has it: `nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`, `nbd+vsock:`,
 *   `nbd+ssh:`, and with TLS `nbds:` and so on
 * @throws UriError; HandshakeError, where nothing came about; RangeError for an option; the signal's reason
 */
export async function connect(uri: string | URL, options: ConnectOptions = {}): Promise<NbdClient> {
  const { signal, onWarning, contexts, connections = 1, reconnect = 0 } = options;
  const timeout = milliseconds(options.timeout ?? TIMEOUT, 'the timeout');
  const patience = milliseconds(reconnect, 'the time for a reconnection');
  if (!Number.isInteger(connections) || connections < 1 || connections > MOST_CONNECTIONS) {
    throw new RangeError(`the connections are a number from 1 to ${MOST_CONNECTIONS}`);
  }
  signal?.throwIfAborted();
  const target = parseNbdUri(String(uri));
  const { connectDisk } = await import('../nbd/nbd-disk.js');
  // What is attempted later, to add a connection or to come back, is no more the caller's attempt.
  const attempt = new AbortController();
  const aborted = (): void => attempt.abort(signal?.reason);
  signal?.addEventListener('abort', aborted);
  try {
    signal?.throwIfAborted();
    const disk = await connectDisk(target, {
      deadline: deadlineOf(options),
      // Each would be a login of its own, and may ask for a password.
      connections: target.address.kind === 'ssh' ? 1 : connections,
      signal: attempt.signal,
      warn: onWarning,
      timeout: timeout === 0 ? undefined : timeout,
      contexts,
      recovery:
        patience === 0
          ? undefined
          : {
              patience,
              forever: false,
              unflushedLimit: UNFLUSHED_LIMIT,
              report: (line) => options.onReconnect?.(line),
            },
    });
    if (signal?.aborted === true) await disk.close();
    signal?.throwIfAborted();
    return new NbdClient(disk, String(uri));
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', aborted);
  }
}

/**
 * Asks a server for its exports, over a connection of its own. What the URI names is of no matter, but for the
 * way to the server.
 *
 * @throws UriError; HandshakeError where the server is not there, or does not tell; the signal's reason
 */
export async function listExports(
  uri: string | URL,
  options: ListOptions = {},
): Promise<ExportEntry[]> {
  const { signal, onWarning, details = false } = options;
  signal?.throwIfAborted();
  const target: Target = { ...parseNbdUri(String(uri)), exportName: '' };
  const list = await import('../nbd/list-exports.js');
  signal?.throwIfAborted();
  try {
    const reach = { deadline: deadlineOf(options), signal, warn: onWarning };
    const exports = await list.listExports(target, reach, details);
    return exports.map(({ name, description, info }) => ({
      name,
      description,
      details: info && {
        size: info.size,
        readOnly: (info.flags & TransmissionFlag.READ_ONLY) !== 0,
        blockSizes: info.limits,
      },
    }));
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/** @throws RangeError */
function deadlineOf({ connectTimeout = CONNECT_TIMEOUT }: ReachOptions): number {
  return milliseconds(connectTimeout, 'the time to connect');
}
