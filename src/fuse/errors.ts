/** A mount that cannot be made. The message is one line for the user: what is wrong, and what to do. */
export class MountError extends Error {
  override readonly name = 'MountError';
}
