/**
 * What a round does, all of it chosen by its seed: how the disk is mounted and used, and which faults come
 * after how many steps.
 */

import { CACHES } from '../support/exerciser.js';
import { seeded } from '../support/memory-disk.js';

export const SERVER_NAMES = [
  'nbdkit',
  'qemu-raw',
  'qemu-qcow2',
  'nbd-server',
  'tsnbdkit',
  'power-cut',
  'captive',
] as const;
export type ServerName = (typeof SERVER_NAMES)[number];

/** What a round injects; `mixed` is all that leaves applications without an error. */
export const FAULT_NAMES = ['kill', 'power', 'cut', 'stall', 'mixed', 'errors', 'delay'] as const;
export type FaultName = (typeof FAULT_NAMES)[number];

/** The faults that each server can have. */
export const COMBINATIONS: Readonly<Record<ServerName, readonly FaultName[]>> = {
  nbdkit: ['kill', 'cut', 'stall', 'mixed', 'errors', 'delay'],
  'qemu-raw': ['kill', 'cut', 'stall', 'mixed'],
  'qemu-qcow2': ['kill', 'cut', 'stall', 'mixed'],
  'nbd-server': ['kill', 'cut', 'stall', 'mixed'],
  tsnbdkit: ['kill', 'cut', 'stall', 'mixed'],
  'power-cut': ['kill', 'power', 'cut', 'stall', 'mixed'],
  captive: ['kill', 'stall'],
};

/** How a network is cut: on our side, on the server's, or so that frames are lost and no link is down. */
export const CUTS = ['ours', 'theirs', 'silence'] as const;
export type Cut = (typeof CUTS)[number];

export interface PowerCut {
  readonly kind: 'power';
  /** Milliseconds. */
  readonly down: number;
  /** What part of what was not flushed had reached the medium, from 0 to 1. */
  readonly kept: number;
  /** Or right after the next flush was answered. */
  readonly when: 'now' | 'flushed';
}

/** Times are in milliseconds. */
export type Fault =
  /** SIGKILL, and a start after a while; and again soon after that, which meets the reconnection. */
  | { readonly kind: 'kill'; readonly down: number; readonly again: readonly number[] }
  | PowerCut
  | { readonly kind: 'cut'; readonly how: Cut; readonly lasts: number; readonly kills: boolean }
  | { readonly kind: 'stall'; readonly lasts: number }
  /** The server refuses some requests for a number of steps. */
  | { readonly kind: 'errors'; readonly steps: number };
export type FaultKind = Fault['kind'] | 'delay';

export interface PlannedFault {
  /** After how many steps of all workers together. */
  readonly at: number;
  readonly fault: Fault;
}

export interface Plan {
  readonly seed: number;
  readonly server: ServerName;
  readonly fault: FaultName;
  /** Of all workers together. */
  readonly steps: number;
  readonly workers: number;
  readonly cache: (typeof CACHES)[number];
  readonly grain: 1 | 4096;
  /** Bytes. */
  readonly size: number;
  readonly connections: number;
  /** The server is reached through the network that can be cut. */
  readonly network: boolean;
  /** Milliseconds that the server waits before each answer. */
  readonly delay: number;
  /** Seconds that a request may take before its connection is given up; undefined for the usual ones. */
  readonly timeout: number | undefined;
  readonly faults: readonly PlannedFault[];
  /** As on the command line: one that is soon reached, or the usual one. */
  readonly unflushedLimit: string | undefined;
}

/** Seconds: above what a request takes on a busy machine, below the longest faults. */
const SHORT_TIMEOUT = 2;
/** Milliseconds. */
const LONGEST_DOWN = 400;
const SHORT = { least: 20, most: 700 };
const LONG = { least: 2_200, most: 4_000 };
const PART_THAT_IS_LONG = 0.25;

