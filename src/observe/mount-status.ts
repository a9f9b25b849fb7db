/**
 * What a mount tells of itself: the object that `--status --json` prints, and that goes over the control
 * socket. Its fields stay what they are; there may be more of them in later versions.
 */

import { OPERATIONS } from './operations.js';
import type { OperationName, Operations } from './operations.js';

/** Of the object, and of what is said over the control socket. */
export const STATUS_VERSION = 1;

/**
 * - `healthy`: all is well
 * - `reconnecting`: the server is lost and waited for
 * - `failed`: the server is gone for good, or something that was written is; unmount it
 * - `ending`: it is out of sight, and ends when nobody has it open and what was written is at the server
 * - `stale`: nobody serves it; its tsnbdfuse was killed
 * - `no-answer`: its tsnbdfuse, or whoever serves it, does not say
 */
export const STATES = [
  'healthy',
  'reconnecting',
  'failed',
  'ending',
  'stale',
  'no-answer',
] as const;
export type State = (typeof STATES)[number];

/** Of one kind of operation, since the mount. */
export interface OperationStatus {
  /** How many succeeded; those that failed are in `errors` and nowhere else. */
  readonly count: number;
  readonly bytes: number;
  readonly errors: number;
  /** Seconds, to about 3 %; null where there was none. */
  readonly latency: Latency | null;
}

export interface Latency {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
}

/** All but the first four fields are null where nobody answers. */
export interface MountStatus {
  /** What is mounted on, absolute. */
  readonly mountpoint: string;
  /** Of the tsnbdfuse that serves it. */
  readonly pid: number | null;
  readonly state: State;
  /** A URI without what is nobody's business, or the name of the captive server's command. */
  readonly server: string | null;
  /** The file with the disk, absolute: the mountpoint, or a file in it. */
  readonly file: string | null;
  /** What is wrong, as a sentence without a full stop. */
  readonly problem: string | null;
  /** The server was started by tsnbdfuse. */
  readonly captive: boolean | null;
  /** When it was mounted, as ISO 8601 has it. */
  readonly since: string | null;
  /** Of the disk, in bytes, in decimal digits: a number of JavaScript could not tell each of them. */
  readonly size: string | null;
  readonly readOnly: boolean | null;
  readonly cache: string | null;
  /** To the server. */
  readonly connections: number | null;
  /** How often the server was lost and connected to again. */
  readonly reconnects: number | null;
  /** Requests of the kernel that are not answered yet. */
  readonly inFlight: number | null;
  /** Bytes that were written, that no flush has covered, and that are kept to be sent again. */
  readonly unflushedBytes: number | null;
  readonly operations: Readonly<Record<OperationName, OperationStatus>> | null;
}

/** A status of a mount that says nothing itself. */
export function silentStatus(
  mountpoint: string,
  pid: number | null,
  state: 'stale' | 'no-answer',
  server: string | null,
): MountStatus {
  return {
    mountpoint,
    pid,
    state,
    server,
    file: null,
    problem: null,
    captive: null,
    since: null,
    size: null,
    readOnly: null,
    cache: null,
    connections: null,
    reconnects: null,
    inFlight: null,
    unflushedBytes: null,
    operations: null,
  };
}

/** Significant digits of a latency: more than it is known to. */
const LATENCY_DIGITS = 3;

export function operationsStatus(
  operations: Operations,
): Readonly<Record<OperationName, OperationStatus>> {
  const of = (name: OperationName): OperationStatus => {
    const { count, bytes, errors, latency } = operations[name];
    const seconds = (part: number): number =>
      Number(((latency.quantile(part) ?? 0) / 1000).toPrecision(LATENCY_DIGITS));
    return {
      count,
      bytes,
      errors,
      latency:
        latency.count === 0
          ? null
          : { p50: seconds(0.5), p99: seconds(0.99), p999: seconds(0.999) },
    };
  };
  return {
    read: of('read'),
    write: of('write'),
    flush: of('flush'),
    trim: of('trim'),
    zero: of('zero'),
  };
}

/** What `--status --json` prints. */
export function statusJson(mounts: readonly MountStatus[]): string {
  const text = JSON.stringify({ version: STATUS_VERSION, mounts }, undefined, 2);
  // The size as a number with all of its digits. A quote within a string would have a backslash before it.
  return `${text.replaceAll(/^( *"size": )"(\d+)"/gm, '$1$2')}\n`;
}

/** More of a string than a path may have (PATH_MAX) is not believed. */
const LONGEST = 8192;

type Fields = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isText = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= LONGEST;
const isAmount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(value) && value >= 0;
const isFlag = (value: unknown): value is boolean => typeof value === 'boolean';
const isSize = (value: unknown): value is string => isText(value) && /^\d{1,19}$/.test(value);
const isTime = (value: unknown): value is string =>
  isText(value) && /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value);
const orNull =
  <T>(is: (value: unknown) => value is T) =>
  (value: unknown): value is T | null =>
    value === null || is(value);

const isLatency = (value: unknown): value is Latency =>
  isObject(value) && ['p50', 'p99', 'p999'].every((name) => isAmount(value[name]));
const isOperation = (value: unknown): value is OperationStatus =>
  isObject(value) &&
  ['count', 'bytes', 'errors'].every((name) => isAmount(value[name])) &&
  orNull(isLatency)(value['latency']);
const isOperations = (value: unknown): value is MountStatus['operations'] =>
  isObject(value) && OPERATIONS.every((name) => isOperation(value[name]));

const FIELDS: Readonly<Record<keyof MountStatus, (value: unknown) => boolean>> = {
  mountpoint: isText,
  pid: isAmount,
  state: (value) => STATES.some((one) => one === value),
  server: isText,
  file: isText,
  problem: orNull(isText),
  captive: isFlag,
  since: isTime,
  size: isSize,
  readOnly: isFlag,
  cache: isText,
  connections: isAmount,
  reconnects: isAmount,
  inFlight: isAmount,
  unflushedBytes: isAmount,
  operations: isOperations,
};

/** What a running mount has answered: another user may run it, who may have it say anything. */
export function isMountStatus(value: unknown): value is MountStatus {
  return isObject(value) && Object.entries(FIELDS).every(([name, isValid]) => isValid(value[name]));
}
