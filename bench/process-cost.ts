/** What a process and its children have used of the machine so far, out of /proc. */

import { readFileSync, readdirSync } from 'node:fs';

/** USER_HZ, in which /proc counts, is 100 on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;

export interface ProcessCost {
  readonly cpuSeconds: number;
  readonly peakBytes: number;
}

interface Stat {
  readonly parent: number;
  readonly ticks: number;
}

/** The name of the program, in parentheses, may contain anything: what counts begins after it. */
export function parseStat(text: string): Stat {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const field = (index: number): number => Number(fields[index]);
  // proc(5): 4 ppid, 14 utime, 15 stime, 16 cutime, 17 cstime; the first of ours is field 3.
  return { parent: field(1), ticks: field(11) + field(12) + field(13) + field(14) };
}

/** Bytes; 0 of a kernel thread, which has no such line. */
export function parsePeak(status: string): number {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

function readStat(pid: number): Stat | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return undefined;
  }
}

function familyOf(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    const child = Number(name);
    if (!Number.isInteger(child)) continue;
    const parent = readStat(child)?.parent;
    if (parent === undefined) continue;
    children.set(parent, [...(children.get(parent) ?? []), child]);
  }
  const family: number[] = [];
  const next = [pid];
  for (let member = next.pop(); member !== undefined; member = next.pop()) {
    family.push(member);
    next.push(...(children.get(member) ?? []));
  }
  return family;
}

export function readCost(pid: number): ProcessCost {
  let ticks = 0;
  let peakBytes = 0;
  for (const member of familyOf(pid)) {
    try {
      ticks += parseStat(readFileSync(`/proc/${member}/stat`, 'latin1')).ticks;
      peakBytes += parsePeak(readFileSync(`/proc/${member}/status`, 'latin1'));
    } catch {
      // It has just ended; what it used is with its parent.
    }
  }
  return { cpuSeconds: ticks / TICKS_PER_SECOND, peakBytes };
}