/** How many steps there are for each fault. */
const STEPS_PER_FAULT = 60;
const SIZE = 4 * 1024 * 1024;
/** qemu counts in sectors, and so does the power-cut server. */
const ANY_SIZE: readonly ServerName[] = ['nbdkit', 'tsnbdkit'];

/** Draws from a generator of numbers below 1. */
class Dice {
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  chance(part: number): boolean {
    return this.#random() < part;
  }

  /** A whole number, both bounds included. */
  number(least: number, most: number): number {
    return least + Math.floor(this.#random() * (most - least + 1));
  }

  one<T>(choices: readonly [T, ...T[]]): T;
  one<T>(choices: readonly T[]): T | undefined;
  one<T>(choices: readonly T[]): T | undefined {
    return choices[Math.floor(this.#random() * choices.length)];
  }
}

/** Milliseconds that something lasts: now and then longer than the timeout. */
function duration(dice: Dice): number {
  const { least, most } = dice.chance(PART_THAT_IS_LONG) ? LONG : SHORT;
  return dice.number(least, most);
}

function chooseFault(name: FaultName, server: ServerName, dice: Dice): Fault | undefined {
  switch (name) {
    case 'kill': {
      const again = dice.chance(0.3)
        ? Array.from({ length: dice.number(1, 3) }, () => dice.number(0, 150))
        : [];
      return { kind: name, down: dice.number(0, LONGEST_DOWN), again };
    }
    case 'power':
      return {
        kind: name,
        down: dice.number(0, LONGEST_DOWN),
        kept: dice.one([0, 0.5, 1]),
        when: dice.chance(0.5) ? 'flushed' : 'now',
      };
    case 'cut':
      return { kind: name, how: dice.one(CUTS), lasts: duration(dice), kills: dice.chance(0.3) };
    case 'stall':
      return { kind: name, lasts: duration(dice) };
    case 'errors':
      return { kind: name, steps: dice.number(STEPS_PER_FAULT / 10, STEPS_PER_FAULT / 2) };
    case 'mixed': {
      const plain = COMBINATIONS[server].filter((other) => other !== 'mixed' && isGentle(other));
      return chooseFault(dice.one(plain) ?? 'kill', server, dice);
    }
    case 'delay':
      // The server's own, as long as it runs.
      return undefined;
  }
}

/** Whether an application is to see nothing of it. */
export function isGentle(fault: FaultName): boolean {
  return fault !== 'errors' && fault !== 'delay';
}

/** A number for a text, to tell the seeds of different rounds apart (FNV-1a). */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}

export function makePlan(seed: number, server: ServerName, fault: FaultName, steps: number): Plan {
  const dice = new Dice(seeded(seed ^ hash(`${server} ${fault}`)));
  const count = fault === 'delay' ? 0 : Math.max(2, Math.round(steps / STEPS_PER_FAULT));
  const slice = steps / count;
  const faults = Array.from({ length: count }, (_, i) => {
    const at = Math.floor(slice * i) + dice.number(1, Math.max(1, Math.floor(slice / 2)));
    return { at, fault: chooseFault(fault, server, dice) };
  }).filter((planned): planned is PlannedFault => planned.fault !== undefined);
  const isSlow = fault === 'delay' || (server === 'nbdkit' && dice.chance(0.4));
  return {
    seed,
    server,
    fault,
    steps,
    workers: dice.number(1, 4),
    cache: dice.one(CACHES),
    grain: dice.chance(0.5) ? 1 : 4096,
    size: SIZE - (ANY_SIZE.includes(server) && dice.chance(0.5) ? 777 : 0),
    connections: dice.one([1, 2, 4]),
    network: fault === 'cut' || fault === 'mixed',
    delay: isSlow ? dice.number(1, 15) : 0,
    timeout: fault === 'kill' || fault === 'power' || !isGentle(fault) ? undefined : SHORT_TIMEOUT,
    faults,
    unflushedLimit: isGentle(fault) && dice.chance(0.4) ? '1M' : undefined,
  };
}
