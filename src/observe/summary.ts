/** What a mount has done, as lines for people. */

import {
  bytesFigure,
  countFigure,
  durationFigure,
  latencyFigure,
  printableText,
} from './figures.js';
import type { MountStatus, OperationStatus, State } from './mount-status.js';
import { OPERATIONS } from './operations.js';
import type { OperationName } from './operations.js';

const STATE_TEXTS: Readonly<Record<State, string>> = {
  healthy: 'healthy',
  reconnecting: 'reconnecting',
  failed: 'failed',
  ending: 'ending',
  stale: 'stale',
  'no-answer': 'no answer',
};

export const stateText = (state: State): string => STATE_TEXTS[state];

export const VERBS: Readonly<Record<OperationName, string>> = {
  read: 'read',
  write: 'written',
  flush: 'flushed',
  trim: 'trimmed',
  zero: 'zeroed',
};

const plural = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;

/**
 * `healthy, 4 connections, 0 reconnects, 0 B unflushed, mounted for 12 min`
 * @param isOver all is done
 */
export function conditionText(status: MountStatus, now: number, isOver = false): string {
  const { state, connections, reconnects, unflushedBytes, since } = status;
  return [
    isOver && state === 'ending' ? 'unmounted' : stateText(state),
    ...(connections === null || isOver ? [] : [plural(connections, 'connection')]),
    ...(reconnects === null ? [] : [plural(reconnects, 'reconnect')]),
    ...(unflushedBytes === null ? [] : [`${bytesFigure(unflushedBytes)} unflushed`]),
    ...(since === null ? [] : [`mounted for ${durationFigure((now - Date.parse(since)) / 1000)}`]),
  ].join(', ');
}

const HEADINGS = ['', 'count', 'bytes', 'p50', 'p99', 'p99.9', 'errors'] as const;

function cells(name: OperationName, operation: OperationStatus): readonly string[] {
  const { count, bytes, errors, latency } = operation;
  const times = latency === null ? ['-', '-', '-'] : [latency.p50, latency.p99, latency.p999];
  return [
    VERBS[name],
    countFigure(count),
    name === 'flush' ? '-' : bytesFigure(bytes),
    ...times.map((time) => (typeof time === 'string' ? time : latencyFigure(time))),
    countFigure(errors),
  ];
}

const COLUMN = 10;
const FIRST_COLUMN = 8;

/** A table of the operations, less than 80 columns wide. */
export function operationLines({ operations }: MountStatus): string[] {
  if (operations === null) return [];
  const rows = [HEADINGS, ...OPERATIONS.map((name) => cells(name, operations[name]))];
  return rows.map((row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(FIRST_COLUMN) : cell.padStart(COLUMN))).join(''),
  );
}

/**
 * The summary of `--stats` and SIGUSR1: several lines, without the newline of the last.
 * @param shown the file, as the user wrote it
 * @param now milliseconds since the epoch
 * @param isOver it is the last one
 */
export function summaryLines(
  status: MountStatus,
  shown: string,
  now: number,
  isOver = false,
): string[] {
  const server = status.server === null ? '' : ` (${printableText(status.server)})`;
  return [
    `${printableText(shown)}${server}: ${conditionText(status, now, isOver)}`,
    ...(status.problem === null ? [] : [printableText(status.problem)]),
    ...operationLines(status),
  ];
}
