/** What a run has done and what it cost, counted. */

import { readFileSync, readdirSync } from 'node:fs';
import type { FaultKind, FaultName, ServerName } from './plan.js';

export type FaultCounts = Record<FaultKind, number>;

/** What tsnbdfuse has of the machine. */
export interface Holdings {
  /** Resident, in bytes. */
  readonly memory: number;
  readonly descriptors: number;
}

export function holdingsOf(pid: number): Holdings {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return {
    memory: Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
  };
}

export interface RoundFigures {
  readonly server: ServerName;
  readonly fault: FaultName;
  readonly seed: number;
  /** Steps of the exerciser, each of which is one or many requests. */
  readonly operations: number;
  readonly faults: FaultCounts;
  /** Errors that programs got, where they are to get some. */
  readonly refusals: number;
  readonly lostSectors: number;
  /** How servers ended that nobody had asked to, and that are not ours. */
  readonly crashes: readonly string[];
  /** That tsnbdfuse told of; it does not tell of all when there are many. */
  readonly reconnects: number;
  readonly start: Holdings;
  readonly end: Holdings;
  readonly seconds: number;
}

export interface Failure {
  readonly seed: number;
  /** What to type to see it again. */
  readonly command: string;
  readonly problem: string;
}

export interface RunFigures {
  readonly seed: number;
  readonly rounds: readonly RoundFigures[];
  readonly failures: readonly Failure[];
}

interface Totals {
  readonly operations: number;
  readonly faults: FaultCounts;
  readonly refusals: number;
  readonly lostSectors: number;
  readonly crashes: number;
  readonly reconnects: number;
  /** Of any round, in bytes. */
  readonly mostMemory: { readonly start: number; readonly end: number };
  readonly mostDescriptors: { readonly start: number; readonly end: number };
}

function totals(rounds: readonly RoundFigures[]): Totals {
  const sum = (of: (round: RoundFigures) => number): number =>
    rounds.reduce((total, round) => total + of(round), 0);
  const most = (of: (round: RoundFigures) => number): number => Math.max(0, ...rounds.map(of));
  const kinds: readonly FaultKind[] = ['kill', 'power', 'cut', 'stall', 'errors', 'delay'];
  return {
    operations: sum((round) => round.operations),
    faults: Object.fromEntries(
      kinds.map((kind) => [kind, sum(({ faults }) => faults[kind])]),
    ) as FaultCounts,
    refusals: sum((round) => round.refusals),
    lostSectors: sum((round) => round.lostSectors),
    crashes: sum((round) => round.crashes.length),
    reconnects: sum((round) => round.reconnects),
    mostMemory: {
      start: most(({ start }) => start.memory),
      end: most(({ end }) => end.memory),
    },
    mostDescriptors: {
      start: most(({ start }) => start.descriptors),
      end: most(({ end }) => end.descriptors),
    },
  };
}

const MIB = 2 ** 20;
const mib = (bytes: number): string => `${Math.round(bytes / MIB)} MiB`;

/** `kill 12, stall 3`, without those that there were none of. */
export function countsText(faults: FaultCounts): string {
  const some = Object.entries(faults).filter(([, count]) => count > 0);
  return some.map(([kind, count]) => `${kind} ${count}`).join(', ');
}

const lastLine = (text: string): string => text.trim().split('\n').at(-1) ?? '';

export function roundText(round: RoundFigures): string {
  const { start, end } = round;
  return [
    `${round.server} ${round.fault}, seed ${round.seed}: ${round.operations} operations`,
    countsText(round.faults),
    ...(round.refusals > 0 ? [`${round.refusals} errors`] : []),
    ...(round.lostSectors > 0 ? [`${round.lostSectors} sectors lost`] : []),
    ...round.crashes.map((how) => `the server crashed (${lastLine(how)})`),
    `${round.reconnects} reconnects`,
    `memory ${mib(start.memory)} to ${mib(end.memory)}`,
    `descriptors ${start.descriptors} to ${end.descriptors}`,
    `${round.seconds.toFixed(1)} s`,
  ].join(', ');
}

export function runText({ rounds, failures, seed }: RunFigures): string {
  const all = totals(rounds);
  return [
    `${rounds.length} rounds without a fault of ours, ${failures.length} with one; seeds from ${seed} on`,
    `operations: ${all.operations}`,
    `faults injected: ${countsText(all.faults)}`,
    `errors that programs got, of those injected: ${all.refusals}`,
    `sectors that power cuts took: ${all.lostSectors}`,
    `crashes of servers of others, by themselves: ${all.crashes}`,
    `reconnects that were told of: ${all.reconnects}`,
    `memory of tsnbdfuse, at most: ${mib(all.mostMemory.start)} at the start, ${mib(all.mostMemory.end)} at the end of a round`,
    `descriptors, at most: ${all.mostDescriptors.start} at the start, ${all.mostDescriptors.end} at the end`,
  ].join('\n');
}

export function runJson(figures: RunFigures): string {
  return `${JSON.stringify({ ...figures, totals: totals(figures.rounds) }, undefined, 2)}\n`;
}
