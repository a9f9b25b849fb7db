/** Lines on standard error for the user. */

/** Control characters, which a file name or a server may bring along, would break the line. */
function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, '?');
}

/** @param program whose message it is */
export function say(message: string, program = 'tsnbdfuse'): void {
  process.stderr.write(`${program}: ${oneLine(message)}\n`);
}

/**
 * Goes on without a standard error or output that somebody closed: a mount must not end because the
 * terminal that it was started from did.
 */
export function surviveClosedOutput(): void {
  process.stderr.on('error', () => undefined);
  process.stdout.on('error', () => undefined);
}
