/** How a process ended. */

export interface Exit {
  /** Undefined where a signal ended it. */
  readonly status: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
}

/** The end of a sentence about the process: `exited with status 1`. */
export function exitText(exit: Exit): string {
  if (exit.signal !== undefined) return `was killed by ${exit.signal}`;
  return `exited with status ${exit.status ?? 'unknown'}`;
}
