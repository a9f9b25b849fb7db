/** What the user is told: lines on standard error, and texts that were asked for. */

import { closeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { errorText } from '../errno.js';

/** Control characters, which a file name or a server may bring along, would break the line. */
export function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, '?');
}

let aside: (() => void) | undefined;

/** @param make called before each message: what is on the terminal only for the moment makes room for it */
export function setAside(make: (() => void) | undefined): void {
  aside = make;
}

/** @param program whose message it is */
export function say(message: string, program = 'tsnbdfuse'): void {
  sayLines([message], program);
}

/** A message of several lines, which stay together. */
export function sayLines(lines: readonly string[], program = 'tsnbdfuse'): void {
  aside?.();
  process.stderr.write(lines.map((line) => `${program}: ${oneLine(line)}\n`).join(''));
}

/**
 * Prints what was asked for. Who reads no further, as head(1), has all that is wanted.
 * @returns the exit status
 */
export async function print(text: string, program = 'tsnbdfuse'): Promise<number> {
  const error = await new Promise<Error | null | undefined>((resolve) => {
    process.stdout.write(text, resolve);
  });
  if (error === null || error === undefined) return 0;
  if ((error as NodeJS.ErrnoException).code === 'EPIPE') return 0;
  say(`cannot write to standard output: ${errorText(error)}`, program);
  return 1;
}

/**
 * Goes on without a standard error or output that somebody closed: a mount must not end because the
 * terminal that it was started from did.
 */
export function surviveClosedOutput(): void {
  process.stderr.on('error', () => undefined);
  process.stdout.on('error', () => undefined);
  const terminals = STANDARD.filter((fd) => isatty(fd));
  process.once('exit', () => {
    // Node puts back the settings of each terminal that it was started with, and aborts where that fails, as it
    // does when it is there no more. A descriptor that is closed it leaves alone.
    for (const fd of terminals) if (!isatty(fd)) closeQuietly(fd);
  });
}

const STANDARD = [0, 1, 2];

function closeQuietly(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // It was closed before.
  }
}
