/** What `--status` prints for people. */

import { bytesFigure, printableText } from './figures.js';
import type { MountStatus } from './mount-status.js';
import { conditionText, operationLines, stateText } from './summary.js';

const HEADINGS = ['MOUNTPOINT', 'PID', 'STATE', 'SIZE', 'READ', 'WRITTEN', 'SERVER'] as const;
const TO_THE_RIGHT = new Set(['PID', 'SIZE', 'READ', 'WRITTEN']);

function rowOf(status: MountStatus): readonly string[] {
  const { mountpoint, pid, state, size, operations, server } = status;
  return [
    printableText(mountpoint),
    pid === null ? '-' : String(pid),
    stateText(state),
    size === null ? '-' : bytesFigure(Number(size)),
    operations === null ? '-' : bytesFigure(operations.read.bytes),
    operations === null ? '-' : bytesFigure(operations.write.bytes),
    server === null ? '-' : printableText(server),
  ];
}

/** One line for each mount, under headings; aligned, and within 80 columns where the names are not too long. */
export function statusTable(statuses: readonly MountStatus[]): string {
  if (statuses.length === 0) return 'no disk is mounted\n';
  const rows = [HEADINGS, ...statuses.map(rowOf)];
  const widths = HEADINGS.map((_, i) => Math.max(...rows.map((row) => (row[i] ?? '').length)));
  const lines = rows.map((row) =>
    row
      .map((cell, i) => {
        const width = widths[i] ?? 0;
        return TO_THE_RIGHT.has(HEADINGS[i] ?? '') ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}

/** All that is known of one. @param now milliseconds since the epoch */
export function statusDetails(status: MountStatus, now: number): string {
  const { mountpoint, file, server, captive, size, readOnly, cache, pid, problem } = status;
  const exact = size === null ? '' : `${bytesFigure(Number(size))} (${size} bytes)`;
  const how = readOnly === true ? ', read-only' : `, cache ${cache ?? ''}`;
  const fields: readonly (readonly [string, string | null])[] = [
    ['mountpoint', mountpoint],
    ['file', file === mountpoint ? null : file],
    ['server', server === null ? null : `${server}${captive === true ? ' (captive)' : ''}`],
    ['size', size === null ? null : exact + how],
    ['process', pid === null ? null : String(pid)],
    ['state', conditionText(status, now)],
    ['problem', problem],
  ];
  const lines = fields.flatMap(([name, value]) =>
    value === null ? [] : [`${`${name}:`.padEnd(12)}${printableText(value)}`],
  );
  const operations = operationLines(status);
  return [...lines, ...(operations.length === 0 ? [] : ['', ...operations]), ''].join('\n');
}
