/** What the exit status of tsnbdfuse says, for scripts: each number in one place, and which error has which. */

import { constants } from 'node:os';
import type { Interrupted } from './errors.js';

export const ExitStatus = {
  /** Unmounted, and all of it is safe. */
  SAFE: 0,
  /** Anything else, as a pidfile that cannot be written; a bug of ours. */
  FAILED: 1,
  /** A command line or a URI that cannot be understood. */
  USAGE: 2,
  /** The mountpoint, /dev/fuse or fusermount3 cannot be used. */
  MOUNTPOINT: 3,
  /** No server answers there, the captive server ended before it did, or the image is not there or in use. */
  SERVER: 4,
  /** The server does not give the export, or the image is not to be served so; or it has not the part asked for. */
  EXPORT: 5,
  /** Encryption: certificates, keys, or one side does not want what the other asks for. */
  TLS: 6,
  /** While mounted something was lost: the server, a write that it refused, or its own good end. */
  LOST: 7,
  /** It was ended by force, by signals or by the kernel's own means, and not all was saved. */
  FORCED: 8,
} as const;

export type ExitStatus = (typeof ExitStatus)[keyof typeof ExitStatus];

/** What a status of a mount that has ended means for what was written: the end of a sentence. */
export function meaningOf(status: number): string {
  switch (status) {
    case ExitStatus.SAFE:
      return 'all of it is safe';
    case ExitStatus.LOST:
      return 'the server was lost, or refused something; what was written last may be lost';
    case ExitStatus.FORCED:
      return 'it was ended by force; what was written last may be lost';
    default:
      return 'what was written last may be lost';
  }
}

/** What a CommandError, a HandshakeError or an ImageError says of itself (its property `failure`). */
const BY_FAILURE: ReadonlyMap<unknown, ExitStatus> = new Map<unknown, ExitStatus>([
  ['mountpoint', ExitStatus.MOUNTPOINT],
  ['unreachable', ExitStatus.SERVER],
  ['refused', ExitStatus.EXPORT],
  ['tls', ExitStatus.TLS],
]);

/**
 * The errors whose message is all that the user needs, with their status where that is not BY_FAILURE. By name:
 * not all of their files are loaded.
 */
const EXPECTED: ReadonlyMap<string, ExitStatus> = new Map<string, ExitStatus>([
  ['UriError', ExitStatus.USAGE],
  ['MountError', ExitStatus.MOUNTPOINT],
  ['ImageError', ExitStatus.EXPORT],
  ['PartError', ExitStatus.EXPORT],
  ['PartitionTableError', ExitStatus.EXPORT],
  ['WindowError', ExitStatus.EXPORT],
  ['HandshakeError', ExitStatus.SERVER],
  ['CommandError', ExitStatus.FAILED],
  ['AddonError', ExitStatus.FAILED],
  ['ErrnoError', ExitStatus.FAILED],
]);

/** @returns undefined for what is not expected: a bug */
export function statusOf(error: Error): ExitStatus | undefined {
  const status = EXPECTED.get(error.name);
  if (status === undefined) return undefined;
  return ('failure' in error ? BY_FAILURE.get(error.failure) : undefined) ?? status;
}

/** For a signal that came before the mount, as a shell has it. */
export function interruptedStatus({ signal }: Interrupted): number {
  return 128 + constants.signals[signal];
}
