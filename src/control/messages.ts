/**
 * What goes over the control socket of a mount: lines of JSON. Who connects asks first; what the process then says is
 * an object of one of the kinds below.
 */

import { STATUS_VERSION, isMountStatus } from '../observe/mount-status.js';
import type { MountStatus } from '../observe/mount-status.js';

/** What is asked to be done. `detach` takes a mount out of sight, whoever has it open. */
export type Request = 'unmount' | 'detach';

/**
 * - `status`: how the mount is; the answer ends the connection
 * - `unmount`, `detach`: to be done, and told of
 * - `wait`: how it ends, when it does; who has asked for something to be done hears that, too
 */
export type Question = 'status' | 'wait' | Request;

const QUESTIONS: readonly Question[] = ['status', 'wait', 'unmount', 'detach'];

/** Of itself, to each that waits. */
export interface Greeting {
  /** What is mounted on; absolute. */
  readonly mountpoint: string;
  readonly isDirectory: boolean;
}

export type Message =
  | { readonly kind: 'status'; readonly status: MountStatus }
  /** A question that is none. @param error what is wrong with it */
  | { readonly kind: 'error'; readonly error: string }
  /** The answer to `wait`. */
  | { readonly kind: 'greeting'; readonly greeting: Greeting }
  /** The answer to a request: 0 or a negated errno. */
  | { readonly kind: 'result'; readonly result: number }
  /** Something was done since it was said last, or since the question. */
  | { readonly kind: 'progress' }
  /** The last one: what the process exits with now. */
  | { readonly kind: 'exit'; readonly status: number };

/** Bytes. There is not much that can be asked. */
export const LONGEST_QUESTION = 1024;
/** Bytes. More is no answer of ours. */
export const LONGEST_ANSWER = 64 * 1024;

const lineOf = (what: object): string =>
  `${JSON.stringify({ version: STATUS_VERSION, ...what })}\n`;

export const encodeQuestion = (ask: Question): string => lineOf({ ask });
export const encodeMessage = (message: Message): Buffer => Buffer.from(lineOf(message));

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** @returns what is asked, or what is wrong with it */
export function decodeQuestion(line: string): Question | { readonly error: string } {
  const value = parse(line);
  if (value === undefined) return { error: 'a question is a line of JSON' };
  const ask = typeof value === 'object' && value !== null && 'ask' in value ? value.ask : undefined;
  const question = QUESTIONS.find((one) => one === ask);
  return question ?? { error: `not known here; ask for: ${QUESTIONS.join(', ')}` };
}

/** @returns undefined for what is none, as a later version may send */
export function decodeMessage(line: string): Message | undefined {
  const value = parse(line);
  if (typeof value !== 'object' || value === null || !('kind' in value)) return undefined;
  switch (value.kind) {
    case 'status':
      return 'status' in value && isMountStatus(value.status)
        ? { kind: 'status', status: value.status }
        : undefined;
    case 'error':
      return 'error' in value && typeof value.error === 'string'
        ? { kind: 'error', error: value.error }
        : undefined;
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

/** Puts chunks together to lines. */
export class LineSplitter {
  readonly #longest: number;
  #rest = '';

  /** @param longest a line that is not whole, and has more bytes, is too long */
  constructor(longest: number) {
    this.#longest = longest;
  }

  /** @returns the lines that are whole now, without their end; undefined where one is too long */
  push(chunk: string): string[] | undefined {
    const lines = (this.#rest + chunk).split('\n');
    this.#rest = lines.pop() ?? '';
    return this.#rest.length > this.#longest ? undefined : lines;
  }
}
