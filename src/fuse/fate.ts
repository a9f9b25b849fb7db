/**
 * Whether a thread that waits for us is being killed. The kernel tells us of any signal (INTERRUPT) and not of
 * which; /proc shows what is pending, to an ordinary user as well.
 */

import { readFileSync, readlinkSync } from 'node:fs';
import { constants } from 'node:os';

/** `unknown` where /proc does not tell: hidden (hidepid), or of other processes than the kernel numbers for us. */
export type Fate = 'dying' | 'living' | 'unknown';

const bit = (signal: number): bigint => 1n << BigInt(signal - 1);

/** What a process that is to end has pending in each of its threads, whichever signal ends it. */
const KILL = bit(constants.signals.SIGKILL);

/** But for those that leave a core: they are pending as themselves until a thread is free to die of them. */
const CORE = [
  constants.signals.SIGQUIT,
  constants.signals.SIGILL,
  constants.signals.SIGTRAP,
  constants.signals.SIGABRT,
  constants.signals.SIGBUS,
  constants.signals.SIGFPE,
  constants.signals.SIGSEGV,
  constants.signals.SIGXCPU,
  constants.signals.SIGXFSZ,
  constants.signals.SIGSYS,
].reduce((all, signal) => all | bit(signal), 0n);

/** @param status of /proc/PID/status (proc(5)) */
export function fateIn(status: string): Fate {
  const set = (name: string): bigint | undefined => {
    const digits = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1];
    return digits === undefined ? undefined : BigInt(`0x${digits}`);
  };
  const sets = ['SigPnd', 'ShdPnd', 'SigBlk', 'SigIgn', 'SigCgt'].map(set);
  const [ofThread, ofProcess, blocked, ignored, caught] = sets;
  if (
    ofThread === undefined ||
    ofProcess === undefined ||
    blocked === undefined ||
    ignored === undefined ||
    caught === undefined
  ) {
    return 'unknown';
  }
  const deadly = KILL | (CORE & ~(blocked | ignored | caught));
  return ((ofThread | ofProcess) & deadly) === 0n ? 'living' : 'dying';
}

let sameNumbers: boolean | undefined;

/** Whether /proc is of our own process namespace: elsewhere the same number is another process. */
function numbersAgree(): boolean {
  try {
    sameNumbers ??= readlinkSync('/proc/self') === String(process.pid);
    return sameNumbers;
  } catch {
    return false;
  }
}

/**
 * Reads what the kernel makes up on the spot, which waits for nobody.
 * @param pid of a thread
 */
export function fateOf(pid: number): Fate {
  if (pid === 0 || !numbersAgree()) return 'unknown';
  try {
    return fateIn(readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return 'unknown';
  }
}
