/** Errors of the NBD protocol, and their translation to Linux errors and back, each in one table. */

import { errno } from '../errno.js';

/** Error values on the wire, which are the same on every system (doc/proto.md, "Error values"). */
export const NbdError = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

const FROM_WIRE: ReadonlyMap<number, number> = new Map([
  [NbdError.EPERM, errno.EPERM],
  [NbdError.EIO, errno.EIO],
  [NbdError.ENOMEM, errno.ENOMEM],
  [NbdError.EINVAL, errno.EINVAL],
  [NbdError.ENOSPC, errno.ENOSPC],
  [NbdError.EOVERFLOW, errno.EOVERFLOW],
  [NbdError.ENOTSUP, errno.EOPNOTSUPP],
  [NbdError.ESHUTDOWN, errno.ESHUTDOWN],
]);

/** The Linux errno for an error value on the wire; unknown ones count as EINVAL, as the protocol says. */
export function errnoFromWire(value: number): number {
  return FROM_WIRE.get(value) ?? errno.EINVAL;
}

const TO_WIRE: ReadonlyMap<number, number> = new Map([
  [errno.EPERM, NbdError.EPERM],
  [errno.EACCES, NbdError.EPERM],
  [errno.EROFS, NbdError.EPERM],
  [errno.EIO, NbdError.EIO],
  [errno.ENOMEM, NbdError.ENOMEM],
  [errno.EINVAL, NbdError.EINVAL],
  [errno.ENOSPC, NbdError.ENOSPC],
  [errno.EDQUOT, NbdError.ENOSPC],
  [errno.EFBIG, NbdError.ENOSPC],
  [errno.EOVERFLOW, NbdError.EOVERFLOW],
  [errno.EOPNOTSUPP, NbdError.ENOTSUP],
  [errno.ENOTSUP, NbdError.ENOTSUP],
  [errno.ESHUTDOWN, NbdError.ESHUTDOWN],
]);

/** The error value that a server sends for a Linux errno; EIO for what has none. */
export function wireFromErrno(code: number): number {
  return TO_WIRE.get(code) ?? NbdError.EIO;
}

/**
 * The other side broke the protocol: the connection cannot go on. The message says what it did, as
 * a sentence without a subject: "sent a reply to a request that was never made".
 */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
  readonly code = 'ERR_NBD_PROTOCOL';
}

/** Why there is no export: nobody answers as an NBD server does, the export is not given to us, or TLS is in the way. */
export type HandshakeFailure = 'unreachable' | 'refused' | 'tls';

/** What a `HandshakeError` is made of, beside its message. */
export interface HandshakeErrorOptions extends ErrorOptions {
  /** If it is not said, the server could not be reached. */
  readonly failure?: HandshakeFailure | undefined;
}

/**
 * No connection came about, or the server refused the export. The message is one line for the user. Where the
 * system told why, its `cause` is an `ErrnoError`: `ECONNREFUSED`.
 */
export class HandshakeError extends Error {
  /** Tells the kind of error. */
  override readonly name = 'HandshakeError';
  /** The same for those who go by codes. */
  readonly code = 'ERR_NBD_HANDSHAKE';
  /** Why, for those who want to do something about it. */
  readonly failure: HandshakeFailure;

  /** @param message one line for the user */
  constructor(message: string, options: HandshakeErrorOptions = {}) {
    super(message, options);
    this.failure = options.failure ?? 'unreachable';
  }
}

/**
 * What is wrong with the encryption is on our side: a file, or how OpenSSL is set up. The message is no sentence
 * about the server.
 */
export class SetupError extends HandshakeError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, { ...options, failure: 'tls' });
  }
}
