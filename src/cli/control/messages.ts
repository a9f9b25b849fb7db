/** What goes over the socket of a running command: lines of JSON, each an object of one of these kinds. */

/** What is said first to each that connects. */
export interface Greeting {
  /** What is mounted on; absolute. */
  readonly mountpoint: string;
  readonly isDirectory: boolean;
}

/** `detach` takes a mount out of sight, whoever has it open. */
export type Request = 'unmount' | 'detach';

export type Message =
  | { readonly kind: 'greeting'; readonly greeting: Greeting }
  /** The answer to a request: 0 or a negated errno. */
  | { readonly kind: 'result'; readonly result: number }
  /** Something was done since it was said last, or since the connection. */
  | { readonly kind: 'progress' }
  /** The last one: what the process exits with now. */
  | { readonly kind: 'exit'; readonly status: number };

/** In bytes; a longer line is no message. */
export const LONGEST_LINE = 16_384;

export const encodeMessage = (message: Message): Buffer =>
  Buffer.from(`${JSON.stringify(message)}\n`);

/** @returns undefined for what is none, as a later version may send */
export function decodeMessage(line: string): Message | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || !('kind' in value)) return undefined;
  switch (value.kind) {
    case 'greeting':
      return 'greeting' in value && isGreeting(value.greeting)
        ? { kind: 'greeting', greeting: value.greeting }
        : undefined;
    case 'result':
      return 'result' in value && Number.isInteger(value.result)
        ? { kind: 'result', result: value.result as number }
        : undefined;
    case 'progress':
      return { kind: 'progress' };
    case 'exit':
      return 'status' in value && Number.isInteger(value.status)
        ? { kind: 'exit', status: value.status as number }
        : undefined;
    default:
      return undefined;
  }
}

function isGreeting(value: unknown): value is Greeting {
  return (
    typeof value === 'object' &&
    value !== null &&
    'mountpoint' in value &&
    typeof value.mountpoint === 'string' &&
    'isDirectory' in value &&
    typeof value.isDirectory === 'boolean'
  );
}

export const isRequest = (line: string): line is Request => line === 'unmount' || line === 'detach';

/** Puts chunks together to lines. */
export class LineSplitter {
  #rest = '';

  /** @returns the lines that are whole now, without their end; undefined where one is too long */
  push(chunk: string): string[] | undefined {
    const lines = (this.#rest + chunk).split('\n');
    this.#rest = lines.pop() ?? '';
    return this.#rest.length > LONGEST_LINE ? undefined : lines;
  }
}
