/** A mount that cannot be made. The message is one line for the user: what is wrong, and what to do. */
export class MountError extends Error {
  /** Tells the kind of error. */
  override readonly name = 'MountError';
  /** The same for those who go by codes: `ERR_MOUNT`, or the name of an errno, as `EBUSY`. */
  readonly code: string = 'ERR_MOUNT';
}
