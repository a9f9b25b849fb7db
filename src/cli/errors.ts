/** What ends the command, with a message that is one line for the user. */

import type { HandshakeFailure } from '../nbd/errors.js';

/** A command line that cannot be understood: the usage follows the message, and the exit status is 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';

  /** An error of commander, without its prefix and its full stop, as our other messages are. */
  static from(error: Error): UsageError {
    const text = error.message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ');
    return new UsageError(text.replace(/\.$/, ''), { cause: error });
  }
}

/** What stands in the way of a command: where the disk is to be shown, or where it comes from. */
export type CommandFailure = 'mountpoint' | HandshakeFailure;

export interface CommandErrorOptions extends ErrorOptions {
  /** If it is not said, anything else. */
  readonly failure?: CommandFailure | undefined;
}

/** Something that was asked for cannot be done; `failure` gives the exit status (exit-status.ts). */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly failure: CommandFailure | undefined;

  constructor(message: string, options: CommandErrorOptions = {}) {
    super(message, options);
    this.failure = options.failure;
  }
}

/** A signal came before the disk was mounted. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';

  constructor(readonly signal: NodeJS.Signals) {
    super(`stopped by ${signal} before the disk was mounted`);
  }
}

/** An error that nobody caught: a bug of ours. */
export class InternalError extends Error {
  override readonly name = 'InternalError';

  constructor(cause: unknown) {
    super(`internal error: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}
