/** An image that cannot be served as it was asked for. The message is one line for the user. */
export class ImageError extends Error {
  override readonly name = 'ImageError';
}

/** There is nothing of that name, which may be another mistake than a wrong name. */
export class MissingImageError extends ImageError {
  constructor(
    readonly shown: string,
    cause: unknown,
  ) {
    super(`${shown} does not exist`, { cause });
  }
}
