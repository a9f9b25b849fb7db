/** Whether another try may do it (`unreachable`), or the image is not to be served so (`refused`). */
export type ImageFailure = 'unreachable' | 'refused';

/** An image that cannot be served as it was asked for. The message is one line for the user. */
export class ImageError extends Error {
  override readonly name = 'ImageError';
  /** It gives the exit status (exit-status.ts). */
  readonly failure: ImageFailure;

  constructor(message: string, options: ErrorOptions & { readonly failure?: ImageFailure } = {}) {
    super(message, options);
    this.failure = options.failure ?? 'refused';
  }
}

/** There is nothing of that name, which may be another mistake than a wrong name. */
export class MissingImageError extends ImageError {
  constructor(
    readonly shown: string,
    cause: unknown,
  ) {
    super(`${shown} does not exist`, { cause, failure: 'unreachable' });
  }
}

/** Of the system's errors those that the next try has as well. */
const DENIED: readonly unknown[] = ['EACCES', 'EPERM', 'EROFS'];

/** What has to be done with a file cannot be done, or not now. */
export class ImageAccessError extends ImageError {
  /** @param cause of the system, where it was one */
  constructor(message: string, cause?: unknown) {
    const isDenied = DENIED.includes((cause as NodeJS.ErrnoException | undefined)?.code);
    super(message, { cause, failure: isDenied ? 'refused' : 'unreachable' });
  }
}
