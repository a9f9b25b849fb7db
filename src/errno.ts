/** The Linux error numbers in use here, positive as errno(3) has them, and what they mean. */

import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

/**
 * The numbers of the machine that we run on (they are the same on x64 and arm64). A few that Node
 * does not list are added as asm-generic/errno.h has them.
 */
export const errno = { ...constants.errno, ESHUTDOWN: 108 } as const;

/** Also those that Node's own errors do not have, as EDQUOT. */
const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(errno).map(([name, code]) => [code, name]),
);

/** `EIO` for 5; `error 999` for a number nobody knows. */
export function errnoName(code: number): string {
  const known = getSystemErrorMap().get(-code);
  return known?.[0] ?? NAMES.get(code) ?? `error ${code}`;
}

/** What libuv words for programmers. */
const WORDS: ReadonlyMap<number, string> = new Map([
  [constants.errno.EISDIR, 'it is a directory'],
  [constants.errno.EXDEV, 'it is on another file system'],
  [constants.errno.EOPNOTSUPP, 'operation not supported'],
]);

/** `i/o error` for 5. */
export function errnoText(code: number): string {
  const known = getSystemErrorMap().get(-code);
  return WORDS.get(code) ?? (known === undefined ? `error ${code}` : known[1]);
}

/** What went wrong, for a message: of an error of the system only what it means. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { errno: code } = error as NodeJS.ErrnoException;
  return code === undefined ? error.message : errnoText(Math.abs(code));
}

/** The highest one that Linux has. */
const MAX_ERRNO = 133;
const BY_NAME: ReadonlyMap<string, number> = new Map(Object.entries(errno));

/** The positive errno that an error of any origin carries, by its name (`code`) or as a number, or undefined. */
export function errnoOf(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { code, errno: number } = error as { readonly code?: unknown; readonly errno?: unknown };
  const named = typeof code === 'string' ? BY_NAME.get(code) : undefined;
  if (named !== undefined) return named;
  // Node has them negated; those beyond are its own.
  const positive = typeof number === 'number' && Number.isInteger(number) ? Math.abs(number) : 0;
  return positive > 0 && positive <= MAX_ERRNO ? positive : undefined;
}

/** An error that came as an errno. */
export class ErrnoError extends Error {
  /** Tells the kind of error. */
  override readonly name = 'ErrnoError';
  /** The name of the number, as Node's own system errors have it: `EIO`. */
  readonly code: string;

  /**
   * @param errno positive
   * @param what was tried; the message is made of it
   * @param cause why, where that is known; the message ends with it
   */
  constructor(
    /** The number, positive as errno(3) has it. */
    readonly errno: number,
    what: string,
    cause?: Error,
  ) {
    const why = cause === undefined ? '' : ` (${cause.message})`;
    super(`${what}: ${errnoText(errno)}${why}`, cause === undefined ? undefined : { cause });
    this.code = errnoName(errno);
  }
}

/** The same for the result of a native call, which gives the errno negated. */
export function checkResult(result: number, what: string): number {
  if (result < 0) throw new ErrnoError(-result, what);
  return result;
}
